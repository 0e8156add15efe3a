using System.Net;
using k8s;
using k8s.Autorest;
using k8s.Models;
using Tensormesh.Resources;

namespace Tensormesh.Operator.Uninstalling;

/// <summary>
/// Keeps what the operator needs to let everything go: <c>kubectl delete -k</c> deletes its service account and its rights in the same second as the kinds, whose objects
/// only it can let go of. A finalizer on each holds them, still in force, until an uninstall is done. It is put there by an operator that works, so that an
/// installation that never did can be deleted without one.
/// </summary>
internal sealed partial class OwnRights(IKubernetes client, OperatorOptions options, ILogger<OwnRights> logger)
{
    /// <summary>Strategic merges: others' finalizers stay as they are.</summary>
    private static readonly V1Patch Keep = Patch(new { metadata = new { finalizers = new[] { WellKnown.RightsFinalizer } } });
    private static readonly V1Patch LetGo = Patch(new { metadata = new Dictionary<string, object> { ["$deleteFromPrimitiveList/finalizers"] = new[] { WellKnown.RightsFinalizer } } });

    /// <summary>When the work begins.</summary>
    public Task KeepAsync(CancellationToken cancellation) => PatchAllAsync(Keep, cancellation);

    /// <summary>As the last thing of an uninstall. All at once: each of them takes away the right to let go of the others.</summary>
    public Task LetGoAsync(CancellationToken cancellation) => PatchAllAsync(LetGo, cancellation);

    private async Task PatchAllAsync(V1Patch patch, CancellationToken cancellation)
    {
        if (options.Rights.Length == 0) return;
        await Task.WhenAll(
            TryAsync(client.CoreV1.PatchNamespacedServiceAccountAsync(patch, options.Rights, options.Namespace, cancellationToken: cancellation)),
            TryAsync(client.RbacAuthorizationV1.PatchClusterRoleAsync(patch, options.Rights, cancellationToken: cancellation)),
            TryAsync(client.RbacAuthorizationV1.PatchClusterRoleBindingAsync(patch, options.Rights, cancellationToken: cancellation))).ConfigureAwait(false);
    }

    private async Task TryAsync<T>(Task<T> patched)
    {
        try
        {
            await patched.ConfigureAwait(false);
        }
        catch (HttpOperationException gone) when (gone.Response.StatusCode == HttpStatusCode.NotFound)
        {
        }
        catch (Exception fault) when (fault is HttpOperationException or HttpRequestException)
        {
            LogRefused(logger, options.Rights, fault is HttpOperationException refused ? refused.Response.Content : fault.Message);
        }
    }

    private static V1Patch Patch(object content) => new(KubernetesJson.Serialize(content), V1Patch.PatchType.StrategicMergePatch);

    [LoggerMessage(Level = LogLevel.Warning, Message = "The finalizer on the rights '{Name}' could not be changed: {Reason}")]
    private static partial void LogRefused(ILogger logger, string name, string reason);
}
