using System.Net;
using k8s;
using k8s.Autorest;
using k8s.Models;
using Tensormesh.Resources;

namespace Tensormesh.Operator.Reconciling;

/// <summary>Writes the status of our kinds by server-side apply, and only when it differs: a write that changes nothing would still wake every watcher.</summary>
internal sealed class StatusWriter(IKubernetes client)
{
    public async Task WriteAsync(IKubernetesObject<V1ObjectMeta> about, string plural, object? before, object after, CancellationToken cancellation)
    {
        if (before is not null && KubernetesJson.Serialize(before) == KubernetesJson.Serialize(after)) return;

        // Only what identifies the object, and its status: applying an empty spec would claim its fields.
        var (ns, name) = (about.Metadata.NamespaceProperty, about.Metadata.Name);
        var metadata = ns is null ? (object)new { name } : new { name, @namespace = ns };
        var patch = new V1Patch(KubernetesJson.Serialize(new { apiVersion = about.ApiVersion, kind = about.Kind, metadata, status = after }), V1Patch.PatchType.ApplyPatch);
        try
        {
            await (ns is null
                ? client.CustomObjects.PatchClusterCustomObjectStatusAsync(
                    patch, WellKnown.Group, WellKnown.Version, plural, name, fieldManager: WellKnown.FieldManager, force: true, cancellationToken: cancellation)
                : client.CustomObjects.PatchNamespacedCustomObjectStatusAsync(
                    patch, WellKnown.Group, WellKnown.Version, ns, plural, name, fieldManager: WellKnown.FieldManager, force: true, cancellationToken: cancellation))
                .ConfigureAwait(false);
        }
        catch (HttpOperationException gone) when (gone.Response.StatusCode == HttpStatusCode.NotFound)
        {
            // Deleted meanwhile: there is nobody left to tell.
        }
    }
}
