using k8s.Models;
using Tensormesh.Billing;
using Tensormesh.Operator.Telemetry;
using Tensormesh.Operator.Watching;
using Tensormesh.Resources;

namespace Tensormesh.Operator.Reconciling;

/// <summary>
/// Compares who holds GPUs, by the word of the nodes' agents, with who is charged for them. A pod that holds GPUs and has no run interval costs us, or is
/// somebody's that goes round the operator; an interval without a pod costs a customer. Both are told, and nothing is done about them here: what can be
/// put right is put right by the loop and by <see cref="Orphans"/>, and what they leave needs a person.
/// </summary>
internal sealed partial class Audit(
    ClusterView cluster, RunIntervals runs, Holds holds, CreditPolicy policy, EventRecorder events, OperatorOptions options, OperatorMetrics metrics, TimeProvider time, ILogger<Audit> logger)
{
    private static readonly TimeSpan LongestPeriod = TimeSpan.FromSeconds(15);
    private const int MissedHeartbeats = 3;

    /// <summary>A pod has its GPUs before it starts, and for a moment after its end is recorded.</summary>
    private readonly TimeSpan patience = options.AuditPatience;

    /// <summary>When each was first found, by pod uid.</summary>
    private readonly Dictionary<string, long> found = new(StringComparer.Ordinal);
    private readonly HashSet<string> told = new(StringComparer.Ordinal);
    private HashSet<string> shown = new(StringComparer.Ordinal);

    public async Task RunAsync(CancellationToken cancellation)
    {
        using var timer = new PeriodicTimer(patience < LongestPeriod ? patience : LongestPeriod, time);
        do
        {
            try
            {
                await SweepAsync(cancellation).ConfigureAwait(false);
            }
            catch (Exception fault) when (LedgerAvailability.IsUnavailable(fault))
            {
                LogPutOff(logger, fault.Message);
            }
        }
        while (await timer.WaitForNextTickAsync(cancellation).ConfigureAwait(false));
    }

    private async Task SweepAsync(CancellationToken cancellation)
    {
        var open = await runs.ListOpenAsync(cancellation).ConfigureAwait(false);
        var charged = open.Select(run => run.Pod.ToString()).ToHashSet(StringComparer.Ordinal);
        var there = cluster.Pods.All.Select(pod => pod.Metadata.Uid).ToHashSet(StringComparer.Ordinal);
        var speaking = cluster.GpuNodes.All.Where(node => node.Status is not null).ToLookup(node => IsSilent(node.Status!));
        metrics.AgentsSilent.Set(speaking[true].Count());

        var holders = speaking[false].SelectMany(node => node.Status!.Allocations ?? [])
            .Where(allocation => allocation.PodUid is not null && !charged.Contains(allocation.PodUid))
            .GroupBy(allocation => allocation.PodUid!, StringComparer.Ordinal)
            .ToDictionary(pod => pod.Key, pod => pod.First(), StringComparer.Ordinal);
        var ghosts = open.Where(run => !there.Contains(run.Pod.ToString())).ToDictionary(run => run.Pod.ToString(), StringComparer.Ordinal);

        var lasting = Lasting([.. holders.Keys, .. ghosts.Keys]);
        await TellAsync([.. holders.Where(pod => lasting.Contains(pod.Key)).Select(pod => pod.Value)], cancellation).ConfigureAwait(false);
        var lost = ghosts.Where(run => lasting.Contains(run.Key)).Select(run => run.Value).ToList();
        metrics.RunsWithoutPod.Set(lost.Count);
        foreach (var run in lost.Where(run => told.Add(run.Pod.ToString()))) LogGhost(logger, run.Pod.Value, run.Deployment.Value, run.Account.Value);
        told.IntersectWith(lasting);
        metrics.HoldsExpired.Set(await holds.CountIdleAsync(time.GetUtcNow() - policy.HoldWindow, cancellation).ConfigureAwait(false));
    }

    /// <summary>Of what was found now, what has been so for long enough to be no passing state.</summary>
    private HashSet<string> Lasting(IReadOnlyCollection<string> now)
    {
        foreach (var gone in found.Keys.Except(now).ToList()) found.Remove(gone);
        foreach (var pod in now) found.TryAdd(pod, time.GetTimestamp());
        return [.. found.Where(pod => time.GetElapsedTime(pod.Value) >= patience).Select(pod => pod.Key)];
    }

    private async Task TellAsync(IReadOnlyList<GpuAllocation> unmetered, CancellationToken cancellation)
    {
        var byNamespace = unmetered.GroupBy(pod => pod.PodNamespace, StringComparer.Ordinal).ToDictionary(pods => pods.Key, pods => pods.Sum(pod => pod.Gpus.Count), StringComparer.Ordinal);
        foreach (var (team, gpus) in byNamespace) metrics.UnmeteredGpus.WithLabels(team).Set(gpus);
        foreach (var gone in shown.Except(byNamespace.Keys)) metrics.UnmeteredGpus.RemoveLabelled(gone);
        shown = [.. byNamespace.Keys];
        foreach (var pod in unmetered.Where(pod => told.Add(pod.PodUid!)))
        {
            LogUnmetered(logger, pod.PodNamespace, pod.PodName, string.Join(", ", pod.Gpus));
            var about = new V1Pod { ApiVersion = "v1", Kind = V1Pod.KubeKind, Metadata = new V1ObjectMeta { Name = pod.PodName, NamespaceProperty = pod.PodNamespace, Uid = pod.PodUid } };
            await events.RecordAsync(
                about, warning: true, "UnmeteredGpus",
                $"This pod holds {string.Join(", ", pod.Gpus)}, and no account pays for it. Run GPU work as a GpuDeployment, or keep this node's GPUs out of Tensormesh's hands.",
                cancellation).ConfigureAwait(false);
        }
    }

    private bool IsSilent(GpuNodeStatus status) => status is { HeartbeatTime: { } heard, HeartbeatSeconds: { } interval }
        && time.GetUtcNow() - heard > MissedHeartbeats * TimeSpan.FromSeconds(interval);

    [LoggerMessage(Level = LogLevel.Warning, Message = "{Namespace}/{Pod} holds {Gpus}, and nobody is charged for it")]
    private static partial void LogUnmetered(ILogger logger, string @namespace, string pod, string gpus);

    [LoggerMessage(Level = LogLevel.Warning, Message = "Pod {Pod} of deployment {Deployment} is charged to {Account}, and is not in the cluster")]
    private static partial void LogGhost(ILogger logger, Guid pod, Guid deployment, string account);

    [LoggerMessage(Level = LogLevel.Warning, Message = "Who holds GPUs is compared with who is charged later: {Reason}")]
    private static partial void LogPutOff(ILogger logger, string reason);
}
