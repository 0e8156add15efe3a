using k8s.Models;
using Tensormesh.Billing;
using Tensormesh.Resources;

namespace Tensormesh.Operator.Reconciling;

/// <summary>What the ledger said, or that it said nothing.</summary>
internal abstract record LedgerView
{
    private LedgerView() { }

    /// <param name="Standing">Null when the ledger knows no such account, or the namespace names none.</param>
    /// <param name="Runs">Intervals of this deployment that have not ended.</param>
    public sealed record Known(DeploymentStanding? Standing, IReadOnlyList<OpenRun> Runs, IReadOnlyDictionary<GpuProduct, GpuPrice> Prices) : LedgerView;

    public sealed record Unavailable(string Why) : LedgerView;
}

/// <summary>Everything that a decision about one GpuDeployment looks at, read at one instant. Decide reads nothing else, not even the clock.</summary>
internal sealed record Observation
{
    /// <summary>With its defaults filled in.</summary>
    public required GpuDeployment Deployment { get; init; }
    /// <summary>From the namespace's label; null when it has none.</summary>
    public required AccountId? Account { get; init; }
    /// <summary>False when the account's BillingAccount is not there (any more): its money is the ledger's, and does not go with it.</summary>
    public bool AccountIsShown { get; init; } = true;
    /// <summary>The namespace is being deleted, and with it all that is in it.</summary>
    public bool NamespaceIsEnding { get; init; }
    public required V1Deployment? Child { get; init; }
    /// <summary>What this process last applied to the child; null when it has not yet.</summary>
    public required AppliedChild? Applied { get; init; }
    /// <summary>What the server said of the last child that it refused as invalid; null when it refused none.</summary>
    public required RefusedChild? Refused { get; init; }
    /// <summary>A Deployment of the same name that is not ours stands in the way.</summary>
    public required bool NameTaken { get; init; }
    public required IReadOnlyList<PodRun> Pods { get; init; }
    /// <summary>What the agents say of the pods' GPUs; none for a pod that no agent names.</summary>
    public IReadOnlyDictionary<PodId, HeldDevices> Devices { get; init; } = new Dictionary<PodId, HeldDevices>();
    /// <summary>Where most GPUs of the product are free; null when nobody tells, and while nothing waits for one.</summary>
    public (string Node, int Gpus)? MostFree { get; init; }
    /// <summary>False in a cluster without agents, where nobody can say how GPUs are.</summary>
    public bool HasAgents { get; init; }
    public required GpuInventory Gpus { get; init; }
    public required LedgerView Ledger { get; init; }
    public required DateTimeOffset Now { get; init; }

    /// <summary>Empty for an object under review that has no uid yet.</summary>
    public DeploymentId Id => new(Guid.TryParse(Deployment.Metadata.Uid, out var uid) ? uid : Guid.Empty);
    public bool Deleting => NamespaceIsEnding || Deployment.Metadata.DeletionTimestamp is not null;
    public bool HasFinalizer => Deployment.Metadata.Finalizers?.Contains(WellKnown.MeteringFinalizer) == true;
    public bool Paused => Deployment.Spec.Paused == true;
    public int WantedReplicas => Deleting || Paused ? 0 : Deployment.Spec.Replicas ?? 1;
    public int CurrentReplicas => Child?.Spec?.Replicas ?? 0;
}
