using k8s;
using k8s.Models;
using Tensormesh.Agent.Allocating;
using Tensormesh.Integration.Tests.Operators;
using Tensormesh.Resources;
using Tensormesh.TestKit;

namespace Tensormesh.Integration.Tests.Agents;

/// <summary>The agent as a DaemonSet's pod on a real node, from the image that the Dockerfile makes, with the operator's webhook on guard.</summary>
public sealed class AgentPodTests(OperatorFixture product) : AgentTest(product)
{
    private const string Node = "gpu-a";
    private readonly List<string> namespaces = [];
    private AgentDaemonSet? agent;

    [Fact]
    public async Task A_workloads_own_cuda_calls_see_the_gpus_that_the_kubelet_allocated_and_the_GpuNode_tells_of()
    {
        await StartAgentAsync();
        var ns = await Shared.CreateNamespaceAsync("chain");
        namespaces.Add(ns);
        var (pod, seen) = await RunOnGpusAsync(ns, gpus: 2);
        Assert.Equal(2, seen.Length);

        using var kubelet = new Kubelet(Cluster.PodResourcesSocket, TimeProvider.System);
        var allocated = Assert.Single(await kubelet.ListAsync(Ended), held => held.Pod == new PodKey(ns, pod.Name()));
        Assert.Equal(allocated.Gpus, seen);

        // What was left of an earlier story may go a moment later.
        var node = await UntilAsync(Node, status => status.FreeGpus == 6 && status.Allocations!.Any(each => each.PodUid == pod.Uid()));
        Assert.Equal(Assert.Single(node!.Status!.Allocations!, each => each.PodUid == pod.Uid()).Gpus, seen);
        Assert.Equal((8, 8), (node.Status.Gpus, node.Status.HealthyGpus));

        // The ledger's half of the chain continues here: the run interval of pod.Uid(), and its charge, name the same UUIDs as `seen`.
    }

    [Fact]
    public async Task A_kubelet_and_a_container_engine_that_restart_leave_the_container_its_gpus_and_the_agent_its_sight_of_them()
    {
        await StartAgentAsync();
        var ns = await Shared.CreateNamespaceAsync("restarts");
        namespaces.Add(ns);
        var (pod, seen) = await RunOnGpusAsync(ns, gpus: 2);
        await UntilAsync(Node, status => status.Allocations!.Any(each => each.PodUid == pod.Uid()));

        await Cluster.RestartContainerdAsync(Ended);
        await Cluster.RestartKubeletAsync();
        var (_, again, _) = await Eventually.SeeAsync(
            () => Kubectl.TryRunAsync(Cluster.KubeconfigPath, "exec", "-n", ns, pod.Name(), "--", "cuda-uuids"),
            answer => answer.ExitCode == 0, answer => answer.Errors);
        Assert.Equal(seen, Uuids(again));
        Assert.Equal(0, (await Client.CoreV1.ReadNamespacedPodAsync(pod.Name(), ns, cancellationToken: Ended)).Status.ContainerStatuses[0].RestartCount);

        // The socket is another one, which the agent's pod sees in the folder that it mounts.
        var answered = TimeProvider.System.GetUtcNow();
        var node = await UntilAsync(Node, status => status.HeartbeatTime > answered && status.FreeGpus == 6);
        Assert.Equal(seen, Assert.Single(node!.Status!.Allocations!, each => each.PodUid == pod.Uid()).Gpus);
    }

    [Fact]
    public async Task The_agents_pod_tells_of_a_lost_gpu_and_the_next_pod_goes_on_with_its_history()
    {
        await StartAgentAsync();
        var first = await agent!.WaitUntilReadyAsync(Ended);
        Assert.True(Installation.HasWebhook);
        var whole = (await FindAsync(Node))!;
        Assert.Equal(8, whole.Status!.HealthyGpus);
        Assert.All(whole.Metadata.ManagedFields, each => Assert.Equal(WellKnown.AgentFieldManager, each.Manager));

        var uuid = Cluster.Driver.Gpus.Devices[3].Uuid;
        Cluster.Driver.Change(gpus => gpus.Faults.Add(MockFault.Lost(3)));
        var lost = Device(await UntilAsync(Node, status => status.HealthyGpus == 7), uuid);
        Assert.Equal((GpuHealth.Unhealthy, "Lost"), (lost.Health, lost.Reason));
        Assert.Contains($"GPU {uuid} is Unhealthy (Lost)", await LogOfAsync(first), StringComparison.Ordinal);

        await Client.CoreV1.DeleteNamespacedPodAsync(first.Name(), first.Namespace(), cancellationToken: Ended);
        var second = await Eventually.SeeAsync(() => agent.WaitUntilReadyAsync(Ended), pod => pod.Uid() != first.Uid(), pod => pod.Name());
        var before = (await FindAsync(Node))!.Status!.HeartbeatTime;
        var after = await UntilAsync(Node, status => status.HeartbeatTime > before);
        var still = Device(after, uuid);
        Assert.Equal((lost.Health, lost.Reason, lost.Since, lost.LastHealthyTime), (still.Health, still.Reason, still.Since, still.LastHealthyTime));

        Cluster.Driver.Change(gpus => gpus.Faults.Clear());
        var well = (await UntilAsync(Node, status => status.HealthyGpus == 8))!;
        var outage = Assert.Single(well.Status!.Outages!, each => each.Uuid == uuid);
        Assert.Equal((lost.Since, lost.LastHealthyTime), (outage.From, outage.LastHealthyTime));
        Assert.Contains($"GPU {uuid} (NVIDIA-H100-80GB-HBM3) is healthy", await LogOfAsync(second), StringComparison.Ordinal);
    }

    /// <summary>The GPUs are few: what is left of a story is gone before the next begins.</summary>
    public override async ValueTask DisposeAsync()
    {
        foreach (var ns in namespaces) await Client.CoreV1.DeleteCollectionNamespacedPodAsync(ns);
        if (agent is not null)
        {
            Cluster.Driver.Change(gpus => gpus.Faults.Clear());
            await agent.DisposeAsync();
            await IgnoreMissingAsync(Client.CustomObjects.DeleteClusterCustomObjectAsync(WellKnown.Group, WellKnown.Version, GpuNode.PluralName, Node));
        }

        foreach (var ns in namespaces)
        {
            await Eventually.SeeAsync(() => Client.CoreV1.ListNamespacedPodAsync(ns), pods => pods.Items.Count == 0);
            await Client.CoreV1.DeleteNamespaceAsync(ns);
        }

        await base.DisposeAsync();
    }

    private async Task StartAgentAsync()
    {
        if (!Cluster.HasRealNode)
        {
            Assert.True(Environment.GetEnvironmentVariable("CI") is null or "", "CI must run on a machine where gpu-a is real");
            Assert.Skip("gpu-a is hollow here: a real node needs root on Linux");
        }

        agent = await AgentDaemonSet.StartAsync(
            Cluster, Console.WriteLine, Ended, new Dictionary<string, string> { ["Tensormesh__Agent__HeartbeatInterval"] = "00:00:02" });
    }

    /// <summary>A pod, and what its own CUDA calls see, in the order of the UUIDs.</summary>
    private async Task<(V1Pod Pod, string[] Seen)> RunOnGpusAsync(string ns, int gpus)
    {
        var pod = await Client.CoreV1.CreateNamespacedPodAsync(
            new V1Pod
            {
                Metadata = new V1ObjectMeta { Name = "trainer" },
                Spec = new V1PodSpec
                {
                    RestartPolicy = "Never",
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
                            Command = ["sh", "-c", "cuda-uuids && echo all || exit 1; trap 'exit 0' TERM; while :; do sleep 1; done"],
                            Resources = new V1ResourceRequirements
                            {
                                Limits = new Dictionary<string, ResourceQuantity> { [WellKnown.GpuResource] = new($"{gpus}") },
                            },
                        },
                    ],
                },
            },
            ns, cancellationToken: Ended);
        var (_, seen, _) = await Eventually.SeeAsync(
            () => Kubectl.TryRunAsync(Cluster.KubeconfigPath, "logs", "-n", ns, "trainer"),
            answer => answer.Output.Contains("all", StringComparison.Ordinal), answer => answer.Output + answer.Errors);
        return (pod, Uuids(seen));
    }

    private static string[] Uuids(string output) =>
        [.. output.Split('\n').Where(line => line.StartsWith("GPU-", StringComparison.Ordinal)).Order(StringComparer.Ordinal)];

    private async Task<string> LogOfAsync(V1Pod pod) => await Kubectl.RunAsync(Cluster.KubeconfigPath, "logs", "-n", pod.Namespace(), pod.Name());

    /// <summary>By its identity: to a process that starts anew a lost GPU has none, and is listed by its number as well.</summary>
    private static GpuDevice Device(GpuNode? node, string uuid) => Assert.Single(node!.Status!.Devices!, device => device.Uuid == uuid);
}
