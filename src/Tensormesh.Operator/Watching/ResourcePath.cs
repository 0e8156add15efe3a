using k8s;
using k8s.Models;
using Tensormesh.Resources;

namespace Tensormesh.Operator.Watching;

/// <summary>Where one kind is listed and watched, over all namespaces: the path of its collection, and a label selector.</summary>
internal sealed record ResourcePath(string Path, string? LabelSelector = null)
{
    private const string Custom = "apis/" + WellKnown.ApiVersion + "/";

    public static readonly ResourcePath GpuDeployments = new(Custom + GpuDeployment.PluralName);
    public static readonly ResourcePath BillingAccounts = new(Custom + BillingAccount.PluralName);
    public static readonly ResourcePath PriceBooks = new(Custom + PriceBook.PluralName);
    public static readonly ResourcePath GpuNodes = new(Custom + GpuNode.PluralName);
    public static readonly ResourcePath Namespaces = new("api/v1/namespaces");
    public static readonly ResourcePath Nodes = new("api/v1/nodes");

    // Only what belongs to a GpuDeployment: a cluster of 10,000 other pods costs nothing here.
    public static readonly ResourcePath Pods = new("api/v1/pods", WellKnown.DeploymentUidLabel);
    public static readonly ResourcePath Deployments = new("apis/apps/v1/deployments", WellKnown.DeploymentUidLabel);

    public string Query(params (string Name, string Value)[] parameters)
    {
        var all = LabelSelector is null ? parameters : [.. parameters, ("labelSelector", LabelSelector)];
        return Path + "?" + string.Join('&', all.Select(parameter => $"{parameter.Name}={Uri.EscapeDataString(parameter.Value)}"));
    }
}

/// <summary>The key of an object in an informer: <c>namespace/name</c>, or the name alone for cluster-scoped kinds.</summary>
internal static class ObjectKey
{
    public static string Of(IMetadata<V1ObjectMeta> value) => Of(value.Metadata.NamespaceProperty, value.Metadata.Name);

    public static string Of(string? @namespace, string name) => @namespace is null ? name : @namespace + "/" + name;

    public static (string Namespace, string Name) Split(string key)
    {
        var slash = key.IndexOf('/', StringComparison.Ordinal);
        return (key[..slash], key[(slash + 1)..]);
    }
}
