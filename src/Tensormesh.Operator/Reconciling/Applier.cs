using System.Net;
using k8s;
using k8s.Autorest;
using k8s.Models;
using Tensormesh.Billing;
using Tensormesh.Operator.Telemetry;
using Tensormesh.Operator.Watching;
using Tensormesh.Resources;

namespace Tensormesh.Operator.Reconciling;

/// <summary>Carries out changes, in order. Each is idempotent: a process that dies between two of them is followed by one that sees what is left to do.</summary>
internal sealed partial class Applier(
    IKubernetes client, LeaderLease lease, RunIntervals runs, Holds holds, Meter meter, PodDrift drift, OwnWrites own, LastTrace traces, CreditPolicy policy,
    OperatorMetrics metrics, TimeProvider time, ILogger<Applier> logger)
{
    /// <summary>The cause that the server gives for a refusal in a namespace that is being deleted.</summary>
    internal const string NamespaceTerminating = "NamespaceTerminating";
    private static readonly TimeSpan ForbiddenRetry = TimeSpan.FromSeconds(30);

    /// <summary>Money of the account was set aside: nobody else can do more for it, but what is shown of the account has changed.</summary>
    public event Action<AccountId>? Held;

    public async Task<Outcome> ApplyAsync(GpuDeployment deployment, IReadOnlyList<ClusterChange> changes, CancellationToken cancellation)
    {
        foreach (var change in changes)
        {
            lease.ThrowIfLapsed();
            if (await ApplyAsync(deployment, change, cancellation).ConfigureAwait(false) is var outcome and not Outcome.Whole) return outcome;
        }

        return Outcome.Whole;
    }

    private async Task<Outcome> ApplyAsync(GpuDeployment deployment, ClusterChange change, CancellationToken cancellation)
    {
        var (ns, name) = (deployment.Metadata.NamespaceProperty, deployment.Metadata.Name);
        var id = new DeploymentId(Guid.Parse(deployment.Metadata.Uid));
        switch (change)
        {
            case ClusterChange.AddFinalizer:
                await PatchFinalizersAsync(deployment, [.. deployment.Metadata.Finalizers ?? [], WellKnown.MeteringFinalizer], cancellation).ConfigureAwait(false);
                return Outcome.Whole;

            case ClusterChange.RemoveFinalizer:
                await PatchFinalizersAsync(deployment, [.. (deployment.Metadata.Finalizers ?? []).Where(finalizer => finalizer != WellKnown.MeteringFinalizer)], cancellation).ConfigureAwait(false);
                LogDone(logger, ns, name);
                return Outcome.Whole;

            case ClusterChange.RecordStart open:
                if (await runs.OpenAsync(open.Start, open.EndedAt, time.GetUtcNow(), cancellation).ConfigureAwait(false))
                {
                    LogRunStarted(logger, ns, open.Start.PodName, open.Start.Gpus, open.Start.Product, open.Start.StartedAt);
                }

                return Outcome.Whole;

            case ClusterChange.RecordEnd close:
                if (await runs.CloseAsync(close.Pod, close.EndedAt, policy, cancellation).ConfigureAwait(false)) LogRunEnded(logger, ns, name, close.Pod.Value, close.EndedAt);
                return Outcome.Whole;

            case ClusterChange.EndVanishedRun vanished:
                await CloseVanishedAsync(deployment, vanished.Run, cancellation).ConfigureAwait(false);
                return Outcome.Whole;

            case ClusterChange.ReleasePod pod:
                await ReleasePodAsync(ns, pod.Name, cancellation).ConfigureAwait(false);
                return Outcome.Whole;

            case ClusterChange.EvictPod pod:
                await IgnoreMissing(client.CoreV1.DeleteNamespacedPodAsync(pod.Name, ns, cancellationToken: cancellation)).ConfigureAwait(false);
                return Outcome.Whole;

            case ClusterChange.PlaceHold place:
                var verdict = await holds.PlaceAsync(place.Request, policy, time.GetUtcNow(), cancellation, quietly: true).ConfigureAwait(false);
                if (verdict is Verdict.Admit)
                {
                    if (place.Request.Account is { } payer) Held?.Invoke(payer);
                    return Outcome.Whole;
                }

                LogLostRace(logger, ns, name, verdict);
                return Outcome.LookAgain;

            case ClusterChange.ReleaseHold:
                await holds.ReleaseAsync(id, cancellation).ConfigureAwait(false);
                return Outcome.Whole;

            case ClusterChange.SuspendAccount suspend:
                var now = time.GetUtcNow();
                if (await meter.SuspendIfExhaustedAsync(suspend.Account, policy, now, cancellation).ConfigureAwait(false) is { } suspension)
                {
                    Tell(suspension, RefusalReason.InsufficientBalance.ToString(), now, suspend.Account.Value);
                }

                return Outcome.Whole;

            case ClusterChange.SuspendDeployment suspend:
                var decidedAt = time.GetUtcNow();
                Tell(await meter.SuspendAsync(id, suspend.At, suspend.Reason, policy, decidedAt, cancellation).ConfigureAwait(false), suspend.Reason, decidedAt, ns + "/" + name);
                return Outcome.Whole;

            case ClusterChange.ClaimName claim:
                return await IsFreeAsync(deployment, claim.Name, cancellation).ConfigureAwait(false) ? Outcome.Whole : Outcome.NameTaken;

            case ClusterChange.ApplyChild apply:
                try
                {
                    await ApplyChildAsync(ns, apply.Rendered, cancellation).ConfigureAwait(false);
                }
                catch (HttpOperationException refused) when (refused.Response.StatusCode is HttpStatusCode.UnprocessableEntity or HttpStatusCode.BadRequest
                    || IsForbidden(refused))
                {
                    // A template that only the server can judge, such as a container without an image; or a quota or a policy of the namespace, of whose
                    // end nobody tells us. The next round reports it and gives the money back.
                    DateTimeOffset? until = IsForbidden(refused) ? time.GetUtcNow() + ForbiddenRetry : null;
                    drift.Refused(deployment.Metadata.Uid, apply.Rendered, ServerMessage(refused), until);
                    LogChildRefused(logger, ns, name, refused.Response.Content);
                    return Outcome.LookAgain;
                }

                LogApplied(logger, ns, name, apply.Rendered.Spec.Replicas ?? 0);
                return Outcome.Whole;

            case ClusterChange.DeleteChild child:
                await IgnoreMissing(client.AppsV1.DeleteNamespacedDeploymentAsync(child.Name, ns, propagationPolicy: "Background", cancellationToken: cancellation)).ConfigureAwait(false);
                return Outcome.Whole;

            default:
                throw new InvalidOperationException($"unknown change {change}");
        }
    }

    /// <summary>True when no Deployment has the name, or ours does and the local copy has not seen it yet.</summary>
    private async Task<bool> IsFreeAsync(GpuDeployment deployment, string name, CancellationToken cancellation)
    {
        try
        {
            var child = await client.AppsV1.ReadNamespacedDeploymentAsync(name, deployment.Metadata.NamespaceProperty, cancellationToken: cancellation).ConfigureAwait(false);
            return child.Metadata.OwnerReferences?.Any(owner => owner.Uid == deployment.Metadata.Uid) == true;
        }
        catch (HttpOperationException missing) when (missing.Response.StatusCode == HttpStatusCode.NotFound)
        {
            return true;
        }
    }

    private async Task ApplyChildAsync(string ns, V1Deployment rendered, CancellationToken cancellation)
    {
        var result = await client.AppsV1.PatchNamespacedDeploymentAsync(
            new V1Patch(KubernetesJson.Serialize(rendered), V1Patch.PatchType.ApplyPatch),
            rendered.Metadata.Name, ns, fieldManager: WellKnown.FieldManager, force: true, cancellationToken: cancellation).ConfigureAwait(false);

        // Apply leaves what others added. A container that somebody slipped in could hold GPUs that no money was set aside for: the whole child is put back.
        if (Containers(result) != Containers(rendered))
        {
            rendered.Metadata.ResourceVersion = result.Metadata.ResourceVersion;
            result = await client.AppsV1.ReplaceNamespacedDeploymentAsync(
                rendered, rendered.Metadata.Name, ns, fieldManager: WellKnown.FieldManager, cancellationToken: cancellation).ConfigureAwait(false);
        }

        drift.Applied(result);
    }

    /// <summary>What a namespace that is being deleted refuses is not the child's fault, and the next look sees the deletion.</summary>
    private static bool IsForbidden(HttpOperationException refused)
        => refused.Response.StatusCode == HttpStatusCode.Forbidden && refused.Response.Content?.Contains(NamespaceTerminating, StringComparison.Ordinal) != true;

    private static string ServerMessage(HttpOperationException refused)
    {
        try
        {
            return KubernetesJson.Deserialize<V1Status>(refused.Response.Content).Message ?? refused.Response.Content;
        }
        catch (System.Text.Json.JsonException)
        {
            return refused.Response.Content;
        }
    }

    private static int Containers(V1Deployment deployment)
        => deployment.Spec.Template.Spec.Containers.Count + (deployment.Spec.Template.Spec.InitContainers?.Count ?? 0);

    private void Tell(Suspension suspension, string reason, DateTimeOffset now, string who)
    {
        if (suspension.Deployments.Count == 0) return;
        metrics.Suspensions.WithLabels(reason).Inc();
        metrics.SuspendLateness.Observe(Math.Max(0, (now - suspension.At).TotalSeconds));
        if (suspension.Uncollected > Money.Zero) metrics.Uncollected.Inc(suspension.Uncollected.Nanos / (double)Money.NanosPerUnit);
        LogSuspended(logger, who, suspension.At, reason, (now - suspension.At).TotalMilliseconds, suspension.Uncollected);
    }

    /// <summary>The local copy can lag behind the ledger: only the server's own answer ends a run whose pod is not in it.</summary>
    private async Task CloseVanishedAsync(GpuDeployment deployment, OpenRun run, CancellationToken cancellation)
    {
        var pods = await client.CoreV1.ListNamespacedPodAsync(
            deployment.Metadata.NamespaceProperty, labelSelector: $"{WellKnown.DeploymentUidLabel}={deployment.Metadata.Uid}", cancellationToken: cancellation).ConfigureAwait(false);
        if (pods.Items.Any(pod => pod.Metadata.Uid == run.Pod.ToString())) return;
        if (await traces.CloseAsync(deployment.Metadata.NamespaceProperty, run.Pod, cancellation).ConfigureAwait(false))
        {
            LogVanished(logger, deployment.Metadata.NamespaceProperty, deployment.Metadata.Name, run.Pod.Value);
        }
    }

    private async Task ReleasePodAsync(string ns, string name, CancellationToken cancellation)
    {
        V1Pod pod;
        try
        {
            pod = await client.CoreV1.ReadNamespacedPodAsync(name, ns, cancellationToken: cancellation).ConfigureAwait(false);
        }
        catch (HttpOperationException missing) when (missing.Response.StatusCode == HttpStatusCode.NotFound)
        {
            return;
        }

        var kept = (pod.Metadata.Finalizers ?? []).Where(finalizer => finalizer != WellKnown.MeteringFinalizer).ToList();
        if (kept.Count == (pod.Metadata.Finalizers?.Count ?? 0)) return;
        // With the version that was read: a finalizer that somebody else adds in between is not swept away.
        var patch = new { metadata = new { uid = pod.Metadata.Uid, resourceVersion = pod.Metadata.ResourceVersion, finalizers = kept } };
        await IgnoreMissing(client.CoreV1.PatchNamespacedPodAsync(
            new V1Patch(KubernetesJson.Serialize(patch), V1Patch.PatchType.MergePatch), name, ns, cancellationToken: cancellation)).ConfigureAwait(false);
    }

    private async Task PatchFinalizersAsync(GpuDeployment deployment, IReadOnlyList<string> finalizers, CancellationToken cancellation)
    {
        var patch = new { metadata = new { uid = deployment.Metadata.Uid, resourceVersion = deployment.Metadata.ResourceVersion, finalizers } };
        await IgnoreMissing(PatchAsync()).ConfigureAwait(false);

        async Task PatchAsync()
        {
            var result = await client.CustomObjects.PatchNamespacedCustomObjectAsync<ObjectIdentity>(
                new V1Patch(KubernetesJson.Serialize(patch), V1Patch.PatchType.MergePatch),
                WellKnown.Group, WellKnown.Version, deployment.Metadata.NamespaceProperty, GpuDeployment.PluralName, deployment.Metadata.Name,
                cancellationToken: cancellation).ConfigureAwait(false);
            own.Add(result.Metadata.Uid, result.Metadata.ResourceVersion);
        }
    }

    private static async Task IgnoreMissing(Task call)
    {
        try
        {
            await call.ConfigureAwait(false);
        }
        catch (HttpOperationException missing) when (missing.Response.StatusCode == HttpStatusCode.NotFound)
        {
        }
    }

    [LoggerMessage(Level = LogLevel.Information, Message = "{Namespace}/{Name}: child Deployment applied with {Replicas} replicas")]
    private static partial void LogApplied(ILogger logger, string @namespace, string name, int replicas);

    [LoggerMessage(Level = LogLevel.Information, Message = "{Namespace}/{Pod}: {Gpus} x {Product} held since {StartedAt:O}")]
    private static partial void LogRunStarted(ILogger logger, string @namespace, string pod, int gpus, GpuProduct product, DateTimeOffset startedAt);

    [LoggerMessage(Level = LogLevel.Information, Message = "{Namespace}/{Name}: pod {Pod} ended at {EndedAt:O}")]
    private static partial void LogRunEnded(ILogger logger, string @namespace, string name, Guid pod, DateTimeOffset endedAt);

    [LoggerMessage(Level = LogLevel.Warning, Message = "{Namespace}/{Name}: pod {Pod} is gone without a reported end; its run ends with its last trace")]
    private static partial void LogVanished(ILogger logger, string @namespace, string name, Guid pod);

    [LoggerMessage(Level = LogLevel.Information, Message = "{Namespace}/{Name}: the gate refused under the lock: {Verdict}")]
    private static partial void LogLostRace(ILogger logger, string @namespace, string name, Verdict verdict);

    [LoggerMessage(Level = LogLevel.Information, Message = "{Who}: suspended as of {At:O} ({Reason}), {Late} ms after that instant, {Uncollected} uncollected")]
    private static partial void LogSuspended(ILogger logger, string who, DateTimeOffset at, string reason, double late, Money uncollected);

    [LoggerMessage(Level = LogLevel.Warning, Message = "{Namespace}/{Name}: the API server refused the child Deployment: {Reason}")]
    private static partial void LogChildRefused(ILogger logger, string @namespace, string name, string reason);

    [LoggerMessage(Level = LogLevel.Information, Message = "{Namespace}/{Name}: all usage is recorded; let go")]
    private static partial void LogDone(ILogger logger, string @namespace, string name);
}
