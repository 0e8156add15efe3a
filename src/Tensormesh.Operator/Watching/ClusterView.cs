using System.Collections.Concurrent;
using k8s.Models;
using Tensormesh.Billing;
using Tensormesh.Operator.Reconciling;
using Tensormesh.Resources;

namespace Tensormesh.Operator.Watching;

/// <summary>The local copies of everything the operator looks at in the cluster, with the indexes that the loop needs.</summary>
internal sealed class ClusterView
{
    private readonly ConcurrentDictionary<string, ConcurrentDictionary<string, V1Pod>> podsByDeployment = new(StringComparer.Ordinal);
    private readonly ConcurrentDictionary<string, NodeOffer> offers = new(StringComparer.Ordinal);
    /// <summary>Null when an offer has changed since it was last asked for.</summary>
    private volatile GpuInventory? inventory;

    public ClusterView(
        Informer<GpuDeployment> gpuDeployments, Informer<BillingAccount> billingAccounts, Informer<PriceBook> priceBooks,
        Informer<V1Deployment> deployments, Informer<V1Pod> pods, Informer<V1Node> nodes,
        Informer<GpuNode> gpuNodes, Informer<V1Namespace> namespaces)
    {
        GpuDeployments = gpuDeployments;
        BillingAccounts = billingAccounts;
        PriceBooks = priceBooks;
        Deployments = deployments;
        Pods = pods;
        Nodes = nodes;
        GpuNodes = gpuNodes;
        Namespaces = namespaces;
        pods.Changed += IndexPod;
        nodes.Changed += (before, after) => LookAtOffer((after ?? before)!.Metadata.Name);
        gpuNodes.Changed += (before, after) => LookAtOffer((after ?? before)!.Metadata.Name);
    }

    /// <summary>A node of that name comes, goes, or offers other GPUs than before.</summary>
    public event Action<string>? OfferChanged;

    public Informer<GpuDeployment> GpuDeployments { get; }
    public Informer<BillingAccount> BillingAccounts { get; }
    public Informer<PriceBook> PriceBooks { get; }
    public Informer<V1Deployment> Deployments { get; }
    public Informer<V1Pod> Pods { get; }
    public Informer<V1Node> Nodes { get; }
    public Informer<GpuNode> GpuNodes { get; }
    public Informer<V1Namespace> Namespaces { get; }

    public IReadOnlyList<IInformer> Informers => [GpuDeployments, BillingAccounts, PriceBooks, Deployments, Pods, Nodes, GpuNodes, Namespaces];

    public GpuInventory Inventory => inventory ?? Count();

    /// <summary>Null for a node that offers no GPUs.</summary>
    public NodeOffer? OfferOf(string node) => offers.GetValueOrDefault(node);

    public bool HasNode(string? name) => !string.IsNullOrEmpty(name) && Nodes.Find(name) is not null;

    public IEnumerable<V1Pod> PodsOf(string? deploymentUid)
        => deploymentUid is not null && podsByDeployment.TryGetValue(deploymentUid, out var pods) ? pods.Values : [];

    public AccountId? AccountOf(string? @namespace) => @namespace is not null && Namespaces.Find(@namespace) is { } found ? AccountOf(found) : null;

    public static AccountId? AccountOf(V1Namespace @namespace)
        => @namespace.Metadata.Labels is { } labels && labels.TryGetValue(WellKnown.AccountLabel, out var account) && account.Length > 0 ? new AccountId(account) : null;

    /// <summary>True when the namespace is going away: nothing can be made in it any more.</summary>
    public bool IsEnding(string? @namespace) => @namespace is not null && Namespaces.Find(@namespace)?.Metadata.DeletionTimestamp is not null;

    /// <summary>Since when nothing was heard from the node's kubelet; null while it is heard, and for a node that is not there.</summary>
    public DateTimeOffset? SilentSince(string? node) => string.IsNullOrEmpty(node) ? null : SilentSince(Nodes.Find(node));

    /// <summary>The node controller turns Ready to Unknown when the kubelet's Lease is no longer renewed. False is the kubelet's own word: it is there.</summary>
    public static DateTimeOffset? SilentSince(V1Node? node)
        => node?.Status?.Conditions?.FirstOrDefault(condition => condition is { Type: "Ready", Status: "Unknown" })?.LastTransitionTime is { } since
            ? new DateTimeOffset(DateTime.SpecifyKind(since, DateTimeKind.Utc))
            : null;

    /// <summary>GPUs of running pods, for every product that a node offers.</summary>
    public IEnumerable<(string Product, int Gpus)> HeldGpus()
    {
        var held = Pods.All.Where(pod => pod.Status?.Phase == "Running").GroupBy(pod => Nodes.Find(pod.Spec.NodeName ?? "")?.GetLabelOrNull(WellKnown.GpuProductLabel))
            .Where(group => group.Key is not null)
            .ToDictionary(group => group.Key!, group => group.Sum(pod => PodGpus.Of(pod.Spec)), StringComparer.Ordinal);
        return Inventory.Models.Select(model => (model.Product.Name, held.GetValueOrDefault(model.Product.Name)));
    }

    /// <summary>GPUs of running pods that a GpuDeployment made.</summary>
    public IReadOnlyDictionary<(string Namespace, string Deployment, string Product), int> HeldGpusByDeployment()
    {
        var held = new Dictionary<(string, string, string), int>();
        foreach (var pod in Pods.All.Where(pod => pod.Status?.Phase == "Running"))
        {
            if (pod.GetLabel(WellKnown.DeploymentLabel) is not { } deployment) continue;
            if (Nodes.Find(pod.Spec.NodeName ?? "")?.GetLabelOrNull(WellKnown.GpuProductLabel) is not { } product) continue;
            var holder = (pod.Metadata.NamespaceProperty, deployment, product);
            held[holder] = held.GetValueOrDefault(holder) + PodGpus.Of(pod.Spec);
        }

        return held;
    }

    /// <summary>The key of the GpuDeployment that a pod or child Deployment belongs to.</summary>
    public static string? OwnerKey(IMetadata<V1ObjectMeta>? value)
        => value?.Metadata.Labels is { } labels && labels.TryGetValue(WellKnown.DeploymentLabel, out var name) ? ObjectKey.Of(value.Metadata.NamespaceProperty, name) : null;

    /// <summary>What the node's agent says of the GPUs that a pod holds; null when it says nothing of the pod.</summary>
    public HeldDevices? DevicesOf(V1Pod pod)
        => pod.Spec?.NodeName is { Length: > 0 } node && GpuNodes.Find(node)?.Status is { } status ? HeldDevices.Of(pod.Metadata.Uid, node, status) : null;

    /// <summary>The node with most free GPUs of a product, by the word of the agents; null when none has told.</summary>
    public (string Node, int Gpus)? MostFree(GpuProduct product)
    {
        var free = GpuNodes.All
            .Where(node => node.Status?.FreeGpus is not null && OfferOf(node.Metadata.Name)?.Product == product)
            .Select(node => (Node: node.Metadata.Name, Gpus: node.Status!.FreeGpus!.Value))
            .OrderByDescending(node => node.Gpus).ThenBy(node => node.Node, StringComparer.Ordinal)
            .ToList();
        return free.Count == 0 ? null : free[0];
    }

    private GpuInventory Count()
    {
        lock (offers)
        {
            return inventory ??= GpuInventory.From(offers.Select(pair => pair.Value));
        }
    }

    private void LookAtOffer(string node)
    {
        // Two watches tell of one node: whoever comes second sees what both brought.
        lock (offers)
        {
            var before = offers.GetValueOrDefault(node);
            var after = Nodes.Find(node) is { } found ? NodeOffer.From(found, GpuNodes.Find(node)) : null;
            if (before == after) return;
            if (after is null) offers.TryRemove(node, out _);
            else offers[node] = after;
            inventory = null;
        }

        OfferChanged?.Invoke(node);
    }

    private void IndexPod(V1Pod? before, V1Pod? after)
    {
        // A pod made again under its old name is another pod: the old one leaves the index by its own uid.
        if (before is not null && before.Metadata.Uid != after?.Metadata.Uid && Bucket(before) is { } old) old.TryRemove(before.Metadata.Uid, out _);
        if (after is not null && Bucket(after) is { } bucket) bucket[after.Metadata.Uid] = after;
    }

    private ConcurrentDictionary<string, V1Pod>? Bucket(V1Pod pod)
        => pod.Metadata.Labels is { } labels && labels.TryGetValue(WellKnown.DeploymentUidLabel, out var uid)
            ? podsByDeployment.GetOrAdd(uid, _ => new ConcurrentDictionary<string, V1Pod>(concurrencyLevel: 1, capacity: 1, StringComparer.Ordinal))
            : null;

    /// <summary>Drops what is remembered of a GpuDeployment that is gone.</summary>
    public void Forget(string deploymentUid)
    {
        if (podsByDeployment.TryGetValue(deploymentUid, out var pods) && pods.IsEmpty) podsByDeployment.TryRemove(deploymentUid, out _);
    }
}
