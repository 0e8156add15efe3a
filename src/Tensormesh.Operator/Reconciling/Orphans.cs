using k8s.Models;
using Tensormesh.Billing;
using Tensormesh.Operator.Watching;
using Tensormesh.Resources;

namespace Tensormesh.Operator.Reconciling;

/// <summary>
/// What a GpuDeployment left behind that went without its finalizer: taken off by hand, or by an uninstall. Its pods would wait for ever to be recorded, its
/// runs would be charged for ever and its money would stay aside. The cluster's truth is compared with the ledger's, and the rest is finished as for any
/// deployment that is deleted.
/// </summary>
internal sealed partial class Orphans(
    ClusterView cluster, KubernetesStream stream, RunIntervals runs, Holds holds, Observer observer, Applier applier, CreditPolicy policy, TimeProvider time, ILogger<Orphans> logger)
{
    private static readonly TimeSpan Period = TimeSpan.FromSeconds(15);
    private static readonly TimeSpan Retry = TimeSpan.FromSeconds(1);

    private readonly TaskCompletionSource swept = new(TaskCreationOptions.RunContinuationsAsynchronously);

    /// <summary>Completes after the first whole sweep: before that, settlement would charge what has long ended.</summary>
    public Task Swept => swept.Task;

    public async Task RunAsync(CancellationToken cancellation)
    {
        while (!cancellation.IsCancellationRequested)
        {
            try
            {
                await SweepAsync(cancellation).ConfigureAwait(false);
                swept.TrySetResult();
            }
            catch (Exception fault) when (fault is not OperationCanceledException && !OperatorEpoch.IsOver(fault)) // The loop's own catch: whatever broke, it is looked for again.
            {
                LogPutOff(logger, fault.Message);
            }

            await Task.Delay(swept.Task.IsCompleted ? Period : Retry, time, cancellation).ConfigureAwait(false);
        }
    }

    private async Task SweepAsync(CancellationToken cancellation)
    {
        var alive = cluster.GpuDeployments.All.Select(deployment => deployment.Metadata.Uid).ToHashSet(StringComparer.Ordinal);
        var left = await LeftAsync(alive, cancellation).ConfigureAwait(false);
        if (left.Count == 0) return;

        // The local copy may be behind: only what the server itself does not know is an orphan. Without its kind every object is gone as well, and one
        // that cannot be read is there all the same.
        var there = await stream.ListAllAsync<GpuDeployment>(ResourcePath.GpuDeployments, cancellation).ConfigureAwait(false);
        foreach (var deployment in there?.Items ?? []) left.Remove(deployment.Metadata.Uid);
        foreach (var deployment in there?.Unreadable ?? []) left.Remove(deployment.Uid);
        foreach (var (uid, owner) in left)
        {
            if (owner is null) await holds.ReleaseAsync(new DeploymentId(Guid.Parse(uid)), cancellation).ConfigureAwait(false);
            else await FinishAsync(uid, owner.Value.Namespace, owner.Value.Name, cancellation).ConfigureAwait(false);
        }
    }

    /// <summary>By the deployment's uid; null where nothing but its hold is left, which needs no name.</summary>
    private async Task<Dictionary<string, (string Namespace, string Name)?>> LeftAsync(HashSet<string> alive, CancellationToken cancellation)
    {
        var left = new Dictionary<string, (string, string)?>(StringComparer.Ordinal);
        foreach (var (deployment, owner) in await runs.ListOpenOwnersAsync(cancellation).ConfigureAwait(false))
        {
            if (!alive.Contains(deployment.ToString())) left[deployment.ToString()] = owner;
        }

        foreach (var pod in cluster.Pods.All.Where(pod => pod.Metadata.Finalizers?.Contains(WellKnown.MeteringFinalizer) == true))
        {
            if (pod.Metadata.Labels.TryGetValue(WellKnown.DeploymentUidLabel, out var uid) && Guid.TryParse(uid, out _) && !alive.Contains(uid)
                && pod.Metadata.Labels.TryGetValue(WellKnown.DeploymentLabel, out var name))
            {
                left[uid] = (pod.Metadata.NamespaceProperty, name);
            }
        }

        return left;
    }

    private async Task FinishAsync(string uid, string @namespace, string name, CancellationToken cancellation)
    {
        LogFound(logger, @namespace, name, uid);
        var ghost = new GpuDeployment
        {
            Metadata = new V1ObjectMeta
            {
                Name = name,
                NamespaceProperty = @namespace,
                Uid = uid,
                DeletionTimestamp = time.GetUtcNow().UtcDateTime,
                Finalizers = [WellKnown.MeteringFinalizer],
            },
        };
        var seen = await observer.ObserveAsync(ghost, cancellation).ConfigureAwait(false);
        // There is no object any more to let go; an object of the same name is another one.
        await applier.ApplyAsync(ghost, [.. Decider.Decide(seen, policy).Changes.Where(change => change is not ClusterChange.RemoveFinalizer)], cancellation).ConfigureAwait(false);
    }

    [LoggerMessage(Level = LogLevel.Warning, Message = "{Namespace}/{Name} ({Uid}) is gone, and something of it is left: it is finished")]
    private static partial void LogFound(ILogger logger, string @namespace, string name, string uid);

    [LoggerMessage(Level = LogLevel.Warning, Message = "What deleted deployments left behind is looked for later: {Reason}")]
    private static partial void LogPutOff(ILogger logger, string reason);
}
