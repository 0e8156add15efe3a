using System.Globalization;
using k8s.Models;
using Tensormesh.Billing;
using Tensormesh.Resources;

namespace Tensormesh.Operator.Reconciling;

/// <summary>GPUs of one product as the nodes' labels and allocatable state them.</summary>
/// <param name="LargestNode">Most GPUs that one node of this product offers.</param>
internal sealed record GpuModel(GpuProduct Product, long MemoryMiB, (int Major, int Minor) ComputeCapability, int LargestNode, int Total);

/// <summary>What the cluster's nodes offer, by product. Pure.</summary>
internal sealed record GpuInventory(IReadOnlyList<GpuModel> Models)
{
    public static GpuInventory From(IEnumerable<V1Node> nodes)
    {
        var models = nodes
            .Select(node => (Node: node, Product: node.GetLabelOrNull(WellKnown.GpuProductLabel), Gpus: Allocatable(node)))
            .Where(node => node.Product is not null && node.Gpus > 0)
            .GroupBy(node => node.Product!, StringComparer.Ordinal)
            .OrderBy(group => group.Key, StringComparer.Ordinal)
            .Select(group => new GpuModel(
                new GpuProduct(group.Key),
                group.Min(node => Number(node.Node, WellKnown.GpuMemoryLabel)),
                group.Min(node => ((int)Number(node.Node, WellKnown.GpuComputeMajorLabel), (int)Number(node.Node, WellKnown.GpuComputeMinorLabel))),
                group.Max(node => node.Gpus),
                group.Sum(node => node.Gpus)));
        return new GpuInventory([.. models]);
    }

    /// <summary>The products of which one node can satisfy the requirement, by name.</summary>
    public IEnumerable<GpuModel> Matching(GpuRequirement wanted)
    {
        var memory = Quantities.TryMemoryMiB(wanted.MinMemory, out var mebibytes) ? mebibytes : 0;
        var capability = Quantities.TryComputeCapability(wanted.MinComputeCapability, out var least) ? least : (0, 0);
        return Models.Where(model =>
            (string.IsNullOrEmpty(wanted.Product) || model.Product.Name == wanted.Product)
            && model.MemoryMiB >= memory
            && model.ComputeCapability.CompareTo(capability) >= 0
            && model.LargestNode >= wanted.Count);
    }

    /// <summary>
    /// The product that a deployment runs on: the one it already holds money for while that still fits, else the cheapest that
    /// has a price, else the first that has none (the gate then names it). Null when no node satisfies the requirement.
    /// </summary>
    public GpuProduct? Choose(GpuRequirement wanted, GpuProduct? held, IReadOnlyDictionary<GpuProduct, GpuPrice> prices)
    {
        var matching = Matching(wanted).ToList();
        if (held is { } product && (string.IsNullOrEmpty(wanted.Product) || product.Name == wanted.Product))
        {
            // A held product stays even while its nodes are away: what runs there is known to have fitted. It goes when the
            // nodes that are there show that it no longer satisfies an edited requirement.
            var away = Models.All(model => model.Product != product);
            if (away || matching.Any(model => model.Product == product)) return product;
        }

        var cheapest = matching.Where(model => prices.ContainsKey(model.Product)).MinBy(model => prices[model.Product].PerGpuHour);
        return (cheapest ?? matching.FirstOrDefault())?.Product;
    }

    /// <summary>For a message: <c>8 x NVIDIA-H100-80GB-HBM3, 4 x NVIDIA-L40S</c>.</summary>
    public string Describe() => Models.Count == 0
        ? "no GPUs"
        : string.Join(", ", Models.Select(model => $"{model.Total} x {model.Product} ({model.MemoryMiB} MiB, compute {model.ComputeCapability.Major}.{model.ComputeCapability.Minor}, at most {model.LargestNode} on one node)"));

    /// <summary>For a message: <c>2 GPUs on one node, product NVIDIA-H100, at least 40Gi each</c>.</summary>
    public static string Describe(GpuRequirement wanted)
    {
        var parts = new List<string> { wanted.Count == 1 ? "1 GPU on one node" : $"{wanted.Count} GPUs on one node" };
        if (!string.IsNullOrEmpty(wanted.Product)) parts.Add($"product {wanted.Product}");
        if (!string.IsNullOrEmpty(wanted.MinMemory)) parts.Add($"at least {wanted.MinMemory} each");
        if (!string.IsNullOrEmpty(wanted.MinComputeCapability)) parts.Add($"compute capability {wanted.MinComputeCapability} or newer");
        return string.Join(", ", parts);
    }

    private static int Allocatable(V1Node node)
        => node.Status?.Allocatable is { } allocatable && allocatable.TryGetValue(WellKnown.GpuResource, out var quantity) ? quantity.ToInt32() : 0;

    private static long Number(V1Node node, string label)
        => long.TryParse(node.GetLabelOrNull(label), NumberStyles.None, CultureInfo.InvariantCulture, out var value) ? value : 0;
}

internal static class NodeLabels
{
    public static string? GetLabelOrNull(this V1Node node, string label)
        => node.Metadata.Labels is { } labels && labels.TryGetValue(label, out var value) ? value : null;
}
