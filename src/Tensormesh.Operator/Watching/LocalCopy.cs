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

    public static void Trim(IKubernetesObject<V1ObjectMeta> item)
    {
        // Managed fields are half of an object, and what kubectl remembers of its last apply is the whole of it once more.
        item.Metadata.ManagedFields = null;
        item.Metadata.Annotations?.Remove(LastApplied);
        switch (item)
        {
            case GpuDeployment deployment:
                if (deployment.Spec?.Template is { } template) deployment.Spec.Template = PackedPodTemplate.Pack(template);
                foreach (var condition in deployment.Status?.Conditions ?? []) Share(condition, deployment.Status!.Conditions!);
                break;
            case V1Deployment child:
                child.Spec = new V1DeploymentSpec
                {
                    Replicas = child.Spec.Replicas,
                    Template = new V1PodTemplateSpec { Spec = new V1PodSpec { Containers = Limits(child.Spec.Template.Spec.Containers) } },
                };
                child.Status = null;
                break;
            case V1Pod pod:
                pod.Spec = new V1PodSpec
                {
                    NodeName = pod.Spec.NodeName,
                    Containers = Limits(pod.Spec.Containers),
                    Affinity = Nodes(pod.Spec.Affinity),
                    ReadinessGates = pod.Spec.ReadinessGates,
                };
                if (pod.Status is { } status)
                {
                    pod.Status = new V1PodStatus { Phase = status.Phase, Conditions = status.Conditions, ContainerStatuses = States(status.ContainerStatuses) };
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
        condition.Type = Known(condition.Type);
        condition.Status = Known(condition.Status);
        condition.Reason = Known(condition.Reason);
        condition.Message = all.First(other => other.Message == condition.Message).Message;
    }

    private static string Known(string text) => string.IsInterned(text) ?? text;

    private static List<V1Container> Limits(IList<V1Container> containers) =>
    [
        .. containers.Select(container => new V1Container
        {
            Name = container.Name,
            Resources = Gpus(container.Resources?.Limits) is { } limits ? new V1ResourceRequirements { Limits = limits } : null,
        }),
    ];

    private static Dictionary<string, ResourceQuantity>? Gpus(IDictionary<string, ResourceQuantity>? resources)
        => resources is not null && resources.TryGetValue(WellKnown.GpuResource, out var gpus) ? new(1) { [WellKnown.GpuResource] = gpus } : null;

    private static V1Affinity? Nodes(V1Affinity? affinity) => affinity?.NodeAffinity?.RequiredDuringSchedulingIgnoredDuringExecution is { } required
        ? new V1Affinity { NodeAffinity = new V1NodeAffinity { RequiredDuringSchedulingIgnoredDuringExecution = required } }
        : null;

    private static List<V1ContainerStatus>? States(IList<V1ContainerStatus>? statuses) => statuses is null
        ? null
        :
        [
            .. statuses.Select(status => new V1ContainerStatus { Name = status.Name, State = status.State, LastState = status.LastState, Ready = status.Ready }),
        ];
}
