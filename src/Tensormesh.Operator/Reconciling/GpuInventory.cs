using Tensormesh.Billing;
using Tensormesh.Resources;

namespace Tensormesh.Operator.Reconciling;

/// <summary>GPUs of one product, over all nodes.</summary>
/// <param name="LargestNode">Most GPUs that one node of this product offers for new work.</param>
/// <param name="Total">GPUs that are offered for new work.</param>
/// <param name="Nominal">Most GPUs of one node, if all of them worked.</param>
internal sealed record GpuModel(
    GpuProduct Product, long MemoryMiB, (int Major, int Minor) ComputeCapability, int LargestNode, int Total, int Nominal);

/// <summary>What the cluster's nodes offer, by product. Pure.</summary>
/// <param name="Troubles">Where less is offered than could be, and why; for people, in the order of the nodes' names.</param>
internal sealed record GpuInventory(IReadOnlyList<GpuModel> Models, IReadOnlyList<string> Troubles)
{
    /// <summary>More nodes in trouble than that are counted, not named.</summary>
    private const int NamedTroubles = 3;

    public static GpuInventory From(IEnumerable<NodeOffer> offers)
    {
        var all = offers.OrderBy(offer => offer.Node, StringComparer.Ordinal).ToList();
        var models = all
            .GroupBy(offer => offer.Product)
            .OrderBy(group => group.Key.Name, StringComparer.Ordinal)
            .Select(group => new GpuModel(
                group.Key,
                group.Min(offer => offer.MemoryMiB),
                group.Min(offer => offer.ComputeCapability),
                group.Max(offer => offer.Usable),
                group.Sum(offer => offer.Usable),
                group.Max(offer => offer.Nominal)));
        return new GpuInventory([.. models], [.. all.Select(offer => offer.Trouble).OfType<string>()]);
    }

    /// <summary>The products of which one node can satisfy the requirement, by name.</summary>
    public IEnumerable<GpuModel> Matching(GpuRequirement wanted) => Matching(wanted, model => model.LargestNode);

    private IEnumerable<GpuModel> Matching(GpuRequirement wanted, Func<GpuModel, int> gpus)
    {
        var memory = Quantities.TryMemoryMiB(wanted.MinMemory, out var mebibytes) ? mebibytes : 0;
        var capability = Quantities.TryComputeCapability(wanted.MinComputeCapability, out var least) ? least : (0, 0);
        return Models.Where(model =>
            (string.IsNullOrEmpty(wanted.Product) || model.Product.Name == wanted.Product)
            && model.MemoryMiB >= memory
            && model.ComputeCapability.CompareTo(capability) >= 0
            && gpus(model) >= wanted.Count);
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
            // A held product stays even while its nodes are away or its GPUs fail: what runs there is known to have fitted, and waits for them. It
            // goes when the nodes that are there show that it no longer satisfies an edited requirement.
            var away = Models.All(model => model.Product != product);
            if (away || Matching(wanted, model => model.Nominal).Any(model => model.Product == product)) return product;
        }

        var cheapest = matching.Where(model => prices.ContainsKey(model.Product)).MinBy(model => prices[model.Product].PerGpuHour);
        return (cheapest ?? matching.FirstOrDefault())?.Product;
    }

    /// <summary>For a message: <c>8 x NVIDIA-H100-80GB-HBM3, 4 x NVIDIA-L40S; gpu-a has 6 healthy of 8 (2 UncorrectedEcc)</c>.</summary>
    public string Describe()
    {
        var offered = Models.Where(model => model.Total > 0).Select(model =>
            $"{model.Total} x {model.Product} ({model.MemoryMiB} MiB, compute {model.ComputeCapability.Major}.{model.ComputeCapability.Minor}, at most {model.LargestNode} on one node)");
        var gpus = string.Join(", ", offered);
        return string.Join("; ", [gpus.Length == 0 ? "no GPUs" : gpus, .. Named(Troubles)]);
    }

    /// <summary>The first of them, and how many more there are.</summary>
    public static IEnumerable<string> Named(IReadOnlyList<string> troubles)
    {
        var left = troubles.Count - NamedTroubles;
        return left <= 0 ? troubles : [.. troubles.Take(NamedTroubles), left == 1 ? "1 more node has some that fail" : $"{left} more nodes have some that fail"];
    }

    /// <summary>For a message: <c>2 GPUs on one node, product NVIDIA-H100, at least 40Gi each</c>.</summary>
    public static string Describe(GpuRequirement wanted)
    {
        var parts = new List<string> { wanted.Count == 1 ? "1 GPU on one node" : $"{wanted.Count} GPUs on one node" };
        if (!string.IsNullOrEmpty(wanted.Product)) parts.Add($"product {wanted.Product}");
        if (!string.IsNullOrEmpty(wanted.MinMemory)) parts.Add($"at least {wanted.MinMemory} each");
        if (!string.IsNullOrEmpty(wanted.MinComputeCapability)) parts.Add($"compute capability {wanted.MinComputeCapability} or newer");
        return string.Join(", ", parts);
    }
}
