using System.Net;
using Tensormesh.Agent.Cluster;
using Tensormesh.Resources;

namespace Tensormesh.Agent.Reporting;

/// <summary>The GpuNode of this agent's own node, and no other.</summary>
internal sealed class GpuNodes(ApiServer server, AgentOptions options)
{
    private string Path => $"apis/{WellKnown.ApiVersion}/{GpuNode.PluralName}/{options.NodeName}";

    /// <summary>What the object says; null when there is none.</summary>
    public async Task<GpuNodeStatus?> ReadAsync(CancellationToken cancellation)
    {
        try
        {
            return (await server.ReadAsync(Path, Shapes.Default.GpuNodeObject, cancellation).ConfigureAwait(false)).Status;
        }
        catch (ApiServerRefusal none) when (none.Status == HttpStatusCode.NotFound)
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
        catch (ApiServerRefusal none) when (none.Status == HttpStatusCode.NotFound)
        {
            await ApplyObjectAsync(cancellation).ConfigureAwait(false);
            await ApplyStatusAsync(status, cancellation).ConfigureAwait(false);
        }
    }

    private Task ApplyStatusAsync(GpuNodeStatus status, CancellationToken cancellation) => server.ApplyAsync(
        $"{Path}/status", GpuNodeObject.Of(new ObjectMeta { Name = options.NodeName }, status), Shapes.Default.GpuNodeObject, force: true, cancellation);

    /// <summary>Owned by the Node, so that it goes when the Node does.</summary>
    private async Task ApplyObjectAsync(CancellationToken cancellation)
    {
        var node = await server.ReadAsync($"api/v1/nodes/{options.NodeName}", Shapes.Default.NodeObject, cancellation).ConfigureAwait(false);
        var metadata = new ObjectMeta
        {
            Name = options.NodeName,
            OwnerReferences = [new OwnerReference("v1", "Node", node.Metadata.Name, node.Metadata.Uid!)],
        };
        await server.ApplyAsync(Path, GpuNodeObject.Of(metadata, null), Shapes.Default.GpuNodeObject, force: true, cancellation).ConfigureAwait(false);
    }
}
