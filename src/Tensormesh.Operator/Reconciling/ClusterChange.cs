using k8s.Models;
using Tensormesh.Billing;

namespace Tensormesh.Operator.Reconciling;

/// <summary>One step from what is to what should be. Each is idempotent; they are applied in order.</summary>
internal abstract record ClusterChange
{
    private ClusterChange() { }

    /// <summary>Keep the GpuDeployment visible until its usage is recorded.</summary>
    public sealed record AddFinalizer : ClusterChange;

    /// <summary>All usage is recorded: let the GpuDeployment go.</summary>
    public sealed record RemoveFinalizer : ClusterChange;

    /// <summary>Record that a pod's GPUs are held.</summary>
    /// <param name="EndedAt">Where they are known to be free again: that is recorded next.</param>
    public sealed record RecordStart(RunStart Start, DateTimeOffset? EndedAt) : ClusterChange;

    /// <summary>Record that a pod's GPUs are free, and settle its last window.</summary>
    public sealed record RecordEnd(PodId Pod, DateTimeOffset EndedAt) : ClusterChange;

    /// <summary>An interval is open in the ledger whose pod the local copy does not have: ask the server itself, and close it if the pod is gone.</summary>
    public sealed record EndVanishedRun(OpenRun Run) : ClusterChange;

    /// <summary>The pod's usage is recorded: let it go.</summary>
    public sealed record ReleasePod(string Name) : ClusterChange;

    /// <summary>A pod that runs uncharged (its account was suspended, or is no longer the payer) must not run on.</summary>
    public sealed record EvictPod(string Name) : ClusterChange;

    /// <summary>Set money aside, or change what is set aside. Asks the gate once more under the account's lock; a refusal there ends the round.</summary>
    public sealed record PlaceHold(LaunchRequest Request) : ClusterChange;

    public sealed record ReleaseHold : ClusterChange;

    /// <summary>The balance is used up: stop charging everything of the account at that exact instant.</summary>
    public sealed record SuspendAccount(AccountId Account) : ClusterChange;

    /// <summary>This deployment alone must stop: no card, budget spent, or another payer.</summary>
    public sealed record SuspendDeployment(DateTimeOffset At, string Reason) : ClusterChange;

    /// <summary>
    /// Make sure that no Deployment of somebody else's has the child's name: the local copy holds only what carries our labels, so the server
    /// itself is asked, before money is set aside. If one has, the round ends with <see cref="Outcome.NameTaken"/>.
    /// </summary>
    public sealed record ClaimName(string Name) : ClusterChange;

    public sealed record ApplyChild(V1Deployment Rendered) : ClusterChange;

    public sealed record DeleteChild(string Name) : ClusterChange;
}

/// <summary>How a round of changes ended.</summary>
internal enum Outcome
{
    /// <summary>All of them were carried out.</summary>
    Whole,
    /// <summary>The gate refused under the lock: the deployment must be looked at again at once.</summary>
    LookAgain,
    /// <summary>A Deployment of the child's name is somebody else's.</summary>
    NameTaken,
}
