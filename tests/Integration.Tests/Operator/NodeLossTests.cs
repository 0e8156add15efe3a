using k8s;
using k8s.Models;
using Tensormesh.Billing;
using Tensormesh.Resources;
using Tensormesh.TestKit;

namespace Tensormesh.Integration.Tests.Operators;

/// <summary>A node goes silent: what may have run on there after the cluster lost sight of it is nobody's to pay, unless it comes back and shows it.</summary>
public sealed class NodeLossTests(OperatorFixture product) : OperatorTest(product)
{
    [Fact]
    public async Task Charging_ends_when_the_node_was_lost_if_the_pod_goes_with_it_and_goes_on_if_it_comes_back()
    {
        var team = await OpenTeamAsync("5000.00");
        var (evicted, deleted, back) = (await RunOnAsync(team, "evicted", tolerateSeconds: 1), await RunOnAsync(team, "deleted"), await RunOnAsync(team, "back"));
        Work[] all = [evicted, deleted, back];
        await Task.WhenAll(all.Select(work => work.Node.LoseAsync()));
        var lost = await Task.WhenAll(all.Select(work => SilentSinceAsync(work.Node)));

        // Before anybody gives it up, it is back: the same pod, the same run, charged all along.
        await back.Node.RecoverAsync(Ended);

        // Given up by the cluster: its pod is to be deleted, and no kubelet will ever say when it ended.
        Assert.Equal(lost[0], (await ClosedRunAsync(evicted.Pod)).EndedAt);

        // Taken out of the cluster, and its pod by force: only the pod itself still tells when it was lost.
        var marked = await Eventually.SeeAsync(
            () => Client.CoreV1.ReadNamespacedPodAsync(deleted.Pod.Name(), team.Namespace, cancellationToken: Ended),
            pod => pod.Status.Conditions.Any(IsLost), pod => KubernetesJson.Serialize(pod.Status.Conditions));
        await Client.CoreV1.DeleteNodeAsync(deleted.Node.Name, cancellationToken: Ended);
        await Client.CoreV1.DeleteNamespacedPodAsync(deleted.Pod.Name(), team.Namespace, new V1DeleteOptions { GracePeriodSeconds = 0 }, cancellationToken: Ended);
        Assert.Equal(Utc(marked.Status.Conditions.Single(IsLost).LastTransitionTime!.Value), (await ClosedRunAsync(deleted.Pod)).EndedAt);

        await UntilSettledAsync(back.Deployment, times: 2);
        var run = Assert.Single(await RunsAsync(back.Deployment));
        Assert.True(run.Accrues);
        Assert.Equal(back.Pod.Uid(), run.Pod.ToString());
        Assert.True(run.SettledUntil > lost[2]);

        // The evicted pod's kubelet is back and ends it at last; what was recorded stays.
        await evicted.Node.RecoverAsync(Ended);
        await Eventually.SeeAsync(() => PodsAsync(team, "evicted"), pods => pods.All(pod => pod.Uid() != evicted.Pod.Uid()));
        Assert.Equal(lost[0], (await RunAsync(evicted.Pod)).EndedAt);
    }

    [Fact]
    public async Task A_pod_of_a_node_that_was_taken_out_of_the_cluster_is_charged_until_it_was_deleted_and_not_longer()
    {
        var team = await OpenTeamAsync("1000.00");
        var work = await RunOnAsync(team, "gone");
        await KeepInSightAsync(work.Pod);
        await work.Node.LoseAsync();
        await Client.CoreV1.DeleteNodeAsync(work.Node.Name, cancellationToken: Ended);
        await Client.CoreV1.DeleteNamespacedPodAsync(work.Pod.Name(), team.Namespace, new V1DeleteOptions { GracePeriodSeconds = 0 }, cancellationToken: Ended);

        var run = await ClosedRunAsync(work.Pod);
        var pod = await Client.CoreV1.ReadNamespacedPodAsync(work.Pod.Name(), team.Namespace, cancellationToken: Ended);
        Assert.Equal(Utc(pod.DeletionTimestamp()!.Value), run.EndedAt);
        await LetGoAsync(work.Pod);
    }

    private sealed record Work(HollowNode Node, GpuDeployment Deployment, V1Pod Pod);

    /// <summary>One pod on a node that nothing else is on.</summary>
    /// <param name="tolerateSeconds">For how long it may stay on a node that is silent.</param>
    private async Task<Work> RunOnAsync(Team team, string name, int tolerateSeconds = 600)
    {
        var gpu = $"{Gpu}-{name}";
        await Product.EnsureProductAsync(gpu);
        await CreateAsync(Deployment(team, name, change: deployment =>
        {
            deployment.Spec.Gpu.Product = gpu;
            deployment.Spec.Template.Spec.Tolerations = [.. ((string[])["unreachable", "not-ready"]).Select(taint => new V1Toleration
            {
                Key = "node.kubernetes.io/" + taint,
                OperatorProperty = "Exists",
                Effect = "NoExecute",
                TolerationSeconds = tolerateSeconds,
            })];
        }));
        var deployment = await UntilRunningAsync(team, name);
        var node = Cluster.Hollow.Nodes.Single(each => each.Options.GpuProduct == gpu);
        return new Work(node, deployment, Assert.Single(await PodsAsync(team, name)));
    }

    /// <summary>When the node controller saw that the node's lease is no longer renewed.</summary>
    private async Task<DateTimeOffset> SilentSinceAsync(HollowNode node)
    {
        var ready = await Eventually.SeeAsync(
            async () => (await Client.CoreV1.ReadNodeAsync(node.Name, cancellationToken: Ended)).Status.Conditions.Single(condition => condition.Type == "Ready"),
            condition => condition.Status == "Unknown");
        return Utc(ready.LastTransitionTime!.Value);
    }

    private static bool IsLost(V1PodCondition condition) => condition is { Type: "Ready", Status: "False" };

    private static DateTimeOffset Utc(DateTime time) => new(DateTime.SpecifyKind(time, DateTimeKind.Utc));
}
