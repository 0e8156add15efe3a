using System.Net;
using k8s;
using k8s.Autorest;
using k8s.Models;
using Tensormesh.Resources;

namespace Tensormesh.Agent.Reporting;

/// <summary>The GpuNode of this agent's own node, and no other.</summary>
internal sealed class GpuNodes(IKubernetes client, AgentOptions options)
{
    /// <summary>What the object says; null when there is none.</summary>
    public async Task<GpuNodeStatus?> ReadAsync(CancellationToken cancellation)
    {
        try
        {
            var node = await client.CustomObjects.GetClusterCustomObjectAsync<GpuNode>(
                WellKnown.Group, WellKnown.Version, GpuNode.PluralName, options.NodeName, cancellation).ConfigureAwait(false);
            return node.Status;
        }
        catch (HttpOperationException none) when (none.Response.StatusCode == HttpStatusCode.NotFound)
        {
            return null;
        }
    }

    /// <summary>Applies the status, and makes the object where there is none.</summary>
    public async Task TellAsync(GpuNodeStatus status, CancellationToken cancellation)
    {
        try
        {
            await ApplyStatusAsync(status, cancellation).ConfigureAwait(false);
        }
        catch (HttpOperationException none) when (none.Response.StatusCode == HttpStatusCode.NotFound)
        {
            await ApplyObjectAsync(cancellation).ConfigureAwait(false);
            await ApplyStatusAsync(status, cancellation).ConfigureAwait(false);
        }
    }

    private Task<GpuNode> ApplyStatusAsync(GpuNodeStatus status, CancellationToken cancellation) =>
        client.CustomObjects.PatchClusterCustomObjectStatusAsync<GpuNode>(
            Patch(new { apiVersion = WellKnown.ApiVersion, kind = GpuNode.KubeKind, metadata = new { name = options.NodeName }, status }),
            WellKnown.Group, WellKnown.Version, GpuNode.PluralName, options.NodeName,
            fieldManager: WellKnown.AgentFieldManager, force: true, cancellationToken: cancellation);

    /// <summary>Owned by the Node, so that it goes when the Node does.</summary>
    private async Task ApplyObjectAsync(CancellationToken cancellation)
    {
        var node = await client.CoreV1.ReadNodeAsync(options.NodeName, cancellationToken: cancellation).ConfigureAwait(false);
        var owner = new V1OwnerReference { ApiVersion = "v1", Kind = "Node", Name = node.Name(), Uid = node.Uid() };
        await client.CustomObjects.PatchClusterCustomObjectAsync<GpuNode>(
            Patch(new
            {
                apiVersion = WellKnown.ApiVersion,
                kind = GpuNode.KubeKind,
                metadata = new { name = options.NodeName, ownerReferences = new[] { owner } },
            }),
            WellKnown.Group, WellKnown.Version, GpuNode.PluralName, options.NodeName,
            fieldManager: WellKnown.AgentFieldManager, force: true, cancellationToken: cancellation).ConfigureAwait(false);
    }

    private static V1Patch Patch(object content) => new(KubernetesJson.Serialize(content), V1Patch.PatchType.ApplyPatch);
}
