using System.Diagnostics;
using k8s;
using k8s.Models;
using Tensormesh.Integration.Tests.Operators;
using Tensormesh.Resources;
using Tensormesh.TestKit;

namespace Tensormesh.Integration.Tests;

/// <summary>
/// The dev cluster itself: is gpu-a a node as a customer's GPU nodes are? There is one such node, whose GPUs others count and whose kubelet
/// they restart, so these run one after the other with them.
/// </summary>
[Collection(OperatorSuite.Name)]
public sealed class DevClusterTests(ClusterFixture fixture)
{
    private IKubernetes Client => fixture.Cluster.Client;

    private static CancellationToken Ended => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Gpu_a_is_ready_with_eight_gpus_and_the_labels_of_gpu_feature_discovery()
    {
        // A device plugin registers again with a kubelet that was restarted by the test before.
        var node = await Eventually.SeeAsync(
            () => Client.CoreV1.ReadNodeAsync("gpu-a", cancellationToken: Ended), seen => seen.Status.Allocatable[WellKnown.GpuResource].ToString() == "8");

        Assert.Contains(node.Status.Conditions, condition => condition is { Type: "Ready", Status: "True" });
        Assert.Equal("NVIDIA-H100-80GB-HBM3", node.GetLabel(WellKnown.GpuProductLabel));
        Assert.Equal("81559", node.GetLabel(WellKnown.GpuMemoryLabel));
        Assert.Equal("8", node.GetLabel(WellKnown.GpuCountLabel));
        Assert.Equal("9", node.GetLabel(WellKnown.GpuComputeMajorLabel));
        Assert.Equal("0", node.GetLabel(WellKnown.GpuComputeMinorLabel));
        Assert.Empty(node.Spec.Taints ?? []);
    }

    [Fact]
    public async Task A_deployments_pod_runs_on_the_real_node_and_holds_its_gpu_by_uuid()
    {
        NeedsRealNode();
        var team = await fixture.CreateNamespaceAsync("dev-run");
        await CreateDeploymentAsync(team, "trainer", "echo gpu=$NVIDIA_VISIBLE_DEVICES; trap 'exit 0' TERM; sleep 1000 & wait");

        var pod = await RunningPodAsync(team, "trainer");

        Assert.Equal("gpu-a", pod.Spec.NodeName);
        Assert.StartsWith("containerd://", pod.Status.ContainerStatuses[0].ContainerID, StringComparison.Ordinal);
        var log = await Eventually.SeeAsync(
            () => Kubectl.RunAsync(fixture.Cluster.KubeconfigPath, "-n", team, "logs", pod.Name()),
            text => text.Contains("gpu=", StringComparison.Ordinal));
        Assert.Matches("gpu=GPU-[0-9a-f]{8}-", log);
        await Client.CoreV1.DeleteNamespaceAsync(team, cancellationToken: Ended);
    }

    [Fact]
    public async Task Kubectl_exec_runs_a_command_in_the_container_and_a_pod_reaches_the_api_server_at_its_service_address()
    {
        NeedsRealNode();
        var team = await fixture.CreateNamespaceAsync("dev-exec");
        await CreateDeploymentAsync(team, "shell", command: null);
        var pod = await RunningPodAsync(team, "shell");

        var answer = await Kubectl.RunAsync(
            fixture.Cluster.KubeconfigPath, "-n", team, "exec", pod.Name(), "--",
            "sh", "-c", "hostname; wget -q -O- --no-check-certificate https://$KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT/version");

        Assert.StartsWith(pod.Name(), answer, StringComparison.Ordinal);
        Assert.Contains("gitVersion", answer, StringComparison.Ordinal);
        await Client.CoreV1.DeleteNamespaceAsync(team, cancellationToken: Ended);
    }

    [Fact]
    public async Task A_container_that_ignores_sigterm_lives_to_the_end_of_its_grace_period_and_no_longer()
    {
        NeedsRealNode();
        const int graceSeconds = 4;
        var team = await fixture.CreateNamespaceAsync("dev-grace");
        await CreateDeploymentAsync(team, "stubborn", "trap '' TERM; while :; do sleep 1; done", graceSeconds);
        var pod = await RunningPodAsync(team, "stubborn");

        // A finalizer keeps the pod in sight until its end has been read, as the operator's own does.
        await Client.CoreV1.PatchNamespacedPodAsync(
            new V1Patch("""{"metadata":{"finalizers":["tensormesh.ai/test"]}}""", V1Patch.PatchType.MergePatch),
            pod.Name(), team, cancellationToken: Ended);
        await Client.AppsV1.DeleteNamespacedDeploymentAsync("stubborn", team, cancellationToken: Ended);
        var deleted = await Eventually.SeeAsync(
            () => Client.CoreV1.ReadNamespacedPodAsync(pod.Name(), team, cancellationToken: Ended),
            each => each.Status.ContainerStatuses?[0].State.Terminated is not null);
        var ended = deleted.Status.ContainerStatuses[0].State.Terminated;
        var asked = deleted.DeletionTimestamp()!.Value - TimeSpan.FromSeconds(graceSeconds);

        Assert.Equal(137, ended.ExitCode);
        // Both instants are whole seconds.
        Assert.InRange((ended.FinishedAt!.Value - asked).TotalSeconds, graceSeconds - 1, graceSeconds + 3);
        await Client.CoreV1.PatchNamespacedPodAsync(
            new V1Patch("""{"metadata":{"finalizers":null}}""", V1Patch.PatchType.MergePatch),
            pod.Name(), team, cancellationToken: Ended);
        await Client.CoreV1.DeleteNamespaceAsync(team, cancellationToken: Ended);
    }

    [Fact]
    public async Task A_container_that_heeds_sigterm_is_gone_long_before_its_grace_period_ends()
    {
        NeedsRealNode();
        var team = await fixture.CreateNamespaceAsync("dev-prompt");
        await CreateDeploymentAsync(team, "prompt", command: null, graceSeconds: 60);
        var pod = await RunningPodAsync(team, "prompt");

        var began = Stopwatch.GetTimestamp();
        await Client.AppsV1.DeleteNamespacedDeploymentAsync("prompt", team, cancellationToken: Ended);
        await Eventually.SeeAsync(
            async () => (await Client.CoreV1.ListNamespacedPodAsync(team, cancellationToken: Ended)).Items.Count, count => count == 0);

        // A kubelet of this version looks every ten seconds for pods that it may let go.
        Assert.InRange(Stopwatch.GetElapsedTime(began).TotalSeconds, 0, 30);
        await Client.CoreV1.DeleteNamespaceAsync(team, cancellationToken: Ended);
        Assert.NotNull(pod.Status.StartTime);
    }

    [Fact]
    public async Task A_hollow_node_never_takes_the_name_of_a_real_one()
    {
        NeedsRealNode();
        await Assert.ThrowsAsync<InvalidOperationException>(
            () => fixture.Cluster.AddHollowNodeAsync(HollowNodeOptions.H100("gpu-a"), Ended));
    }

    /// <summary>Skips where no real node can be had, and fails where one is promised.</summary>
    private void NeedsRealNode()
    {
        if (fixture.Cluster.HasRealNode)
            return;
        Assert.True(Environment.GetEnvironmentVariable("CI") is null or "", "CI must run on a machine where gpu-a is real");
        Assert.Skip("gpu-a is hollow here: a real node needs root on Linux");
    }

    private async Task CreateDeploymentAsync(string team, string name, string? command, int graceSeconds = 5)
    {
        var labels = new Dictionary<string, string> { ["app"] = name };
        await Client.AppsV1.CreateNamespacedDeploymentAsync(new V1Deployment
        {
            Metadata = new V1ObjectMeta { Name = name },
            Spec = new V1DeploymentSpec
            {
                Replicas = 1,
                Selector = new V1LabelSelector { MatchLabels = labels },
                Template = new V1PodTemplateSpec
                {
                    Metadata = new V1ObjectMeta { Labels = labels },
                    Spec = new V1PodSpec
                    {
                        TerminationGracePeriodSeconds = graceSeconds,
                        NodeSelector = new Dictionary<string, string> { ["kubernetes.io/hostname"] = "gpu-a" },
                        Containers =
                        [
                            new V1Container
                            {
                                Name = "main", Image = DevCluster.WorkloadImage, Command = command is null ? null : ["sh", "-c", command],
                                Resources = new V1ResourceRequirements
                                {
                                    Limits = new Dictionary<string, ResourceQuantity> { [WellKnown.GpuResource] = new("1") },
                                },
                            },
                        ],
                    },
                },
            },
        }, team, cancellationToken: Ended);
    }

    private async Task<V1Pod> RunningPodAsync(string team, string name)
    {
        var pods = await Eventually.SeeAsync(
            () => Client.CoreV1.ListNamespacedPodAsync(team, labelSelector: $"app={name}", cancellationToken: Ended),
            list => list.Items.Count == 1 && list.Items[0].Status.ContainerStatuses?.All(each => each.Ready) == true,
            list => KubernetesJson.Serialize(list.Items.Select(pod => pod.Status)));
        return pods.Items[0];
    }
}
