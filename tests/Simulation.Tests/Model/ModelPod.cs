using k8s.Models;
using Tensormesh.Resources;

namespace Tensormesh.Simulation.Tests;

/// <summary>A node of the model. Its kubelet reports in whole seconds, and at once; a silent one reports nothing.</summary>
internal sealed class ModelNode(string name)
{
    /// <summary>The node controller's patience before it takes a node for lost, and before it gives up the pods on it.</summary>
    public static readonly TimeSpan MarkedAfter = TimeSpan.FromSeconds(40), GivenUpAfter = TimeSpan.FromMinutes(5);

    public string Name { get; } = name;
    public DateTimeOffset? SilentFrom { get; set; }
    /// <summary>When its Ready turned Unknown; null while it is heard, or not yet missed.</summary>
    public DateTimeOffset? MarkedAt { get; set; }
    public bool PodsGivenUp { get; set; }
}

/// <summary>A pod of the model, with the truth about its hold on GPUs, and what of that the API server would tell.</summary>
internal sealed class ModelPod
{
    public const long TermGraceSeconds = 30;

    public required string Name { get; init; }
    public required Guid Uid { get; init; }
    public required string Namespace { get; init; }
    public required V1PodTemplateSpec Template { get; init; }
    /// <summary>GPUs and product: pods of another shape than their child's are replaced.</summary>
    public required string Shape { get; init; }
    public required int Gpus { get; init; }
    public required ModelNode Node { get; init; }

    /// <summary>When its container will start; null: never, or it has.</summary>
    public DateTimeOffset? StartsAt { get; set; }
    /// <summary>When its container will have ended after it was told to stop.</summary>
    public DateTimeOffset? StopsAt { get; set; }
    public bool IgnoresTerm { get; init; }

    public DateTimeOffset? StartedAt { get; set; }
    /// <summary>A container that ended and was started again at once; once at most, because the status keeps one earlier life.</summary>
    public DateTimeOffset? RestartedAt { get; set; }
    public DateTimeOffset? FinishedAt { get; set; }
    /// <summary>Evicted by its kubelet: it will not run again, and its object stays.</summary>
    public bool Failed { get; set; }
    public DateTimeOffset? DeletionAsked { get; set; }
    public long Grace { get; set; }
    public bool HasFinalizer { get; set; } = true;
    /// <summary>Somebody took off its finalizer and deleted it by force, at this instant.</summary>
    public DateTimeOffset? VanishedAt { get; set; }
    /// <summary>The kubelet's Event of its killing is there to be read.</summary>
    public bool KillingTold { get; set; }

    /// <summary>When one of its GPUs was last seen well, once it failed.</summary>
    public DateTimeOffset? GpuWellUntil { get; set; }
    public DateTimeOffset? GpuFaultSeenAt { get; set; }

    public bool IsLive => DeletionAsked is null && !Failed && VanishedAt is null;

    /// <summary>
    /// The last instant at which it held its GPUs, as far as anybody can ever know: what the kubelet saw, or of a lost node when the cluster lost sight
    /// of it. Null while it holds them.
    /// </summary>
    public DateTimeOffset? TrueEnd
    {
        get
        {
            if (FinishedAt is { } finished) return finished;
            if (VanishedAt is { } vanished) return vanished;
            if (DeletionAsked is not { } asked || Node.MarkedAt is not { } lost) return null;
            var deletion = asked.AddSeconds(Grace);
            return lost < deletion ? lost : deletion;
        }
    }

    public V1Pod Render() => new()
    {
        ApiVersion = "v1",
        Kind = "Pod",
        Metadata = new V1ObjectMeta
        {
            Name = Name,
            NamespaceProperty = Namespace,
            Uid = Uid.ToString(),
            ResourceVersion = "1",
            Labels = Template.Metadata.Labels,
            Annotations = Template.Metadata.Annotations,
            DeletionTimestamp = DeletionAsked?.AddSeconds(Grace).UtcDateTime,
            DeletionGracePeriodSeconds = DeletionAsked is null ? null : Grace,
            Finalizers = HasFinalizer ? [WellKnown.MeteringFinalizer] : [],
        },
        Spec = new V1PodSpec { NodeName = Node.Name, Containers = Template.Spec.Containers, Affinity = Template.Spec.Affinity },
        Status = new V1PodStatus
        {
            Phase = Failed ? "Failed" : StartedAt is null ? "Pending" : "Running",
            ContainerStatuses = [Container()],
            Conditions = Conditions(),
        },
    };

    private V1ContainerStatus Container()
    {
        var began = RestartedAt ?? StartedAt;
        var state = FinishedAt is { } finished
            ? new V1ContainerState { Terminated = Terminated(began!.Value, finished) }
            : began is { } running
                ? new V1ContainerState { Running = new V1ContainerStateRunning { StartedAt = running.UtcDateTime } }
                : new V1ContainerState { Waiting = new V1ContainerStateWaiting { Reason = "ContainerCreating" } };
        var last = RestartedAt is { } again ? new V1ContainerState { Terminated = Terminated(StartedAt!.Value, again) } : null;
        return new V1ContainerStatus { Name = "main", Image = "", ImageID = "", State = state, LastState = last, Ready = FinishedAt is null && began is not null };
    }

    private static V1ContainerStateTerminated Terminated(DateTimeOffset from, DateTimeOffset to)
        => new() { StartedAt = from.UtcDateTime, FinishedAt = to.UtcDateTime, ExitCode = 0 };

    private V1PodCondition[] Conditions()
    {
        var runs = StartedAt is not null && FinishedAt is null;
        // The node controller turns Ready alone, and leaves the containers' own condition as the kubelet last wrote it.
        return Node.MarkedAt is { } lost && runs
            ? [Condition("Ready", false, lost), Condition("ContainersReady", true, StartedAt)]
            : [Condition("Ready", runs, null), Condition("ContainersReady", runs, null)];
    }

    private static V1PodCondition Condition(string type, bool status, DateTimeOffset? since)
        => new() { Type = type, Status = status ? "True" : "False", LastTransitionTime = since?.UtcDateTime };
}
