using System.Net;
using System.Text.Json.Serialization;
using k8s;
using k8s.Autorest;
using k8s.Models;
using Tensormesh.Operator.Watching;
using Tensormesh.Resources;

namespace Tensormesh.Operator.Reconciling;

/// <summary>What is read of the server's answer to a write: which object, and which version of it.</summary>
internal sealed class ObjectIdentity
{
    [JsonPropertyName("metadata")] public V1ObjectMeta Metadata { get; set; } = new();
}

/// <summary>Writes the status of our kinds by server-side apply, and only when it differs: a write that changes nothing would still wake every watcher.</summary>
internal sealed class StatusWriter(IKubernetes client, OwnWrites own)
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
            var result = await (ns is null
                ? client.CustomObjects.PatchClusterCustomObjectStatusAsync<ObjectIdentity>(
                    patch, WellKnown.Group, WellKnown.Version, plural, name, fieldManager: WellKnown.FieldManager, force: true, cancellationToken: cancellation)
                : client.CustomObjects.PatchNamespacedCustomObjectStatusAsync<ObjectIdentity>(
                    patch, WellKnown.Group, WellKnown.Version, ns, plural, name, fieldManager: WellKnown.FieldManager, force: true, cancellationToken: cancellation))
                .ConfigureAwait(false);
            own.Add(result.Metadata.Uid, result.Metadata.ResourceVersion);
        }
        catch (HttpOperationException gone) when (gone.Response.StatusCode == HttpStatusCode.NotFound)
        {
            // Deleted meanwhile: there is nobody left to tell.
        }
    }
}
