using System.Net;
using System.Text;
using k8s;
using k8s.Autorest;
using k8s.Models;
using Tensormesh.Resources;
using Tensormesh.TestKit;

namespace Tensormesh.Integration.Tests;

/// <summary>Hollow nodes under a real API server, scheduler and controller manager: do they behave as nodes with a kubelet do?</summary>
public sealed class HollowNodeTests(ClusterFixture fixture) : IAsyncLifetime
{
    private const string Finalizer = "hollow.tensormesh.ai/test";
    private static readonly TimeSpan Deadline = TimeSpan.FromSeconds(90);
    private readonly string _namespace = $"hollow-{Guid.NewGuid():N}"[..20];
    private readonly HollowNodes _nodes = HollowNodes.Start(fixture.Cluster.Client);

    private IKubernetes Client => fixture.Cluster.Client;

    private static CancellationToken Ended => TestContext.Current.CancellationToken;

    public async ValueTask InitializeAsync()
    {
        await Client.CoreV1.CreateNamespaceAsync(new V1Namespace { Metadata = new V1ObjectMeta { Name = _namespace } });
        await UntilAsync(
            async () => (await Client.CoreV1.ListNamespacedServiceAccountAsync(_namespace)).Items,
            accounts => accounts.Any(account => account.Name() == "default"));
    }

    public async ValueTask DisposeAsync()
    {
        var failures = _nodes.Failures;
        await _nodes.DisposeAsync();
        await Client.CoreV1.DeleteNamespaceAsync(_namespace);
        Assert.Empty(failures);
    }

    [Fact]
    public async Task Registers_with_the_labels_of_gpu_feature_discovery_ready_and_untainted()
    {
        var hollow = await AddNodeAsync(HollowNodeOptions.L40S);

        var node = await Client.CoreV1.ReadNodeAsync(hollow.Name, cancellationToken: Ended);
        Assert.Equal("NVIDIA-L40S", node.GetLabel(WellKnown.GpuProductLabel));
        Assert.Equal("46068", node.GetLabel(WellKnown.GpuMemoryLabel));
        Assert.Equal("4", node.GetLabel(WellKnown.GpuCountLabel));
        Assert.Equal("8", node.GetLabel(WellKnown.GpuComputeMajorLabel));
        Assert.Equal("9", node.GetLabel(WellKnown.GpuComputeMinorLabel));
        Assert.Equal("true", node.GetLabel("nvidia.com/gpu.present"));
        Assert.Equal("4", node.Status.Allocatable[WellKnown.GpuResource].ToString());
        Assert.Equal("500", node.Status.Capacity["pods"].ToString());
        Assert.Empty(node.Spec.Taints ?? []);
        Assert.Equal("True", Ready(node));
    }

    [Fact]
    public async Task Renews_its_lease_and_its_ready_condition()
    {
        var hollow = await AddNodeAsync(name => HollowNodeOptions.L40S(name) with
        {
            LeaseRenewEvery = TimeSpan.FromMilliseconds(200),
            StatusEvery = TimeSpan.FromMilliseconds(1100),
        });
        var lease = await Client.CoordinationV1.ReadNamespacedLeaseAsync(hollow.Name, "kube-node-lease", cancellationToken: Ended);
        var node = await Client.CoreV1.ReadNodeAsync(hollow.Name, cancellationToken: Ended);

        await UntilAsync(
            () => Client.CoordinationV1.ReadNamespacedLeaseAsync(hollow.Name, "kube-node-lease", cancellationToken: Ended),
            later => later.Spec.RenewTime > lease.Spec.RenewTime);
        await UntilAsync(
            () => Client.CoreV1.ReadNodeAsync(hollow.Name, cancellationToken: Ended),
            later => Heartbeat(later) > Heartbeat(node));
    }

    [Fact]
    public async Task A_deployment_of_3_replicas_with_4_gpus_has_two_running_on_a_node_of_8_and_one_pending()
    {
        var hollow = await AddNodeAsync(HollowNodeOptions.H100);
        var labels = new Dictionary<string, string> { ["app"] = "three" };
        await Client.AppsV1.CreateNamespacedDeploymentAsync(
            new V1Deployment
            {
                Metadata = new V1ObjectMeta { Name = "three" },
                Spec = new V1DeploymentSpec
                {
                    Replicas = 3,
                    Selector = new V1LabelSelector { MatchLabels = labels },
                    Template = new V1PodTemplateSpec { Metadata = new V1ObjectMeta { Labels = labels }, Spec = Spec(hollow, gpus: 4) },
                },
            },
            _namespace,
            cancellationToken: Ended);

        var pods = await UntilAsync(
            async () => (await Client.CoreV1.ListNamespacedPodAsync(_namespace, cancellationToken: Ended)).Items,
            pods => pods.Count(IsRunning) == 2 && pods.Any(IsUnschedulable));
        Assert.Equal(3, pods.Count);
        await UntilAsync(
            () => Client.AppsV1.ReadNamespacedDeploymentAsync("three", _namespace, cancellationToken: Ended),
            deployment => deployment.Status.ReadyReplicas == 2);
    }

    [Fact]
    public async Task A_running_pod_has_the_status_that_a_kubelet_writes()
    {
        var hollow = await AddNodeAsync(HollowNodeOptions.H100);
        await CreatePodAsync("p", Spec(hollow, gpus: 1));

        var pod = await RunningAsync("p");
        var container = Assert.Single(pod.Status.ContainerStatuses);
        Assert.True(container.Ready);
        Assert.Equal(0, container.RestartCount);
        Assert.Equal(0, container.State.Running.StartedAt!.Value.Ticks % TimeSpan.TicksPerSecond);
        Assert.Equal(0, pod.Status.StartTime!.Value.Ticks % TimeSpan.TicksPerSecond);
        Assert.True(container.State.Running.StartedAt >= pod.Status.StartTime);
        Assert.NotEmpty(pod.Status.PodIP);
        Assert.Equal(pod.Status.PodIP, Assert.Single(pod.Status.PodIPs).Ip);
        string[] conditions = ["Initialized", "Ready", "ContainersReady", "PodScheduled"];
        Assert.All(conditions, type => Assert.Equal("True", pod.Status.Conditions.Single(condition => condition.Type == type).Status));
    }

    [Fact]
    public async Task A_deleted_pod_heeds_sigterm_and_is_gone()
    {
        var hollow = await AddNodeAsync(HollowNodeOptions.H100);
        await CreatePodAsync("p", Spec(hollow));
        await RunningAsync("p");

        await Client.CoreV1.DeleteNamespacedPodAsync("p", _namespace, cancellationToken: Ended);
        await GoneAsync("p");
    }

    [Fact]
    public async Task A_finalizer_keeps_the_pod_visible_with_its_terminated_state()
    {
        var hollow = await AddNodeAsync(HollowNodeOptions.H100);
        await CreatePodAsync("p", Spec(hollow), finalizer: true);
        var running = await RunningAsync("p");

        await Client.CoreV1.DeleteNamespacedPodAsync("p", _namespace, cancellationToken: Ended);
        var pod = await PodAsync("p", pod => Terminated(pod) is not null && pod.Metadata.DeletionGracePeriodSeconds == 0);
        Assert.Equal(0, Terminated(pod)!.ExitCode);
        Assert.Equal("Completed", Terminated(pod)!.Reason);
        Assert.Equal(running.Status.ContainerStatuses[0].State.Running.StartedAt, Terminated(pod)!.StartedAt);
        Assert.Equal("False", pod.Status.Conditions.Single(condition => condition.Type == "Ready").Status);
        Assert.Equal("Succeeded", pod.Status.Phase);

        await RemoveFinalizersAsync("p");
        await GoneAsync("p");
    }

    [Fact]
    public async Task A_kubelet_older_than_1_27_leaves_the_phase_of_a_deleted_pod()
    {
        var hollow = await AddNodeAsync(name => HollowNodeOptions.H100(name) with { TerminalPhaseOnDeletion = false });
        await CreatePodAsync("p", Spec(hollow), finalizer: true);
        await RunningAsync("p");

        await Client.CoreV1.DeleteNamespacedPodAsync("p", _namespace, cancellationToken: Ended);
        var pod = await PodAsync("p", pod => pod.Metadata.DeletionGracePeriodSeconds == 0);
        Assert.NotNull(Terminated(pod));
        Assert.Equal("Running", pod.Status.Phase);
        await RemoveFinalizersAsync("p");
    }

    [Fact]
    public async Task A_pod_that_ignores_sigterm_is_killed_when_its_grace_period_ends()
    {
        var hollow = await AddNodeAsync(HollowNodeOptions.H100);
        await CreatePodAsync("p", Spec(hollow), finalizer: true, fault: HollowFault.IgnoreSigtermName);
        await RunningAsync("p");

        await Client.CoreV1.DeleteNamespacedPodAsync("p", _namespace, gracePeriodSeconds: 3, cancellationToken: Ended);
        var deleting = await PodAsync("p", pod => pod.Metadata.DeletionTimestamp is not null);
        Assert.True(IsRunning(deleting));

        // The deletion's timestamp is the request's instant plus the grace period, in whole seconds.
        var pod = await PodAsync("p", pod => Terminated(pod) is not null);
        Assert.Equal(137, Terminated(pod)!.ExitCode);
        Assert.Equal("Error", Terminated(pod)!.Reason);
        Assert.True(Terminated(pod)!.FinishedAt >= deleting.Metadata.DeletionTimestamp!.Value);
        await RemoveFinalizersAsync("p");
        await GoneAsync("p");
    }

    [Fact]
    public async Task A_pod_that_hangs_in_image_pull_is_creating_until_its_annotation_is_taken_off()
    {
        var hollow = await AddNodeAsync(HollowNodeOptions.H100);
        await CreatePodAsync("hangs", Spec(hollow), fault: HollowFault.HangImagePullName);
        await PodAsync("hangs", pod => Waiting(pod) == "ContainerCreating");
        await CreatePodAsync("later", Spec(hollow));
        await RunningAsync("later");
        Assert.Equal("ContainerCreating", Waiting(await PodAsync("hangs", _ => true)));

        await PatchPodAsync("hangs", new { metadata = new { annotations = new Dictionary<string, string?> { [HollowFault.Annotation] = "" } } });
        await RunningAsync("hangs");
    }

    [Fact]
    public async Task An_injected_fault_lasts_until_it_is_disposed()
    {
        var hollow = await AddNodeAsync(HollowNodeOptions.H100);
        using (hollow.Inject(HollowFault.HangImagePull, pod => pod.Name() == "hangs"))
        {
            await CreatePodAsync("hangs", Spec(hollow));
            await PodAsync("hangs", pod => Waiting(pod) == "ContainerCreating");
            await CreatePodAsync("other", Spec(hollow));
            await RunningAsync("other");
            Assert.Equal("ContainerCreating", Waiting(await PodAsync("hangs", _ => true)));
        }

        await RunningAsync("hangs");
    }

    [Fact]
    public async Task A_slow_start_lets_later_pods_run_first()
    {
        var hollow = await AddNodeAsync(HollowNodeOptions.H100);
        await CreatePodAsync("slow", Spec(hollow), fault: HollowFault.SlowStartName);
        await PodAsync("slow", pod => Waiting(pod) == "ContainerCreating");
        await CreatePodAsync("quick", Spec(hollow));
        await RunningAsync("quick");
        Assert.Equal("ContainerCreating", Waiting(await PodAsync("slow", _ => true)));
        await RunningAsync("slow");
    }

    [Fact]
    public async Task A_container_that_crashes_is_restarted_with_back_off()
    {
        var hollow = await AddNodeAsync(name => HollowNodeOptions.H100(name) with { CrashBackOff = TimeSpan.FromMilliseconds(400) });
        await CreatePodAsync("p", Spec(hollow), fault: HollowFault.CrashName);

        var backingOff = await PodAsync("p", pod => Waiting(pod) == "CrashLoopBackOff");
        Assert.Equal(1, backingOff.Status.ContainerStatuses[0].LastState.Terminated.ExitCode);
        Assert.Equal("Running", backingOff.Status.Phase);
        Assert.False(backingOff.Status.ContainerStatuses[0].Ready);
        var running = await PodAsync("p", pod => IsRunning(pod) && pod.Status.ContainerStatuses[0].RestartCount >= 2);
        Assert.Equal("Error", running.Status.ContainerStatuses[0].LastState.Terminated.Reason);
    }

    [Theory]
    [InlineData("Never", HollowFault.CrashName, "Failed", 1)]
    [InlineData("Never", HollowFault.ExitZeroName, "Succeeded", 0)]
    [InlineData("OnFailure", HollowFault.ExitZeroName, "Succeeded", 0)]
    public async Task A_container_that_may_not_restart_ends_its_pod(string restartPolicy, string fault, string phase, int exitCode)
    {
        var hollow = await AddNodeAsync(HollowNodeOptions.H100);
        var spec = Spec(hollow);
        spec.RestartPolicy = restartPolicy;
        await CreatePodAsync("p", spec, fault: fault);

        var pod = await PodAsync("p", pod => pod.Status.Phase == phase);
        Assert.Equal(exitCode, Terminated(pod)!.ExitCode);
        await Client.CoreV1.DeleteNamespacedPodAsync("p", _namespace, cancellationToken: Ended);
        await GoneAsync("p");
    }

    [Fact]
    public async Task A_lost_node_touches_no_pod_until_it_recovers()
    {
        var lost = await AddNodeAsync(HollowNodeOptions.H100);
        var witness = await AddNodeAsync(HollowNodeOptions.H100);
        await CreatePodAsync("on-lost", Spec(lost));
        await CreatePodAsync("on-witness", Spec(witness));
        await RunningAsync("on-lost");
        await RunningAsync("on-witness");

        await lost.LoseAsync();
        await Client.CoreV1.DeleteNamespacedPodAsync("on-lost", _namespace, gracePeriodSeconds: 1, cancellationToken: Ended);
        await Client.CoreV1.DeleteNamespacedPodAsync("on-witness", _namespace, gracePeriodSeconds: 1, cancellationToken: Ended);
        await GoneAsync("on-witness");
        await NodeAsync(lost, node => Ready(node) == "Unknown");
        var pod = await PodAsync("on-lost", _ => true);
        Assert.NotNull(pod.Metadata.DeletionTimestamp);
        Assert.NotNull(pod.Status.ContainerStatuses[0].State.Running);

        await lost.RecoverAsync(Ended);
        await GoneAsync("on-lost");
        await NodeAsync(lost, node => Ready(node) == "True" && node.Spec.Taints is null or { Count: 0 });
    }

    [Fact]
    public async Task Pods_outlive_the_process_that_imagines_them()
    {
        var options = HollowNodeOptions.H100($"{_namespace}-again");
        await using var first = HollowNodes.Start(Client);
        var hollow = await first.AddAsync(options, Ended);
        await CreatePodAsync("p", Spec(hollow), finalizer: true);
        var before = await RunningAsync("p");
        await hollow.LoseAsync();

        await _nodes.AddAsync(options, Ended);
        await Client.CoreV1.DeleteNamespacedPodAsync("p", _namespace, cancellationToken: Ended);
        var after = await PodAsync("p", pod => Terminated(pod) is not null);
        Assert.Equal(before.Status.ContainerStatuses[0].State.Running.StartedAt, Terminated(after)!.StartedAt);
        Assert.Equal(0, after.Status.ContainerStatuses[0].RestartCount);
        await RemoveFinalizersAsync("p");
        await GoneAsync("p");
    }

    [Fact]
    public async Task A_watch_that_ends_with_410_is_replaced_by_a_list_and_a_new_watch()
    {
        using var handler = new GoneOnFirstWatch();
        using var client = new Kubernetes(KubernetesClientConfiguration.BuildConfigFromConfigFile(fixture.Cluster.KubeconfigPath), handler);
        await using var nodes = HollowNodes.Start(client);
        var hollow = await nodes.AddAsync(HollowNodeOptions.H100($"{_namespace}-410"), Ended);
        await CreatePodAsync("p", Spec(hollow));
        await RunningAsync("p");
        Assert.Equal(2, nodes.Lists);
        Assert.Empty(nodes.Failures);
    }

    [Fact]
    public async Task Twenty_nodes_take_500_pods_to_running_over_one_watch()
    {
        const int nodeCount = 20, podCount = 500;
        var hollow = await _nodes.AddAsync(Enumerable.Range(0, nodeCount).Select(i => HollowNodeOptions.H100($"{_namespace}-{i}")), Ended);
        await Parallel.ForAsync(
            0,
            podCount,
            new ParallelOptions { MaxDegreeOfParallelism = 16, CancellationToken = Ended },
            async (i, _) => await CreatePodAsync($"p-{i}", Spec(hollow[i % nodeCount])));

        await UntilAsync(() => Task.FromResult(hollow.Sum(node => node.Pods.Count(IsRunning))), running => running == podCount);
        var pods = (await Client.CoreV1.ListNamespacedPodAsync(_namespace, cancellationToken: Ended)).Items;
        Assert.Equal(podCount, pods.Count(IsRunning));
        Assert.Equal(podCount, pods.Select(pod => pod.Status.PodIP).Distinct().Count());
        Assert.All(hollow, node => Assert.Equal(podCount / nodeCount, node.Pods.Count));
        Assert.Equal((1, 1), (_nodes.Lists, _nodes.Watches));
    }

    private Task<HollowNode> AddNodeAsync(Func<string, HollowNodeOptions> options) =>
        _nodes.AddAsync(options($"{_namespace}-{_nodes.Nodes.Count}"), Ended);

    private static V1PodSpec Spec(HollowNode node, int gpus = 0) => new()
    {
        // Before 1.24 a pod that mounts a token is refused until the namespace's token exists, some time after its account.
        AutomountServiceAccountToken = false,
        NodeSelector = new Dictionary<string, string> { ["kubernetes.io/hostname"] = node.Name },
        Containers =
        [
            new V1Container
            {
                Name = "main",
                Image = "hollow",
                Resources = gpus == 0
                    ? null
                    : new V1ResourceRequirements { Limits = new Dictionary<string, ResourceQuantity> { [WellKnown.GpuResource] = new($"{gpus}") } },
            },
        ],
    };

    private Task<V1Pod> CreatePodAsync(string name, V1PodSpec spec, bool finalizer = false, string? fault = null) => Client.CoreV1.CreateNamespacedPodAsync(
        new V1Pod
        {
            Metadata = new V1ObjectMeta
            {
                Name = name,
                Finalizers = finalizer ? [Finalizer] : null,
                Annotations = fault is null ? null : new Dictionary<string, string> { [HollowFault.Annotation] = fault },
            },
            Spec = spec,
        },
        _namespace,
        cancellationToken: Ended);

    private Task<V1Pod> PatchPodAsync(string name, object patch) => Client.CoreV1.PatchNamespacedPodAsync(
        new V1Patch(patch, V1Patch.PatchType.MergePatch), name, _namespace, cancellationToken: Ended);

    private Task<V1Pod> RemoveFinalizersAsync(string name) => PatchPodAsync(name, new { metadata = new { finalizers = Array.Empty<string>() } });

    private Task<V1Pod> RunningAsync(string name) => PodAsync(name, IsRunning);

    private Task<V1Pod> PodAsync(string name, Func<V1Pod, bool> condition) =>
        UntilAsync(() => Client.CoreV1.ReadNamespacedPodAsync(name, _namespace, cancellationToken: Ended), condition);

    private Task<V1Node> NodeAsync(HollowNode hollow, Func<V1Node, bool> condition) =>
        UntilAsync(() => Client.CoreV1.ReadNodeAsync(hollow.Name, cancellationToken: Ended), condition);

    private Task<IList<V1Pod>> GoneAsync(string name) => UntilAsync(
        async () => (await Client.CoreV1.ListNamespacedPodAsync(_namespace, cancellationToken: Ended)).Items,
        pods => pods.All(pod => pod.Name() != name));

    private static async Task<T> UntilAsync<T>(Func<Task<T>> read, Func<T, bool> condition)
    {
        var began = TimeProvider.System.GetTimestamp();
        while (true)
        {
            var value = await read();
            if (condition(value))
            {
                return value;
            }

            Assert.True(TimeProvider.System.GetElapsedTime(began) < Deadline, $"not so within {Deadline}: {KubernetesJson.Serialize(value)}");
            await Task.Delay(TimeSpan.FromMilliseconds(50));
        }
    }

    private static bool IsRunning(V1Pod pod) =>
        pod.Status.Phase == "Running" && pod.Status.ContainerStatuses is [{ State.Running: not null, Ready: true }, ..];

    private static bool IsUnschedulable(V1Pod pod) => pod.Status.Phase == "Pending"
        && pod.Status.Conditions?.Any(condition => condition is { Type: "PodScheduled", Status: "False", Reason: "Unschedulable" }) == true;

    private static string? Waiting(V1Pod pod) => pod.Status.ContainerStatuses?[0].State.Waiting?.Reason;

    private static V1ContainerStateTerminated? Terminated(V1Pod pod) => pod.Status.ContainerStatuses?[0].State.Terminated;

    private static string Ready(V1Node node) => node.Status.Conditions.Single(condition => condition.Type == "Ready").Status;

    private static DateTime Heartbeat(V1Node node) => node.Status.Conditions.Single(condition => condition.Type == "Ready").LastHeartbeatTime!.Value;

    /// <summary>Answers the first watch as a server does whose history is shorter than the version asked for.</summary>
    private sealed class GoneOnFirstWatch : DelegatingHandler
    {
        private const string Expired =
            """{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Expired","message":"too old","code":410}}""";

        private int _watches;

        protected override Task<HttpResponseMessage> SendAsync(HttpRequestMessage request, CancellationToken cancellationToken) =>
            request.RequestUri!.Query.Contains("watch=true", StringComparison.Ordinal) && Interlocked.Increment(ref _watches) == 1
                ? Task.FromResult(new HttpResponseMessage(HttpStatusCode.OK)
                {
                    Content = new StringContent(Expired + "\n", Encoding.UTF8, "application/json"),
                    RequestMessage = request,
                })
                : base.SendAsync(request, cancellationToken);
    }
}
