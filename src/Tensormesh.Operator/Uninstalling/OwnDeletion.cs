using System.Net;
using k8s;
using k8s.Autorest;
using k8s.Models;

namespace Tensormesh.Operator.Uninstalling;

/// <summary>
/// Whether the operator itself is being deleted, while this process was not told to end yet. Of several replicas one leads and uninstalls; what the others would
/// put back after it (the webhook's registration, the finalizers on the rights) nobody would take away any more.
/// </summary>
internal sealed class OwnDeletion(IKubernetes client, OperatorOptions options)
{
    /// <summary>False as well when the API server cannot say.</summary>
    public async Task<bool> HasBegunAsync(CancellationToken cancellation)
        => await IsGoingAsync(client.CoreV1.ReadNamespaceAsync(options.Namespace, cancellationToken: cancellation), missing: true).ConfigureAwait(false)
           || (options.Deployment.Length > 0 && await IsGoingAsync(
               client.AppsV1.ReadNamespacedDeploymentAsync(options.Deployment, options.Namespace, cancellationToken: cancellation), missing: false).ConfigureAwait(false));

    /// <param name="missing">What one that is not there means. A Deployment may be there later: an operator that runs outside of it does not wait for it.</param>
    private static async Task<bool> IsGoingAsync<T>(Task<T> read, bool missing)
        where T : IKubernetesObject<V1ObjectMeta>
    {
        try
        {
            return (await read.ConfigureAwait(false)).Metadata.DeletionTimestamp is not null;
        }
        catch (HttpOperationException absent) when (absent.Response.StatusCode == HttpStatusCode.NotFound)
        {
            return missing;
        }
        catch (Exception fault) when (fault is HttpOperationException or HttpRequestException)
        {
            return false;
        }
    }
}
