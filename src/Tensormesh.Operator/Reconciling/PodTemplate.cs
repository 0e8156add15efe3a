using System.Security.Cryptography;
using System.Text;
using k8s;
using k8s.Models;
using Tensormesh.Billing;
using Tensormesh.Resources;

namespace Tensormesh.Operator.Reconciling;

/// <summary>Renders the one child Deployment of a GpuDeployment. Pure: the same input gives the same bytes.</summary>
internal static class PodTemplate
{
    public static V1Deployment Render(GpuDeployment owner, GpuProduct product, int replicas)
    {
        var name = owner.Metadata.Name;
        var labels = new Dictionary<string, string>
        {
            [WellKnown.NameLabel] = name,
            [WellKnown.ManagedByLabel] = WellKnown.FieldManager,
            [WellKnown.DeploymentLabel] = name,
            [WellKnown.DeploymentUidLabel] = owner.Metadata.Uid,
        };
        var child = new V1Deployment
        {
            ApiVersion = "apps/v1",
            Kind = "Deployment",
            Metadata = new V1ObjectMeta
            {
                Name = name,
                NamespaceProperty = owner.Metadata.NamespaceProperty,
                Labels = labels,
                OwnerReferences =
                [
                    new V1OwnerReference
                    {
                        ApiVersion = WellKnown.ApiVersion,
                        Kind = GpuDeployment.KubeKind,
                        Name = name,
                        Uid = owner.Metadata.Uid,
                        Controller = true,
                        BlockOwnerDeletion = true,
                    },
                ],
            },
            Spec = new V1DeploymentSpec
            {
                Replicas = replicas,
                Selector = new V1LabelSelector { MatchLabels = new Dictionary<string, string> { [WellKnown.DeploymentUidLabel] = owner.Metadata.Uid } },
                // No surge: an update never holds more GPUs than were paid for.
                Strategy = new V1DeploymentStrategy { Type = "RollingUpdate", RollingUpdate = new V1RollingUpdateDeployment { MaxSurge = 0, MaxUnavailable = 1 } },
                RevisionHistoryLimit = 2,
                Template = Pods(owner, product, labels),
            },
        };
        child.Metadata.Annotations = new Dictionary<string, string> { [WellKnown.RenderedHashAnnotation] = Hash(child) };
        return child;
    }

    /// <summary>The name of the container that gets the GPUs.</summary>
    public static string GpuContainer(GpuDeployment owner)
        => string.IsNullOrEmpty(owner.Spec.Gpu.Container) ? owner.Spec.Template.Spec.Containers[0].Name : owner.Spec.Gpu.Container;

    private static V1PodTemplateSpec Pods(GpuDeployment owner, GpuProduct product, Dictionary<string, string> labels)
    {
        // A copy through JSON: the template belongs to the informer's object.
        var template = KubernetesJson.Deserialize<V1PodTemplateSpec>(KubernetesJson.Serialize(owner.Spec.Template));
        var container = GpuContainer(owner);
        template.Metadata = new V1ObjectMeta
        {
            Labels = Merge(template.Metadata?.Labels, labels),
            Annotations = Merge(template.Metadata?.Annotations, new Dictionary<string, string> { [WellKnown.GpuContainerAnnotation] = container }),
            Finalizers = [WellKnown.MeteringFinalizer],
        };

        var gpu = template.Spec.Containers.First(candidate => candidate.Name == container);
        gpu.Resources ??= new V1ResourceRequirements();
        gpu.Resources.Limits = new Dictionary<string, ResourceQuantity>(gpu.Resources.Limits ?? new Dictionary<string, ResourceQuantity>())
        {
            [WellKnown.GpuResource] = new ResourceQuantity(owner.Spec.Gpu.Count.ToString(System.Globalization.CultureInfo.InvariantCulture)),
        };

        RequireNode(template.Spec, product);
        var tolerations = new List<V1Toleration>(template.Spec.Tolerations ?? []);
        if (!tolerations.Any(toleration => toleration.Key == WellKnown.GpuResource))
        {
            // GPU nodes are commonly tainted with the resource's name to keep other work away.
            tolerations.Add(new V1Toleration { Key = WellKnown.GpuResource, OperatorProperty = "Exists", Effect = "NoSchedule" });
        }

        template.Spec.Tolerations = tolerations;
        return template;
    }

    /// <summary>
    /// Pins the pods to the product whose price was agreed, and keeps them from nodes with GPUs that may not work. Terms of a node selector are alternatives,
    /// so the requirements go into each of the customer's own.
    /// </summary>
    private static void RequireNode(V1PodSpec spec, GpuProduct product)
    {
        V1NodeSelectorRequirement[] requirements =
        [
            new() { Key = WellKnown.GpuProductLabel, OperatorProperty = "In", Values = [product.Name] },
            new() { Key = WellKnown.GpuUnhealthyLabel, OperatorProperty = "DoesNotExist" },
        ];
        spec.Affinity ??= new V1Affinity();
        spec.Affinity.NodeAffinity ??= new V1NodeAffinity();
        var terms = spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution?.NodeSelectorTerms;
        if (terms is null || terms.Count == 0) terms = [new V1NodeSelectorTerm()];
        foreach (var term in terms)
        {
            term.MatchExpressions = [.. term.MatchExpressions ?? [], .. requirements];
        }

        spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution = new V1NodeSelector { NodeSelectorTerms = terms };
    }

    private static Dictionary<string, string> Merge(IDictionary<string, string>? theirs, IDictionary<string, string> ours)
    {
        var merged = theirs is null ? [] : new Dictionary<string, string>(theirs);
        foreach (var (key, value) in ours) merged[key] = value;
        return merged;
    }

    private static string Hash(V1Deployment child)
        => Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(KubernetesJson.Serialize(child))))[..16];
}
