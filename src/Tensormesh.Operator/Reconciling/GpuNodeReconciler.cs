using System.Collections.Concurrent;
using System.Net;
using System.Text.Json;
using k8s;
using k8s.Autorest;
using k8s.Models;
using Tensormesh.Billing;
using Tensormesh.Operator.Telemetry;
using Tensormesh.Operator.Watching;
using Tensormesh.Resources;

namespace Tensormesh.Operator.Reconciling;

/// <summary>
/// What a node's agent saw, and what follows from it: the ledger learns which pods hold which GPUs; a pod on a GPU that failed is charged no longer than
/// that was seen to work, and replaced like any that is not charged; and nothing more is placed where GPUs may fail.
/// </summary>
internal sealed partial class GpuNodeReconciler(
    ClusterView cluster, RunIntervals runs, GpuFaults faults, IKubernetes client, LeaderLease lease, EventRecorder events, CreditPolicy policy, OperatorMetrics metrics,
    TimeProvider time, ILogger<GpuNodeReconciler> logger)
{
    /// <summary>How soon to try again with a pod that has its GPUs and has not started to run.</summary>
    private static readonly TimeSpan EvidenceRetry = TimeSpan.FromSeconds(2);

    /// <summary>Pods whose GPUs the ledger knows, by node.</summary>
    private readonly ConcurrentDictionary<string, HashSet<PodId>> recorded = new(StringComparer.Ordinal);

    /// <returns>When to look at the node again; null when it has no agent any more.</returns>
    public async Task<DateTimeOffset?> ReconcileAsync(string node, CancellationToken cancellation)
    {
        lease.ThrowIfLapsed();
        await MarkAsync(node, cancellation).ConfigureAwait(false);
        if (cluster.GpuNodes.Find(node)?.Status is not { } seen)
        {
            recorded.TryRemove(node, out _);
            return null;
        }

        var complete = await RecordHoldersAsync(node, seen, cancellation).ConfigureAwait(false);
        await EndChargesAsync(node, seen, cancellation).ConfigureAwait(false);
        return time.GetUtcNow() + (complete ? Decider.Resync : EvidenceRetry);
    }

    /// <summary>Labels the node while its kubelet would hand out a GPU that is not known to work.</summary>
    private async Task MarkAsync(string name, CancellationToken cancellation)
    {
        if (cluster.Nodes.Find(name) is not { } node) return;
        var avoid = cluster.OfferOf(name)?.Avoid == true;
        if (avoid == node.GetLabelOrNull(WellKnown.GpuUnhealthyLabel) is not null) return;
        try
        {
            await client.CoreV1.PatchNodeAsync(Mark(avoid), name, fieldManager: WellKnown.FieldManager, cancellationToken: cancellation).ConfigureAwait(false);
        }
        catch (HttpOperationException gone) when (gone.Response.StatusCode == HttpStatusCode.NotFound)
        {
            return;
        }

        if (avoid) LogAvoided(logger, name, cluster.OfferOf(name)?.Trouble);
        else LogUsedAgain(logger, name);
    }

    internal static V1Patch Mark(bool avoid)
    {
        var labels = new Dictionary<string, string?> { [WellKnown.GpuUnhealthyLabel] = avoid ? "true" : null };
        return new V1Patch(JsonSerializer.Serialize(new { metadata = new { labels } }), V1Patch.PatchType.MergePatch);
    }

    /// <returns>False when a pod holds GPUs and has no run interval yet.</returns>
    private async Task<bool> RecordHoldersAsync(string node, GpuNodeStatus seen, CancellationToken cancellation)
    {
        var known = recorded.GetValueOrDefault(node) ?? [];
        var holders = Holders(seen).ToList();
        List<HeldGpus> news = [.. holders.Where(held => !known.Contains(held.Pod)), .. Victims(seen, holders)];
        var learnt = news.Count == 0 ? [] : await runs.RecordGpusAsync(news, cancellation).ConfigureAwait(false);
        var now = holders.Select(held => held.Pod).Where(pod => known.Contains(pod) || learnt.Contains(pod)).ToHashSet();
        recorded[node] = now;
        return now.Count == holders.Count;
    }

    /// <summary>Pods of ours alone: of others the ledger knows nothing.</summary>
    private IEnumerable<HeldGpus> Holders(GpuNodeStatus seen) =>
        from allocation in seen.Allocations ?? []
        where allocation.PodUid is not null
            && cluster.Pods.Find(ObjectKey.Of(allocation.PodNamespace, allocation.PodName))?.Metadata.Uid == allocation.PodUid
        group allocation by allocation.PodUid into pod
        select new HeldGpus(new PodId(Guid.Parse(pod.Key)), HeldDevices.GpusOf(pod.Key, seen));

    /// <summary>Pods that held a GPU while it failed, and hold nothing any more. Of what else they held nobody knows: what failed is evidence enough.</summary>
    internal static IEnumerable<HeldGpus> Victims(GpuNodeStatus seen, IReadOnlyList<HeldGpus> holders)
    {
        var devices = (seen.Devices ?? []).Where(device => device.Health == GpuHealth.Unhealthy).Select(device => (device.Uuid, device.HeldBy));
        var outages = (seen.Outages ?? []).Where(outage => outage.Health == GpuHealth.Unhealthy).Select(outage => ((string?)outage.Uuid, outage.HeldBy));
        return from failed in devices.Concat(outages)
               where failed.Item1 is not null
               from pod in failed.Item2 ?? []
               where Guid.TryParse(pod, out _) && holders.All(held => held.Pod.ToString() != pod)
               group failed.Item1 by pod into victim
               select new HeldGpus(new PodId(Guid.Parse(victim.Key)), [.. victim.Distinct().Order(StringComparer.Ordinal)]);
    }

    private async Task EndChargesAsync(string node, GpuNodeStatus seen, CancellationToken cancellation)
    {
        var found = Faults(node, seen);
        if (found.Count == 0) return;
        foreach (var run in await faults.ApplyAsync(found, policy, time.GetUtcNow(), cancellation).ConfigureAwait(false))
        {
            metrics.GpuFaults.WithLabels(run.Fault.Reason).Inc();
            metrics.Credited.Inc(run.Credited.Nanos / (double)Money.NanosPerUnit);
            LogEnded(logger, run.Namespace, run.PodName, run.Fault.Gpu, node, run.Fault.Reason, run.ChargedUntil, run.Credited);
            if (cluster.GpuDeployments.Find(ObjectKey.Of(run.Namespace, run.DeploymentName)) is { } deployment && deployment.Metadata.Uid == run.Deployment.ToString())
            {
                await events.RecordAsync(deployment, warning: true, ConditionReasons.GpuUnhealthy, Words(run), cancellation).ConfigureAwait(false);
            }
        }
    }

    /// <summary>Every time in which a GPU is or was known to fail. What nobody could see is none: there is no evidence against it.</summary>
    internal static IReadOnlyList<GpuFault> Faults(string node, GpuNodeStatus seen)
    {
        // A node's clock may have been set back in between.
        static DateTimeOffset? Before(DateTimeOffset? healthy, DateTimeOffset sick) => healthy > sick ? sick : healthy;
        var devices = seen.Devices ?? [];
        var present = devices.Where(device => device is { Health: GpuHealth.Unhealthy, Uuid: not null, Since: not null }).Select(device => new GpuFault
        {
            Gpus = HeldDevices.Uuids(device),
            Gpu = device.Uuid!,
            Node = node,
            Reason = device.Reason ?? device.Health,
            Message = device.Message ?? "",
            LastHealthyAt = Before(device.LastHealthyTime, device.Since!.Value),
            SeenAt = device.Since!.Value,
        });
        var past = (seen.Outages ?? []).Where(outage => outage is { Health: GpuHealth.Unhealthy, From: not null }).Select(outage => new GpuFault
        {
            Gpus = devices.FirstOrDefault(device => device.Uuid == outage.Uuid) is { } device ? HeldDevices.Uuids(device) : [outage.Uuid],
            Gpu = outage.Uuid,
            Node = node,
            Reason = outage.Reason ?? outage.Health,
            Message = outage.Message ?? "",
            LastHealthyAt = Before(outage.LastHealthyTime, outage.From!.Value),
            SeenAt = outage.From!.Value,
            RecoveredAt = outage.Until,
        });
        return [.. present, .. past];
    }

    private static string Words(FaultedRun run)
    {
        var credit = run.Credited > Money.Zero ? $" {run.Credited} charged past it was credited." : "";
        return $"GPU {run.Fault.Gpu} of node {run.Fault.Node} failed: {run.Fault.Reason}: {run.Fault.Message}. Pod {run.PodName} is charged until "
            + $"{run.ChargedUntil.UtcDateTime:yyyy-MM-dd HH:mm:ss.fff} UTC, when the GPU was last seen healthy, and is replaced.{credit}";
    }

    [LoggerMessage(Level = LogLevel.Warning, Message = "Node {Node} is avoided: {Trouble}")]
    private static partial void LogAvoided(ILogger logger, string node, string? trouble);

    [LoggerMessage(Level = LogLevel.Information, Message = "Node {Node} is used again")]
    private static partial void LogUsedAgain(ILogger logger, string node);

    [LoggerMessage(Level = LogLevel.Warning, Message = "{Namespace}/{Pod}: GPU {Gpu} of {Node} failed ({Reason}); charged until {Until:O}, {Credited} credited")]
    private static partial void LogEnded(ILogger logger, string @namespace, string pod, string gpu, string node, string reason, DateTimeOffset until, Money credited);
}
