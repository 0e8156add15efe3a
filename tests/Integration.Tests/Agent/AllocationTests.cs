using k8s;
using k8s.Models;
using Tensormesh.Agent;
using Tensormesh.Integration.Tests.Operators;
using Tensormesh.Resources;
using Tensormesh.TestKit;

namespace Tensormesh.Integration.Tests.Agents;

/// <summary>Which pod holds which GPU, as a real kubelet says.</summary>
public sealed class AllocationTests(OperatorFixture product) : AgentTest(product)
{
    private const string Node = "gpu-a";
    private readonly List<string> namespaces = [];

    [Fact]
    public async Task A_pod_holds_the_very_gpus_that_its_container_was_given_and_lets_go_of_them()
    {
        await using var agent = await StartOnRealNodeAsync();
        var ns = await OpenNamespaceAsync();
        var pod = await RunAsync(ns, "trainer", gpus: 2, "echo $NVIDIA_VISIBLE_DEVICES; trap 'exit 0' TERM; while :; do sleep 1; done");

        var held = await UntilHeldAsync(pod);
        Assert.Equal(("trainer", "main", 2), (held.PodName, held.Container, held.Gpus.Count));
        var (_, given, _) = await Eventually.SeeAsync(
            () => Kubectl.TryRunAsync(Cluster.KubeconfigPath, "logs", "-n", ns, "trainer"), answer => answer.Output.Length > 0, answer => answer.Errors);
        Assert.Equal(given.Trim().Split(',').Order(StringComparer.Ordinal), held.Gpus);
        // What was left of an earlier story may go a moment later.
        var status = (await UntilAsync(Node, now => now.FreeGpus == 6))!.Status!;
        Assert.Equal((8, 8), (status.Gpus, status.HealthyGpus));
        Assert.All(held.Gpus, gpu => Assert.Contains(status.Devices!, device => device.Uuid == gpu));

        await Client.CoreV1.DeleteNamespacedPodAsync("trainer", ns, cancellationToken: Ended);
        await UntilAsync(Node, now => now is { Allocations.Count: 0, FreeGpus: 8 });
    }

    [Fact]
    public async Task A_pod_of_an_old_name_is_another_pod()
    {
        await using var agent = await StartOnRealNodeAsync();
        var ns = await OpenNamespaceAsync();
        var first = await RunAsync(ns, "again", gpus: 8, "trap 'exit 0' TERM; while :; do sleep 1; done");
        var before = await UntilHeldAsync(first);

        // Both get all there is, so that nothing but the uid differs.
        await Client.CoreV1.DeleteNamespacedPodAsync("again", ns, cancellationToken: Ended);
        await UntilGoneAsync(ns);
        var second = await RunAsync(ns, "again", gpus: 8, "trap 'exit 0' TERM; while :; do sleep 1; done");
        Assert.NotEqual(first.Uid(), second.Uid());
        var after = await UntilHeldAsync(second);
        Assert.Equal(before.Gpus, after.Gpus);
        Assert.True(after.Since > before.Since);
        var started = (await ReadAsync(second)).Status.StartTime;
        Assert.True(after.Since >= started, $"said to hold since {after.Since:O}, taken in at {started:O}");
    }

    [Fact]
    public async Task A_pod_that_has_finished_holds_nothing()
    {
        await using var agent = await StartOnRealNodeAsync();
        var ns = await OpenNamespaceAsync();
        var pod = await RunAsync(ns, "batch", gpus: 1, "sleep 3");
        await UntilHeldAsync(pod);

        // The kubelet goes on naming it until another pod needs its GPU.
        await Eventually.SeeAsync(
            () => ReadAsync(pod), seen => seen.Status.Phase == "Succeeded", seen => seen.Status.Phase);
        await UntilAsync(Node, now => now is { Allocations.Count: 0, FreeGpus: 8 });
    }

    [Fact]
    public async Task A_kubelet_that_restarts_is_heard_again()
    {
        await using var agent = await StartOnRealNodeAsync();
        var ns = await OpenNamespaceAsync();
        // As the product's own pods are. A kubelet of 1.20 fails a pod that must not restart when it comes back before it finds its container.
        var pod = await RunAsync(ns, "steady", gpus: 1, "trap 'exit 0' TERM; while :; do sleep 1; done", restart: "Always");
        var before = await UntilHeldAsync(pod);
        await Eventually.SeeAsync(() => ReadAsync(pod), seen => seen.Status.Phase == "Running", seen => KubernetesJson.Serialize(seen.Status));

        await Cluster.RestartKubeletAsync();
        await UntilAsync(Node, now => now.FreeGpus is null || now.HeartbeatTime > before.Since?.AddSeconds(5));
        var after = await UntilHeldAsync(pod);
        Assert.Equal(before.Gpus, after.Gpus);
        await UntilAsync(Node, now => now.FreeGpus == 7);
    }

    /// <summary>The GPUs are few: what is left of a story is gone before the next begins.</summary>
    public override async ValueTask DisposeAsync()
    {
        foreach (var ns in namespaces)
        {
            await Client.CoreV1.DeleteCollectionNamespacedPodAsync(ns);
            await UntilGoneAsync(ns);
            await Client.CoreV1.DeleteNamespaceAsync(ns);
        }

        await base.DisposeAsync();
    }

    private async Task<string> OpenNamespaceAsync()
    {
        var ns = await Shared.CreateNamespaceAsync("allocation");
        namespaces.Add(ns);
        return ns;
    }

    private Task<V1PodList> UntilGoneAsync(string ns) => Eventually.SeeAsync(
        () => Client.CoreV1.ListNamespacedPodAsync(ns), pods => pods.Items.Count == 0, pods => string.Join(", ", pods.Items.Select(pod => pod.Name())));

    private async Task<AgentRun> StartOnRealNodeAsync()
    {
        NeedsRealNode();
        var gpus = await MountAsync(Node, 8);
        var options = Options(Node, heartbeat: TimeSpan.FromSeconds(1));
        options.PodResourcesSocket = Cluster.PodResourcesSocket;
        return await AgentRun.StartAsync(gpus.Probe, await ServerAsync(Node), options);
    }

    private async Task<V1Pod> RunAsync(string ns, string name, int gpus, string command, string restart = "Never")
    {
        var limits = new Dictionary<string, ResourceQuantity> { [WellKnown.GpuResource] = new($"{gpus}") };
        return await Client.CoreV1.CreateNamespacedPodAsync(
            new V1Pod
            {
                Metadata = new V1ObjectMeta { Name = name },
                Spec = new V1PodSpec
                {
                    RestartPolicy = restart,
                    AutomountServiceAccountToken = false,
                    NodeSelector = new Dictionary<string, string> { ["kubernetes.io/hostname"] = Node },
                    TerminationGracePeriodSeconds = 3,
                    Containers =
                    [
                        new V1Container
                        {
                            Name = "main",
                            Image = DevCluster.WorkloadImage,
                            ImagePullPolicy = "IfNotPresent",
                            Command = ["sh", "-c", command],
                            Resources = new V1ResourceRequirements { Limits = limits },
                        },
                    ],
                },
            },
            ns, cancellationToken: Ended);
    }

    private Task<V1Pod> ReadAsync(V1Pod pod) => Client.CoreV1.ReadNamespacedPodAsync(pod.Name(), pod.Namespace(), cancellationToken: Ended);

    private async Task<GpuAllocation> UntilHeldAsync(V1Pod pod)
    {
        var (node, _) = await Eventually.SeeAsync(
            async () => (await FindAsync(Node), await ReadAsync(pod)),
            seen => seen.Item1?.Status?.Allocations?.Any(each => each.PodUid == pod.Uid()) == true,
            seen => $"{(seen.Item1 is { } now ? KubernetesJson.Serialize(now) : "there is none")}, and the pod is {KubernetesJson.Serialize(seen.Item2.Status)}");
        var allocation = Assert.Single(node!.Status!.Allocations!, each => each.PodUid == pod.Uid());
        Assert.Equal(pod.Namespace(), allocation.PodNamespace);
        return allocation;
    }

    private void NeedsRealNode()
    {
        if (Cluster.HasRealNode) return;
        Assert.True(Environment.GetEnvironmentVariable("CI") is null or "", "CI must run on a machine where gpu-a is real");
        Assert.Skip("gpu-a is hollow here: a real node needs root on Linux");
    }
}
