using System.Globalization;
using System.Net;
using k8s;
using k8s.Autorest;
using k8s.Models;
using Tensormesh.Resources;

namespace Tensormesh.Agent.Reporting;

/// <summary>Labels the node as GPU Feature Discovery does, only where nothing else does: what another wrote is never changed.</summary>
internal sealed partial class NodeLabels(IKubernetes client, AgentOptions options, TimeProvider time, ILogger<NodeLabels> logger)
{
    /// <summary>Whoever labelled the node may have been taken away.</summary>
    private static readonly TimeSpan LookAgain = TimeSpan.FromMinutes(10);

    private IReadOnlyDictionary<string, string>? applied;
    private long lookedAt;

    public async Task ApplyAsync(GpuNodeStatus status, CancellationToken cancellation)
    {
        if (!options.LabelNode || Wanted(status) is not { } wanted) return;
        if (applied is not null && Same(applied, wanted) && time.GetElapsedTime(lookedAt) < LookAgain) return;
        var node = await client.CoreV1.ReadNodeAsync(options.NodeName, cancellationToken: cancellation).ConfigureAwait(false);
        if (IsLabelledByAnother(node)) LogLeft(logger, options.NodeName);
        else await WriteAsync(wanted, cancellation).ConfigureAwait(false);
        (applied, lookedAt) = (wanted, time.GetTimestamp());
    }

    private async Task WriteAsync(IReadOnlyDictionary<string, string> wanted, CancellationToken cancellation)
    {
        var patch = new { apiVersion = "v1", kind = "Node", metadata = new { name = options.NodeName, labels = wanted } };
        try
        {
            // Without force: what another manager wrote meanwhile is a conflict, and stays.
            await client.CoreV1.PatchNodeAsync(
                new V1Patch(KubernetesJson.Serialize(patch), V1Patch.PatchType.ApplyPatch), options.NodeName,
                fieldManager: WellKnown.AgentFieldManager, force: false, cancellationToken: cancellation).ConfigureAwait(false);
            LogLabelled(logger, options.NodeName, wanted[WellKnown.GpuProductLabel]);
        }
        catch (HttpOperationException taken) when (taken.Response.StatusCode == HttpStatusCode.Conflict)
        {
            LogLeft(logger, options.NodeName);
        }
        catch (HttpOperationException refused) when (refused.Response.StatusCode == HttpStatusCode.Forbidden)
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
    internal static bool IsLabelledByAnother(V1Node node)
    {
        string[] ours = [WellKnown.GpuProductLabel, WellKnown.GpuMemoryLabel, WellKnown.GpuCountLabel, WellKnown.GpuComputeMajorLabel, WellKnown.GpuComputeMinorLabel];
        var written = (node.Metadata.ManagedFields ?? [])
            .Where(entry => entry is { Manager: WellKnown.AgentFieldManager, Operation: "Apply" })
            .Select(entry => KubernetesJson.Serialize(entry.FieldsV1))
            .ToArray();
        return ours.Any(label => node.GetLabel(label) is not null && !written.Any(fields => fields.Contains($"\"f:{label}\"", StringComparison.Ordinal)));
    }

    private static bool Same(IReadOnlyDictionary<string, string> one, IReadOnlyDictionary<string, string> other) =>
        one.Count == other.Count && one.All(label => other.TryGetValue(label.Key, out var value) && value == label.Value);

    [LoggerMessage(Level = LogLevel.Information, Message = "Labelled node {Node} as {Product}")]
    private static partial void LogLabelled(ILogger logger, string node, string product);

    [LoggerMessage(Level = LogLevel.Debug, Message = "Node {Node} is labelled by something else, and left to it")]
    private static partial void LogLeft(ILogger logger, string node);

    [LoggerMessage(Level = LogLevel.Warning,
        Message = "Node {Node} has no labels of its GPUs, and this agent may not write them: run GPU Feature Discovery, or apply manifests/agent-labels.yaml")]
    private static partial void LogForbidden(ILogger logger, string node);
}
