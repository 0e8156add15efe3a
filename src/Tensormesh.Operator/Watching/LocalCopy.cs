using System.Collections.Concurrent;
using System.Diagnostics.CodeAnalysis;
using k8s;
using k8s.Models;
using Tensormesh.Resources;

namespace Tensormesh.Operator.Watching;

/// <summary>
/// Leaves of an object what the operator looks at, before it is kept: a pod or a Deployment as the server tells of it is ten times what a decision reads,
/// and there are as many of them as there is work in the cluster. What is taken away here is not to be read anywhere.
/// </summary>
internal static class LocalCopy
{
    private const string LastApplied = "kubectl.kubernetes.io/last-applied-configuration";
    private const string Ours = WellKnown.Group + "/";
    /// <summary>More different texts than that are not worth remembering: they are forgotten, and begun with anew.</summary>
    private const int MostTexts = 4096;

    private static readonly ConcurrentDictionary<string, string> Texts = new(StringComparer.Ordinal);

    public static void Trim(IKubernetesObject<V1ObjectMeta> item)
    {
        // Managed fields are half of an object, and what kubectl remembers of its last apply is the whole of it once more.
        var metadata = item.Metadata;
        metadata.ManagedFields = null;
        metadata.Annotations?.Remove(LastApplied);
        metadata.SelfLink = null;
        metadata.NamespaceProperty = Shared(metadata.NamespaceProperty);
        if (metadata.Finalizers is { Count: > 0 } finalizers) metadata.Finalizers = [.. finalizers.Select(Shared)];
        (item.ApiVersion, item.Kind) = (Shared(item.ApiVersion), Shared(item.Kind));
        switch (item)
        {
            case GpuDeployment deployment:
                if (deployment.Spec?.Template is { } template) deployment.Spec.Template = PackedPodTemplate.Pack(template);
                if (deployment.Status is not { } told) break;
                (told.GpuProduct, told.HourlyRate) = (Shared(told.GpuProduct), Shared(told.HourlyRate));
                foreach (var condition in told.Conditions ?? []) Share(condition, told.Conditions!);
                break;
            case V1Deployment child:
                KeepOurs(metadata);
                metadata.OwnerReferences = metadata.OwnerReferences?.Select(owner => new V1OwnerReference { Uid = owner.Uid }).ToList();
                child.Spec = new V1DeploymentSpec
                {
                    Replicas = child.Spec.Replicas,
                    Template = new V1PodTemplateSpec { Spec = new V1PodSpec { Containers = Limits(child.Spec.Template.Spec.Containers) } },
                };
                child.Status = null;
                break;
            case V1Pod pod:
                KeepOurs(metadata);
                metadata.OwnerReferences = null;
                pod.Spec = new V1PodSpec
                {
                    NodeName = Shared(pod.Spec.NodeName),
                    Containers = Limits(pod.Spec.Containers),
                    Affinity = Product(pod.Spec.Affinity),
                    ReadinessGates = pod.Spec.ReadinessGates,
                };
                if (pod.Status is { } status)
                {
                    foreach (var condition in status.Conditions ?? []) (condition.Type, condition.Status) = (Shared(condition.Type), Shared(condition.Status));
                    pod.Status = new V1PodStatus { Phase = Shared(status.Phase), Conditions = status.Conditions, ContainerStatuses = States(status.ContainerStatuses) };
                }

                break;
            case V1Node node:
                node.Spec = null;
                node.Status = new V1NodeStatus
                {
                    Allocatable = Gpus(node.Status?.Allocatable),
                    // Since when nothing was heard of the node: its pods' ends are told from that.
                    Conditions = node.Status?.Conditions?.Where(condition => condition.Type == "Ready").ToList(),
                };
                node.Metadata.Annotations = null;
                break;
            case GpuNode gpus:
                metadata.OwnerReferences = null;
                foreach (var device in gpus.Status?.Devices ?? [])
                {
                    (device.Product, device.ComputeCapability, device.Health) = (Shared(device.Product), Shared(device.ComputeCapability), Shared(device.Health));
                    (device.Reason, device.PciBusId) = (Shared(device.Reason), null);
                }

                break;
            case V1Namespace team:
                team.Spec = null;
                team.Status = null;
                team.Metadata.Annotations = null;
                break;
        }
    }

    /// <summary>A refusal stands in four conditions in the same words; types, reasons and states are words of this program.</summary>
    private static void Share(V1Condition condition, IList<V1Condition> all)
    {
        condition.Type = Shared(condition.Type);
        condition.Status = Shared(condition.Status);
        condition.Reason = Shared(condition.Reason);
        condition.Message = all.First(other => other.Message == condition.Message).Message;
    }

    /// <summary>One string for all objects that say the same.</summary>
    [return: NotNullIfNotNull(nameof(text))]
    private static string? Shared(string? text)
    {
        if (text is null) return null;
        if (string.IsInterned(text) is { } known) return known;
        if (Texts.TryGetValue(text, out var first)) return first;
        if (Texts.Count >= MostTexts) Texts.Clear();
        return Texts.GetOrAdd(text, text);
    }

    /// <summary>Labels and annotations that others put on a pod or a child tell us nothing.</summary>
    private static void KeepOurs(V1ObjectMeta metadata)
    {
        metadata.Labels = Only(metadata.Labels);
        metadata.Annotations = Only(metadata.Annotations);

        static Dictionary<string, string>? Only(IDictionary<string, string>? all)
        {
            if (all is null) return null;
            var ours = all.Where(pair => pair.Key.StartsWith(Ours, StringComparison.Ordinal)).ToList();
            return ours.Count == 0 ? null : new Dictionary<string, string>(ours.Select(pair => KeyValuePair.Create(Shared(pair.Key), pair.Value)), StringComparer.Ordinal);
        }
    }

    private static List<V1Container> Limits(IList<V1Container> containers) =>
    [
        .. containers.Select(container => new V1Container
        {
            Name = Shared(container.Name),
            Resources = Gpus(container.Resources?.Limits) is { } limits ? new V1ResourceRequirements { Limits = limits } : null,
        }),
    ];

    private static Dictionary<string, ResourceQuantity>? Gpus(IDictionary<string, ResourceQuantity>? resources)
        => resources is not null && resources.TryGetValue(WellKnown.GpuResource, out var gpus) ? new(1) { [WellKnown.GpuResource] = gpus } : null;

    /// <summary>The product that the pod is pinned to, which stands in each alternative alike.</summary>
    private static V1Affinity? Product(V1Affinity? affinity)
    {
        var terms = affinity?.NodeAffinity?.RequiredDuringSchedulingIgnoredDuringExecution?.NodeSelectorTerms;
        var pinned = terms?.FirstOrDefault()?.MatchExpressions?.LastOrDefault(requirement => requirement.Key == WellKnown.GpuProductLabel);
        if (pinned is null) return null;
        pinned = new V1NodeSelectorRequirement { Key = WellKnown.GpuProductLabel, OperatorProperty = Shared(pinned.OperatorProperty), Values = pinned.Values?.Select(Shared).ToList() };
        var selector = new V1NodeSelector { NodeSelectorTerms = [new V1NodeSelectorTerm { MatchExpressions = [pinned] }] };
        return new V1Affinity { NodeAffinity = new V1NodeAffinity { RequiredDuringSchedulingIgnoredDuringExecution = selector } };
    }

    private static List<V1ContainerStatus>? States(IList<V1ContainerStatus>? statuses) => statuses is null
        ? null
        :
        [
            .. statuses.Select(status => new V1ContainerStatus { Name = Shared(status.Name), State = status.State, LastState = status.LastState, Ready = status.Ready }),
        ];
}
