using Tensormesh.Billing;
using Tensormesh.Operator.Reconciling;

namespace Tensormesh.Simulation.Tests;

/// <summary>A look at a deployment and what was decided, on its way to being carried out.</summary>
/// <param name="Timely">Nothing else happened between the look and the acts, so that what was seen is what is.</param>
internal sealed record Round(ModelDeployment Deployment, Observation Seen, Decision Decision, Queue<ClusterChange> Left, bool Timely)
{
    /// <summary>The same round again, as of before.</summary>
    public Round Again() => this with { Left = new(Decision.Changes), Timely = false };

    /// <summary>Null for a change that concerns the cluster alone.</summary>
    public Effect? EffectOf(ClusterChange change, Outcome outcome) => change switch
    {
        ClusterChange.RecordStart start => new Effect.Start(start.Start.Pod, start.EndedAt),
        ClusterChange.RecordEnd end => new Effect.End(end.Pod),
        ClusterChange.EndVanishedRun vanished => new Effect.End(vanished.Run.Pod),
        ClusterChange.PlaceHold => new Effect.Hold(Seen.Id, outcome == Outcome.Whole),
        ClusterChange.ReleaseHold => new Effect.Release(Seen.Id),
        ClusterChange.SuspendAccount suspend => new Effect.SuspendAccount(suspend.Account),
        ClusterChange.SuspendDeployment suspend => new Effect.SuspendDeployment(Seen.Id, suspend.At),
        _ => null,
    };

    /// <summary>For the trace.</summary>
    public string Name(ClusterChange change) => change switch
    {
        ClusterChange.RecordStart start => $"RecordStart {start.Start.PodName} {start.Start.StartedAt:HH:mm:ss}",
        ClusterChange.RecordEnd end => $"RecordEnd {PodName(end.Pod)} {end.EndedAt:HH:mm:ss}",
        ClusterChange.EndVanishedRun vanished => $"EndVanishedRun {PodName(vanished.Run.Pod)}",
        ClusterChange.ReleasePod pod => $"ReleasePod {pod.Name}",
        ClusterChange.EvictPod pod => $"EvictPod {pod.Name}",
        ClusterChange.PlaceHold place => $"PlaceHold {place.Request.Gpus} x {place.Request.Product}",
        ClusterChange.SuspendAccount suspend => $"SuspendAccount {suspend.Account}",
        ClusterChange.SuspendDeployment suspend => $"SuspendDeployment {suspend.Reason} {suspend.At:HH:mm:ss.ffffff}",
        ClusterChange.ApplyChild apply => $"ApplyChild {apply.Rendered.Spec.Replicas}",
        _ => change.GetType().Name,
    };

    private string PodName(PodId pod) => Deployment.Pods.Find(each => each.Uid == pod.Value)?.Name ?? "?";
}
