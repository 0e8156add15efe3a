using k8s.Models;
using Tensormesh.Billing;
using Tensormesh.Operator.Reconciling;
using Tensormesh.Operator.Watching;
using Tensormesh.Resources;

namespace Tensormesh.Operator.Tests;

public sealed class LocalCopyTests
{
    private static readonly Guid Uid = Guid.Parse("aaaaaaaa-0000-0000-0000-000000000001");

    [Fact]
    public void What_is_kept_leads_to_the_same_decision()
    {
        var whole = Decide(trim: false);
        var kept = Decide(trim: true);
        Assert.NotEmpty(whole.Changes);
        Assert.Equal(whole.Changes, kept.Changes);
        Assert.Equal(whole.Report!.Conditions, kept.Report!.Conditions);
        Assert.Equal(whole.Report with { Conditions = [] }, kept.Report with { Conditions = [] });
    }

    [Fact]
    public void A_child_is_kept_with_what_tells_whether_it_is_still_ours()
    {
        var (child, applied) = A.Child(A.Deployment(), replicas: 2);
        var rendered = A.Child(A.Deployment(), replicas: 2).Child;
        LocalCopy.Trim(child);
        Assert.False(PodDrift.Differs(child, rendered, applied));
        Assert.Equal(2, PodGpus.Of(child.Spec.Template.Spec));
        child.Metadata.Generation = 2;
        Assert.True(PodDrift.Differs(child, rendered, applied));
    }

    [Fact]
    public void A_node_is_kept_with_when_it_fell_silent_and_a_pod_with_its_readiness_gates()
    {
        var silent = new V1NodeCondition { Type = "Ready", Status = "Unknown", LastTransitionTime = A.Noon.UtcDateTime };
        var node = new V1Node
        {
            Metadata = new V1ObjectMeta { Name = "gpu-a" },
            Spec = new V1NodeSpec(),
            Status = new V1NodeStatus { Conditions = [new V1NodeCondition { Type = "DiskPressure", Status = "Unknown" }, silent] },
        };
        LocalCopy.Trim(node);
        Assert.Equal(A.Noon, ClusterView.SilentSince(node));

        var pod = A.Pod(Uid);
        pod.Spec.ReadinessGates = [new V1PodReadinessGate { ConditionType = "example.com/gate" }];
        LocalCopy.Trim(pod);
        Assert.Single(pod.Spec.ReadinessGates);
    }

    [Fact]
    public void What_many_objects_say_is_kept_once_and_what_others_put_on_a_pod_not_at_all()
    {
        var (one, two) = (Labelled(), Labelled());
        LocalCopy.Trim(one);
        LocalCopy.Trim(two);

        Assert.Same(one.Metadata.NamespaceProperty, two.Metadata.NamespaceProperty);
        Assert.Equal(WellKnown.DeploymentUidLabel, Assert.Single(one.Metadata.Labels).Key);
        Assert.Equal("trainer", one.Metadata.Annotations[WellKnown.GpuContainerAnnotation]);
        Assert.Equal([WellKnown.MeteringFinalizer, "example.com/other"], one.Metadata.Finalizers);

        static V1Pod Labelled()
        {
            var pod = A.Pod(Uid);
            pod.Metadata.NamespaceProperty = new string("team-a".ToCharArray());
            pod.Metadata.Labels = new Dictionary<string, string> { ["app"] = "trainer", [WellKnown.DeploymentUidLabel] = "u" };
            pod.Metadata.Annotations = new Dictionary<string, string> { ["example.com/note"] = "n", [WellKnown.GpuContainerAnnotation] = "trainer" };
            pod.Metadata.Finalizers = [WellKnown.MeteringFinalizer, "example.com/other"];
            return pod;
        }
    }

    /// <summary>A deployment with a hold whose pod has just started, pinned to its product, on a child that asks for more than is held.</summary>
    private static Decision Decide(bool trim)
    {
        var deployment = A.Deployment(replicas: 1);
        var (child, applied) = A.Child(deployment, replicas: 1);
        var pod = A.Pod(Uid, started: A.Noon.AddSeconds(-10));
        pod.Spec.Affinity = child.Spec.Template.Spec.Affinity;
        pod.Status.Conditions.Add(new V1PodCondition { Type = "PodScheduled", Status = "True" });
        var node = new V1Node
        {
            Metadata = new V1ObjectMeta
            {
                Name = "gpu-a",
                Labels = new Dictionary<string, string> { ["nvidia.com/gpu.product"] = A.H100.Name, ["nvidia.com/gpu.memory"] = "81559" },
            },
            Spec = new V1NodeSpec(),
            Status = new V1NodeStatus { Allocatable = new Dictionary<string, ResourceQuantity> { ["nvidia.com/gpu"] = new("8"), ["cpu"] = new("64") } },
        };
        if (trim)
        {
            LocalCopy.Trim(deployment);
            Assert.Null(deployment.Spec.Template.Spec);
            deployment.Spec.Template = PackedPodTemplate.Unpack(deployment.Spec.Template);
            LocalCopy.Trim(child);
            LocalCopy.Trim(pod);
            LocalCopy.Trim(node);
        }

        var seen = A.Seen(
            deployment, A.Standing(hold: A.Hold(gpus: 2)), child, applied, [pod], cluster: GpuInventory.From([NodeOffer.From(node, null)!]));
        return Decider.Decide(seen, new CreditPolicy());
    }
}
