using System.Globalization;
using System.Net;
using Tensormesh.Agent.Cluster;
using Tensormesh.Resources;

namespace Tensormesh.Agent.Reporting;

/// <summary>Labels the node as GPU Feature Discovery does, only where nothing else does: what another wrote is never changed.</summary>
internal sealed partial class NodeLabels(ApiServer server, AgentOptions options, TimeProvider time, ILogger<NodeLabels> logger)
{
    /// <summary>Whoever labelled the node may have been taken away.</summary>
    private static readonly TimeSpan LookAgain = TimeSpan.FromMinutes(10);

    private IReadOnlyDictionary<string, string>? applied;
    private long lookedAt;

    private string Path => $"api/v1/nodes/{options.NodeName}";

    public async Task ApplyAsync(GpuNodeStatus status, CancellationToken cancellation)
    {
        if (!options.LabelNode || Wanted(status) is not { } wanted) return;
        if (applied is not null && Same(applied, wanted) && time.GetElapsedTime(lookedAt) < LookAgain) return;
        var node = await server.ReadAsync(Path, Shapes.Default.NodeObject, cancellation).ConfigureAwait(false);
        if (IsLabelledByAnother(node)) LogLeft(logger, options.NodeName);
        else await WriteAsync(wanted, cancellation).ConfigureAwait(false);
        (applied, lookedAt) = (wanted, time.GetTimestamp());
    }

    private async Task WriteAsync(IReadOnlyDictionary<string, string> wanted, CancellationToken cancellation)
    {
        var patch = new NodeObject("v1", "Node", new ObjectMeta { Name = options.NodeName, Labels = wanted });
        try
        {
            // Without force: what another manager wrote meanwhile is a conflict, and stays.
            await server.ApplyAsync(Path, patch, Shapes.Default.NodeObject, force: false, cancellation).ConfigureAwait(false);
            LogLabelled(logger, options.NodeName, wanted[WellKnown.GpuProductLabel]);
        }
        catch (ApiServerRefusal taken) when (taken.Status == HttpStatusCode.Conflict)
        {
            LogLeft(logger, options.NodeName);
        }
        catch (ApiServerRefusal refused) when (refused.Status == HttpStatusCode.Forbidden)
        {
            LogForbidden(logger, options.NodeName);
        }
    }

    /// <summary>Of the first GPU, as GPU Feature Discovery labels nodes of several products; null when no GPU is known.</summary>
    internal static IReadOnlyDictionary<string, string>? Wanted(GpuNodeStatus status)
    {
        var known = (status.Devices ?? []).Where(device => device is { Product: not null, MemoryMiB: not null, ComputeCapability: not null }).ToArray();
        if (known is not [var first, ..]) return null;
        var capability = first.ComputeCapability!.Split('.');
        return new Dictionary<string, string>(StringComparer.Ordinal)
        {
            [WellKnown.GpuProductLabel] = first.Product!,
            [WellKnown.GpuMemoryLabel] = first.MemoryMiB!.Value.ToString(CultureInfo.InvariantCulture),
            [WellKnown.GpuCountLabel] = known.Length.ToString(CultureInfo.InvariantCulture),
            [WellKnown.GpuComputeMajorLabel] = capability[0],
            [WellKnown.GpuComputeMinorLabel] = capability[1],
        };
    }

    /// <summary>Whether one of the labels stands there that this agent did not write.</summary>
    internal static bool IsLabelledByAnother(NodeObject node)
    {
        string[] ours = [WellKnown.GpuProductLabel, WellKnown.GpuMemoryLabel, WellKnown.GpuCountLabel, WellKnown.GpuComputeMajorLabel, WellKnown.GpuComputeMinorLabel];
        var written = (node.Metadata.ManagedFields ?? [])
            .Where(entry => entry is { Manager: WellKnown.AgentFieldManager, Operation: "Apply" })
            .Select(entry => entry.FieldsV1.ToString())
            .ToArray();
        return ours.Any(label => node.Metadata.Labels?.ContainsKey(label) == true && !written.Any(fields => fields.Contains($"\"f:{label}\"", StringComparison.Ordinal)));
    }

    private static bool Same(IReadOnlyDictionary<string, string> one, IReadOnlyDictionary<string, string> other) =>
        one.Count == other.Count && one.All(label => other.TryGetValue(label.Key, out var value) && value == label.Value);

    [LoggerMessage(Level = LogLevel.Information, Message = "Labelled node {Node} as {Product}")]
    private static partial void LogLabelled(ILogger logger, string node, string product);

    [LoggerMessage(Level = LogLevel.Debug, Message = "Node {Node} is labelled by something else, and left to it")]
    private static partial void LogLeft(ILogger logger, string node);

    [LoggerMessage(Level = LogLevel.Warning,
        Message = "Node {Node} has no labels of its GPUs, and this agent may not write them: run GPU Feature Discovery, or apply manifests/components/agent-labels")]
    private static partial void LogForbidden(ILogger logger, string node);
}
