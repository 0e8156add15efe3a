using System.Net;
using k8s;
using k8s.Autorest;
using k8s.Models;
using Tensormesh.Billing;
using Tensormesh.Operator.Admission;
using Tensormesh.Operator.Reconciling;
using Tensormesh.Operator.Watching;
using Tensormesh.Resources;

namespace Tensormesh.Operator.Uninstalling;

/// <summary>What an uninstall did.</summary>
internal sealed record Farewell(int Deployments, int Pods, int Unrecorded);

/// <summary>
/// Leaves a cluster in which nothing waits for an operator: the webhook goes, the child Deployments go and their pods with them, charging ends now, and every
/// finalizer is let go. It reads the server, not the local copies, so that it works in any order: CRDs, namespace or webhook may be gone already. A ledger
/// that cannot be reached keeps nothing from being let go; the next operator then ends those runs where they are settled.
/// </summary>
internal sealed partial class Uninstaller(
    IKubernetes client, KubernetesStream stream, RunIntervals runs, Holds holds, LastTrace traces, StatusWriter writer, OwnRights rights, CreditPolicy policy, OperatorOptions options,
    TimeProvider time, ILogger<Uninstaller> logger)
{
    private const int AtOnce = 16;
    /// <summary>Of a process that was told to end: it is killed after 30 seconds.</summary>
    private static readonly TimeSpan Limit = TimeSpan.FromSeconds(20);

    /// <summary>At a stop: uninstalls if this is no restart. True when it did.</summary>
    public async Task<bool> RunIfDueAsync()
    {
        using var limit = new CancellationTokenSource(Limit, time);
        try
        {
            if (await WhyAsync(limit.Token).ConfigureAwait(false) is not { } why) return false;
            LogBegun(logger, why);
            var done = await RunAsync(limit.Token).ConfigureAwait(false);
            LogDone(logger, done.Deployments, done.Pods, done.Unrecorded);
            return true;
        }
        catch (Exception fault) when (fault is HttpOperationException or HttpRequestException or OperationCanceledException)
        {
            LogFailed(logger, fault.Message);
            return false;
        }
    }

    public async Task<Farewell> RunAsync(CancellationToken cancellation)
    {
        await IgnoreMissing(client.AdmissionregistrationV1.DeleteValidatingWebhookConfigurationAsync(WebhookRegistration.ConfigurationName, cancellationToken: cancellation)).ConfigureAwait(false);

        // First what would make new pods.
        var parallel = new ParallelOptions { MaxDegreeOfParallelism = AtOnce, CancellationToken = cancellation };
        await Parallel.ForEachAsync(await AllAsync<V1Deployment>(ResourcePath.Deployments, cancellation).ConfigureAwait(false), parallel, async (child, token) =>
            await IgnoreMissing(client.AppsV1.DeleteNamespacedDeploymentAsync(
                child.Metadata.Name, child.Metadata.NamespaceProperty, propagationPolicy: "Background", cancellationToken: token)).ConfigureAwait(false)).ConfigureAwait(false);

        var nodes = (await AllAsync<V1Node>(ResourcePath.Nodes, cancellation).ConfigureAwait(false)).ToDictionary(node => node.Metadata.Name, StringComparer.Ordinal);
        foreach (var marked in nodes.Values.Where(node => node.GetLabelOrNull(WellKnown.GpuUnhealthyLabel) is not null)) await UnmarkAsync(marked, cancellation).ConfigureAwait(false);
        var pods = await AllAsync<V1Pod>(ResourcePath.Pods, cancellation).ConfigureAwait(false);
        var unrecorded = 0;
        await Parallel.ForEachAsync(pods, parallel, async (pod, token) =>
        {
            if (!await RecordedAsync(() => EndAsync(pod, nodes, token)).ConfigureAwait(false)) Interlocked.Increment(ref unrecorded);
            await ReleaseAsync(pod, token).ConfigureAwait(false);
        }).ConfigureAwait(false);

        var deployments = await AllAsync<GpuDeployment>(ResourcePath.GpuDeployments, cancellation).ConfigureAwait(false);
        await Parallel.ForEachAsync(deployments, parallel, async (deployment, token) => await LetGoAsync(deployment, token).ConfigureAwait(false)).ConfigureAwait(false);

        // Runs of pods that are gone, and holds of deployments that are gone.
        await RecordedAsync(async () =>
        {
            var alive = pods.Select(pod => pod.Metadata.Uid).ToHashSet(StringComparer.Ordinal);
            foreach (var (deployment, owner) in await runs.ListOpenOwnersAsync(cancellation).ConfigureAwait(false))
            {
                foreach (var run in await runs.ListOpenAsync(deployment, cancellation).ConfigureAwait(false))
                {
                    if (!alive.Contains(run.Pod.ToString())) await traces.CloseAsync(owner!.Value.Namespace, run.Pod, cancellation).ConfigureAwait(false);
                }

                await holds.ReleaseAsync(deployment, cancellation).ConfigureAwait(false);
            }
        }).ConfigureAwait(false);
        // Nothing can be done from here on.
        await rights.LetGoAsync(cancellation).ConfigureAwait(false);
        return new Farewell(deployments.Count, pods.Count, unrecorded);
    }

    /// <summary>Why this stop is an uninstall: the namespace, the Deployment or the kinds of the operator are being deleted. Null when it is a restart.</summary>
    private async Task<string?> WhyAsync(CancellationToken cancellation)
    {
        if (await IsGoingAsync(client.CoreV1.ReadNamespaceAsync(options.Namespace, cancellationToken: cancellation)).ConfigureAwait(false)) return $"namespace {options.Namespace} is deleted";
        if (options.Deployment.Length > 0
            && await IsGoingAsync(client.AppsV1.ReadNamespacedDeploymentAsync(options.Deployment, options.Namespace, cancellationToken: cancellation)).ConfigureAwait(false))
        {
            return $"Deployment {options.Namespace}/{options.Deployment} is deleted";
        }

        // The definition itself: an API server that has just started answers 404 to a list of objects whose kind it has not read yet.
        return await IsGoingAsync(client.ApiextensionsV1.ReadCustomResourceDefinitionAsync(GpuDeployment.PluralName + "." + WellKnown.Group, cancellationToken: cancellation)).ConfigureAwait(false)
            ? "the kind GpuDeployment is deleted"
            : null;
    }

    private static async Task<bool> IsGoingAsync<T>(Task<T> read)
        where T : IKubernetesObject<V1ObjectMeta>
    {
        try
        {
            return (await read.ConfigureAwait(false)).Metadata.DeletionTimestamp is not null;
        }
        catch (HttpOperationException missing) when (missing.Response.StatusCode == HttpStatusCode.NotFound)
        {
            return true;
        }
    }

    private async Task EndAsync(V1Pod pod, Dictionary<string, V1Node> nodes, CancellationToken cancellation)
    {
        var (now, node) = (time.GetUtcNow(), nodes.GetValueOrDefault(pod.Spec.NodeName ?? ""));
        var run = PodRun.From(pod, node is not null, now, ClusterView.SilentSince(node));
        // What is still running is told to stop by us: as after a suspension, nobody pays for its draining.
        await runs.CloseAsync(run.Id, run.EndedAt ?? now, policy, cancellation).ConfigureAwait(false);
    }

    private async Task ReleaseAsync(V1Pod pod, CancellationToken cancellation)
    {
        if (pod.Metadata.Finalizers?.Contains(WellKnown.MeteringFinalizer) != true) return;
        var patch = FinalizerPatch(pod.Metadata);
        await IgnoreMissing(client.CoreV1.PatchNamespacedPodAsync(patch, pod.Metadata.Name, pod.Metadata.NamespaceProperty, cancellationToken: cancellation)).ConfigureAwait(false);
    }

    private async Task LetGoAsync(GpuDeployment deployment, CancellationToken cancellation)
    {
        if (deployment.Metadata.DeletionTimestamp is null) await TellAsync(deployment, cancellation).ConfigureAwait(false);
        if (deployment.Metadata.Finalizers?.Contains(WellKnown.MeteringFinalizer) != true) return;
        await IgnoreMissing(client.CustomObjects.PatchNamespacedCustomObjectAsync(
            FinalizerPatch(deployment.Metadata), WellKnown.Group, WellKnown.Version, deployment.Metadata.NamespaceProperty, GpuDeployment.PluralName, deployment.Metadata.Name,
            cancellationToken: cancellation)).ConfigureAwait(false);
    }

    private async Task UnmarkAsync(V1Node node, CancellationToken cancellation)
        => await IgnoreMissing(client.CoreV1.PatchNodeAsync(GpuNodeReconciler.Mark(avoid: false), node.Metadata.Name, cancellationToken: cancellation)).ConfigureAwait(false);

    /// <summary>A status that goes on to say Running would be the last lie of an operator that is gone.</summary>
    private async Task TellAsync(GpuDeployment deployment, CancellationToken cancellation)
    {
        const string Words = "The operator was uninstalled: nothing runs and nothing is charged. Once it is installed again, this starts by itself.";
        var was = deployment.Status;
        var status = new GpuDeploymentStatus
        {
            ObservedGeneration = deployment.Metadata.Generation,
            Selector = was?.Selector,
            GpuProduct = was?.GpuProduct,
            HourlyRate = was?.HourlyRate,
            CostToDate = was?.CostToDate,
            Conditions = ConditionList.Merge(was?.Conditions,
            [
                new ConditionReport(ConditionTypes.Ready, false, ConditionReasons.Uninstalled, Words),
                new ConditionReport(ConditionTypes.BillingAuthorized, null, ConditionReasons.Uninstalled, Words),
                new ConditionReport(ConditionTypes.Reconciling, false, ConditionReasons.Uninstalled, Words),
                new ConditionReport(ConditionTypes.Stalled, true, ConditionReasons.Uninstalled, Words),
            ], deployment.Metadata.Generation, time.GetUtcNow()),
        };
        await writer.WriteAsync(deployment, GpuDeployment.PluralName, was, status, cancellation).ConfigureAwait(false);
    }

    /// <summary>With the uid alone: whatever else changes meanwhile must not keep it from going. A list is replaced whole, so others' finalizers are carried over.</summary>
    private static V1Patch FinalizerPatch(V1ObjectMeta metadata) => new(
        KubernetesJson.Serialize(new { metadata = new { uid = metadata.Uid, finalizers = metadata.Finalizers.Where(finalizer => finalizer != WellKnown.MeteringFinalizer) } }),
        V1Patch.PatchType.MergePatch);

    /// <summary>None where the kind itself is gone.</summary>
    private async Task<IReadOnlyList<T>> AllAsync<T>(ResourcePath path, CancellationToken cancellation)
        where T : IKubernetesObject<V1ObjectMeta>
        => (await stream.ListAllAsync<T>(path, cancellation).ConfigureAwait(false))?.Items ?? [];

    private async Task<bool> RecordedAsync(Func<Task> record)
    {
        try
        {
            await record().ConfigureAwait(false);
            return true;
        }
        catch (Exception fault) when (LedgerAvailability.IsUnavailable(fault))
        {
            LogUnrecorded(logger, fault.Message);
            return false;
        }
    }

    private static async Task IgnoreMissing(Task call)
    {
        try
        {
            await call.ConfigureAwait(false);
        }
        catch (HttpOperationException missing) when (missing.Response.StatusCode is HttpStatusCode.NotFound or HttpStatusCode.Conflict)
        {
            // Gone already; or another object has its name by now, and is none of ours.
        }
    }

    [LoggerMessage(Level = LogLevel.Warning, Message = "This is no restart: {Why}. All work is ended and let go.")]
    private static partial void LogBegun(ILogger logger, string why);

    [LoggerMessage(Level = LogLevel.Warning, Message = "Uninstalled: {Deployments} GpuDeployments and {Pods} pods are let go, {Unrecorded} of them without a record of their end")]
    private static partial void LogDone(ILogger logger, int deployments, int pods, int unrecorded);

    [LoggerMessage(Level = LogLevel.Error, Message = "Not everything could be let go; run 'tensormesh-operator uninstall': {Reason}")]
    private static partial void LogFailed(ILogger logger, string reason);

    [LoggerMessage(Level = LogLevel.Warning, Message = "The ledger cannot be reached; the next operator ends what is left open: {Reason}")]
    private static partial void LogUnrecorded(ILogger logger, string reason);
}
