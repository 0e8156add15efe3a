using k8s;
using k8s.Models;
using Tensormesh.Operator.Admission;
using Tensormesh.Operator.Reconciling;
using Tensormesh.Operator.Watching;
using Tensormesh.Resources;

namespace Tensormesh.Operator.Tests;

public sealed class RenderingTests
{
    [Fact]
    public void The_gpu_container_gets_the_gpus_and_the_others_none()
    {
        var owner = A.Deployment(gpus: 4);
        owner.Spec.Template.Spec.Containers.Insert(0, new V1Container { Name = "sidecar", Image = "s" });
        owner.Spec.Gpu.Container = "main";
        var child = PodTemplate.Render(owner, A.H100, 3);

        var containers = child.Spec.Template.Spec.Containers;
        Assert.Null(containers[0].Resources);
        Assert.Equal("4", containers[1].Resources.Limits[WellKnown.GpuResource].ToString());
        Assert.Equal("main", child.Spec.Template.Metadata.Annotations[WellKnown.GpuContainerAnnotation]);
    }

    [Fact]
    public void No_surge_so_that_an_update_never_holds_more_than_was_paid_for()
    {
        var child = PodTemplate.Render(A.Deployment(), A.H100, 3);
        Assert.Equal("0", child.Spec.Strategy.RollingUpdate.MaxSurge.Value);
        Assert.Contains(WellKnown.MeteringFinalizer, child.Spec.Template.Metadata.Finalizers);
        Assert.Equal(A.Trainer.ToString(), child.Metadata.OwnerReferences.Single().Uid);
    }

    [Fact]
    public void Every_alternative_of_the_customers_own_affinity_is_pinned_to_the_product_and_kept_from_gpus_that_fail()
    {
        var owner = A.Deployment();
        owner.Spec.Template.Spec.Affinity = new V1Affinity
        {
            NodeAffinity = new V1NodeAffinity
            {
                RequiredDuringSchedulingIgnoredDuringExecution = new V1NodeSelector
                {
                    NodeSelectorTerms =
                    [
                        new V1NodeSelectorTerm { MatchExpressions = [new V1NodeSelectorRequirement { Key = "zone", OperatorProperty = "In", Values = ["a"] }] },
                        new V1NodeSelectorTerm { MatchExpressions = [new V1NodeSelectorRequirement { Key = "zone", OperatorProperty = "In", Values = ["b"] }] },
                    ],
                },
            },
        };
        var terms = PodTemplate.Render(owner, A.H100, 1).Spec.Template.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms;
        Assert.All(terms, term =>
        {
            Assert.Equal(3, term.MatchExpressions.Count);
            Assert.Equal([A.H100.Name], term.MatchExpressions[1].Values);
            Assert.Equal((WellKnown.GpuUnhealthyLabel, "DoesNotExist"), (term.MatchExpressions[2].Key, term.MatchExpressions[2].OperatorProperty));
        });
        Assert.Single(owner.Spec.Template.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms[0].MatchExpressions);
    }

    [Fact]
    public void The_same_input_renders_the_same_bytes_and_another_input_another_hash()
    {
        string Hash(int replicas) => PodTemplate.Render(A.Deployment(), A.H100, replicas).Metadata.Annotations[WellKnown.RenderedHashAnnotation];
        Assert.Equal(Hash(2), Hash(2));
        Assert.NotEqual(Hash(2), Hash(3));
    }

    [Fact]
    public void Conditions_keep_their_time_until_their_status_changes()
    {
        var first = ConditionList.Merge(null, [new("Ready", false, "Starting", "0 of 2")], 1, A.Noon);
        var second = ConditionList.Merge(first, [new("Ready", false, "Starting", "1 of 2")], 1, A.Noon.AddSeconds(5));
        var third = ConditionList.Merge(second, [new("Ready", true, "Running", "2 of 2")], 1, A.Noon.AddSeconds(9));

        Assert.Equal(A.Noon.UtcDateTime, second[0].LastTransitionTime);
        Assert.Equal("1 of 2", second[0].Message);
        Assert.Equal(A.Noon.AddSeconds(9).UtcDateTime, third[0].LastTransitionTime);
    }

    [Fact]
    public void A_condition_that_a_report_does_not_mention_is_kept()
    {
        var before = ConditionList.Merge(null, [new("Suspended", false, "NotSuspended", ""), new("Ready", true, "Running", "")], 1, A.Noon);
        var after = ConditionList.Merge(before, [new("Ready", null, "LedgerUnavailable", "")], 1, A.Noon.AddSeconds(1));
        Assert.Equal(["Ready", "Suspended"], after.Select(condition => condition.Type));
    }

    [Fact]
    public void A_lease_time_always_has_six_fractional_digits()
    {
        // On a whole second the client writes none, which the server cannot read.
        var lease = new V1Lease { Spec = new V1LeaseSpec { RenewTime = LeaderLease.MicroTime(A.Noon) } };
        Assert.Contains("2026-03-01T12:00:00.000001Z", KubernetesJson.Serialize(lease), StringComparison.Ordinal);
        lease.Spec.RenewTime = LeaderLease.MicroTime(A.Noon.AddTicks(1234567));
        Assert.Contains("2026-03-01T12:00:00.123456Z", KubernetesJson.Serialize(lease), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("""{"metadata":{"name":"bad","namespace":"n","uid":"u","resourceVersion":"8"},"status":{"replicas":99999999999}}""", true)]
    [InlineData("""{"metadata":{"name":"bad","namespace":"n","uid":"u","resourceVersion":"8"},"status":{"conditions":[{"lastTransitionTime":"yesterday"}]}}""", true)]
    [InlineData("""{"metadata":{"name":"bad","namespace":"n","uid":"u","resourceVersion":"8"},"spec":{"replicas":99999999999}}""", false)]
    public void One_object_that_cannot_be_read_hides_no_other_and_is_read_without_a_status_that_is_nonsense(string bad, bool withoutStatus)
    {
        const string good = """{"metadata":{"name":"good","namespace":"n","resourceVersion":"9"}}""";
        using var body = new MemoryStream(System.Text.Encoding.UTF8.GetBytes($$"""{"metadata":{"resourceVersion":"10","continue":"next"},"items":[{{bad}},{{good}}]}"""));
        var page = KubernetesStream.Read<GpuDeployment>(body);
        Assert.Equal(("10", "next"), (page.ResourceVersion, page.Continue));
        Assert.Equal(withoutStatus ? "bad good" : "good", string.Join(' ', page.Items.Select(item => item.Metadata.Name)));
        Assert.All(page.Items, item => Assert.Null(item.Status));
        Assert.Equal(withoutStatus ? "" : "n/bad u", string.Join(' ', page.Unreadable.Select(item => $"{item.Key} {item.Uid}")));

        var changed = KubernetesStream.Parse<GpuDeployment>($$"""{"type":"MODIFIED","object":{{bad}}}""");
        Assert.Equal((withoutStatus ? WatchKind.Modified : WatchKind.Unreadable, "8", "n/bad"), (changed.Kind, changed.ResourceVersion, changed.Key));
        Assert.Equal((withoutStatus, !withoutStatus), (changed.Object is not null, changed.Unreadable is not null));
        var gone = KubernetesStream.Parse<GpuDeployment>($$"""{"type":"DELETED","object":{{bad}}}""");
        Assert.Equal((WatchKind.Deleted, "n/bad"), (gone.Kind, gone.Key));
        // Of other kinds the status is what is watched: without it they would be taken for something else.
        Assert.Equal(WatchKind.Unreadable, KubernetesStream.Parse<V1Pod>(
            """{"type":"MODIFIED","object":{"metadata":{"name":"p","namespace":"n","resourceVersion":"8"},"status":{"startTime":"soon"}}}""").Kind);
    }

    [Fact]
    public void A_watch_line_is_read_whatever_its_type()
    {
        var added = KubernetesStream.Parse<V1Pod>("""{"type":"ADDED","object":{"metadata":{"name":"a","namespace":"n","resourceVersion":"7"}}}""");
        Assert.Equal((WatchKind.Added, "7", "a"), (added.Kind, added.ResourceVersion, added.Object!.Metadata.Name));
        var bookmark = KubernetesStream.Parse<V1Pod>("""{"type":"BOOKMARK","object":{"kind":"Pod","metadata":{"resourceVersion":"9"}}}""");
        Assert.Equal((WatchKind.Bookmark, "9"), (bookmark.Kind, bookmark.ResourceVersion));
        Assert.Throws<VersionExpiredException>(() => KubernetesStream.Parse<V1Pod>("""{"type":"ERROR","object":{"kind":"Status","code":410,"message":"too old"}}"""));
        Assert.Equal(500, KubernetesStream.Parse<V1Pod>("""{"type":"ERROR","object":{"kind":"Status","code":500}}""").Status!.Code);
    }

    [Theory]
    [InlineData(2, 2, false, 2, 2, false, false)]
    [InlineData(2, 2, false, 3, 2, false, true)]
    [InlineData(2, 2, false, 1, 4, false, false)]
    [InlineData(2, 2, true, 2, 2, false, true)]
    [InlineData(2, 2, false, 9, 9, true, false)]
    public void Only_what_asks_for_more_is_gated(int replicas, int gpus, bool paused, int newReplicas, int newGpus, bool newPaused, bool gated)
        => Assert.Equal(gated, AdmissionWebhook.AsksForMore(A.Deployment(replicas, gpus, paused: paused), A.Deployment(newReplicas, newGpus, paused: newPaused)));

    [Fact]
    public void The_webhook_concerns_our_kinds_alone_and_is_skipped_when_it_is_down()
    {
        var webhook = Webhook("gate.tensormesh.ai", "https://127.0.0.1:9443");
        Assert.Equal("Ignore", webhook.FailurePolicy);
        Assert.Equal("None", webhook.SideEffects);
        Assert.Equal([WellKnown.Group], webhook.Rules.Single().ApiGroups);
        Assert.Equal(["gpudeployments", "gpudeployments/scale"], webhook.Rules.Single().Resources);
        Assert.Equal("https://127.0.0.1:9443/validate", webhook.ClientConfig.Url);
        Assert.Equal("tensormesh", Webhook("gate.tensormesh.ai", "service:tensormesh/gate").ClientConfig.Service.NamespaceProperty);
    }

    [Fact]
    public void The_guard_of_GpuNodes_concerns_them_alone_and_is_never_skipped()
    {
        var webhook = Webhook("own-node.tensormesh.ai", "https://127.0.0.1:9443");
        Assert.Equal("Fail", webhook.FailurePolicy);
        Assert.Equal("None", webhook.SideEffects);
        Assert.Equal([WellKnown.Group], webhook.Rules.Single().ApiGroups);
        Assert.Equal(["gpunodes", "gpunodes/status"], webhook.Rules.Single().Resources);
        Assert.Equal(["CREATE", "UPDATE"], webhook.Rules.Single().Operations);
        Assert.Equal("https://127.0.0.1:9443/own-node", webhook.ClientConfig.Url);
    }

    private static k8s.Models.V1ValidatingWebhook Webhook(string name, string address)
        => WebhookRegistration.Render([1, 2, 3], address).Webhooks.Single(webhook => webhook.Name == name);
}
