using System.Globalization;
using k8s.Models;
using Tensormesh.Billing;
using Tensormesh.Resources;

namespace Tensormesh.Operator.Reconciling;

/// <summary>
/// What one node offers. The kubelet says how many GPUs may be asked for, and the node's labels which; what its agent read from the driver says how many
/// of those are what the labels say, and work. A node without an agent is taken at its labels' word, and one whose agent is silent at the agent's last.
/// </summary>
/// <param name="Usable">GPUs that work on may be started on.</param>
/// <param name="Nominal">The same, if all of them worked: what fits now and then does not fit for another reason.</param>
/// <param name="Trouble">Why fewer are usable, for people; null when none is amiss.</param>
/// <param name="Avoid">The kubelet would hand out a GPU that is not known to work.</param>
internal sealed record NodeOffer(
    string Node, GpuProduct Product, long MemoryMiB, (int Major, int Minor) ComputeCapability, int Usable, int Nominal, string? Trouble, bool Avoid)
{
    /// <summary>How GPU Feature Discovery marks products that are parts of a GPU.</summary>
    private const string MigMark = "-MIG-";

    /// <summary>Null for a node that offers no GPUs.</summary>
    /// <param name="seen">What the node's agent told; null when it has none.</param>
    public static NodeOffer? From(V1Node node, GpuNode? seen)
    {
        if (node.GetLabelOrNull(WellKnown.GpuProductLabel) is not { Length: > 0 } product) return null;
        var allocatable = Allocatable(node);
        return seen?.Status is { } status && KnowsTheDevices(status)
            ? Verified(node, product, allocatable, status)
            : allocatable == 0
                ? null
                : new NodeOffer(node.Metadata.Name, new GpuProduct(product), Memory(node), Capability(node), allocatable, allocatable, null, Avoid: false);
    }

    /// <summary>An agent that finds no driver may only lack its libraries: that says nothing of the GPUs.</summary>
    private static bool KnowsTheDevices(GpuNodeStatus status) => status.Devices is { Count: > 0 }
        || status.Conditions?.Any(condition => condition is { Type: ConditionTypes.DevicesRead, Status: "False" }) == true;

    private static NodeOffer Verified(V1Node node, string product, int allocatable, GpuNodeStatus status)
    {
        var devices = status.Devices ?? [];
        var units = devices.SelectMany(device => Units(device, product)).ToList();
        var healthy = units.Where(unit => unit.Device.Health == GpuHealth.Healthy).ToList();
        var usable = Math.Min(allocatable, healthy.Count);
        return new NodeOffer(
            node.Metadata.Name,
            new GpuProduct(product),
            healthy.Count == 0 ? Memory(node) : healthy.Min(unit => unit.MemoryMiB ?? Memory(node)),
            healthy.Count == 0 ? Capability(node) : healthy.Min(unit => Capability(unit.Device) ?? Capability(node)),
            usable,
            Math.Max(allocatable, units.Count),
            Describe(node.Metadata.Name, product, devices, units.Count, healthy.Count, status),
            Avoid: allocatable > healthy.Count);
    }

    /// <summary>What of a device can be asked for under the product's name: the GPU, or where it is divided its parts.</summary>
    private static IEnumerable<(GpuDevice Device, long? MemoryMiB)> Units(GpuDevice device, string product)
    {
        if (device.MigInstances is { Count: > 0 } parts)
        {
            return product.Contains(MigMark, StringComparison.Ordinal) ? parts.Select(part => (device, part.MemoryMiB)) : [];
        }

        return device.Product == product ? [(device, device.MemoryMiB)] : [];
    }

    private static string? Describe(string node, string product, IList<GpuDevice> devices, int units, int healthy, GpuNodeStatus status)
    {
        if (devices.Count == 0)
        {
            var why = status.Conditions?.FirstOrDefault(condition => condition.Type == ConditionTypes.DevicesRead)?.Reason;
            return $"{node} has no GPU that its driver lists ({why})";
        }

        if (units == 0) return $"{node} is labelled {product} and has {status.Product}";
        if (healthy == units) return null;
        var reasons = devices.Where(device => device.Health != GpuHealth.Healthy)
            .GroupBy(device => device.Reason ?? device.Health, StringComparer.Ordinal)
            .OrderBy(group => group.Key, StringComparer.Ordinal)
            .Select(group => $"{group.Count()} {group.Key}");
        return $"{node} has {healthy} healthy of {units} ({string.Join(", ", reasons)})";
    }

    private static int Allocatable(V1Node node)
        => node.Status?.Allocatable is { } allocatable && allocatable.TryGetValue(WellKnown.GpuResource, out var quantity) ? quantity.ToInt32() : 0;

    private static long Memory(V1Node node) => Number(node, WellKnown.GpuMemoryLabel);

    private static (int, int) Capability(V1Node node) => ((int)Number(node, WellKnown.GpuComputeMajorLabel), (int)Number(node, WellKnown.GpuComputeMinorLabel));

    private static (int, int)? Capability(GpuDevice device) => Quantities.TryComputeCapability(device.ComputeCapability, out var capability) ? capability : null;

    private static long Number(V1Node node, string label)
        => long.TryParse(node.GetLabelOrNull(label), NumberStyles.None, CultureInfo.InvariantCulture, out var value) ? value : 0;
}

internal static class NodeLabels
{
    public static string? GetLabelOrNull(this V1Node node, string label)
        => node.Metadata.Labels is { } labels && labels.TryGetValue(label, out var value) ? value : null;
}
