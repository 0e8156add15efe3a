using System.Net;
using k8s;
using k8s.Autorest;
using k8s.Models;
using Tensormesh.Agent;
using Tensormesh.Devices;
using Tensormesh.Integration.Tests.Operators;
using Tensormesh.Resources;
using Tensormesh.TestKit;

namespace Tensormesh.Integration.Tests.Agents;

/// <summary>Stories about agents, on nodes of their own, with the operator there to guard what they write.</summary>
[Collection(OperatorSuite.Name)]
public abstract class AgentTest(OperatorFixture product) : IAsyncLifetime
{
    private readonly List<string> nodes = [];
    private readonly List<V1Pod> pods = [];

    protected ClusterFixture Shared => product.Shared;
    protected DevCluster Cluster => product.Cluster;
    protected IKubernetes Client => product.Cluster.Client;
    protected static CancellationToken Ended => TestContext.Current.CancellationToken;

    internal ScriptedProbe Probe { get; } = new(TimeProvider.System);

    public virtual async ValueTask InitializeAsync() => await AgentRights.GrantAsync(Cluster, Ended);

    public async ValueTask DisposeAsync()
    {
        GC.SuppressFinalize(this);
        foreach (var pod in pods) await IgnoreMissingAsync(Client.CoreV1.DeleteNamespacedPodAsync(pod.Name(), pod.Namespace(), gracePeriodSeconds: 0));
        foreach (var node in nodes)
        {
            await IgnoreMissingAsync(Client.CustomObjects.DeleteClusterCustomObjectAsync(WellKnown.Group, WellKnown.Version, GpuNode.PluralName, node));
            if (node != "gpu-a") await IgnoreMissingAsync(Client.CoreV1.DeleteNodeAsync(node));
        }
    }

    /// <summary>A node of which there is nothing but its name.</summary>
    protected async Task<string> AddNodeAsync()
    {
        var name = $"agent-{Guid.NewGuid().ToString("N")[..8]}";
        nodes.Add(name);
        await Client.CoreV1.CreateNodeAsync(
            new V1Node { Metadata = new V1ObjectMeta { Name = name }, Spec = new V1NodeSpec { Unschedulable = true } }, cancellationToken: Ended);
        return name;
    }

    /// <summary>A client with the rights of an agent whose pod is on the node.</summary>
    protected async Task<Kubernetes> ConnectAsync(string node)
    {
        if (!nodes.Contains(node)) nodes.Add(node);
        var pod = await AgentRights.CreatePodAsync(Cluster, node, Ended);
        pods.Add(pod);
        return await AgentRights.ConnectAsync(Cluster, pod, Ended);
    }

    internal static AgentOptions Options(string node, TimeSpan? heartbeat = null) => new()
    {
        NodeName = node,
        PodResourcesSocket = "/nowhere/kubelet.sock",
        ProbeInterval = TimeSpan.FromMilliseconds(100),
        HeartbeatInterval = heartbeat ?? TimeSpan.FromMinutes(10),
        LabelNode = false,
    };

    protected async Task<GpuNode?> FindAsync(string node)
    {
        try
        {
            return await Client.CustomObjects.GetClusterCustomObjectAsync<GpuNode>(WellKnown.Group, WellKnown.Version, GpuNode.PluralName, node, Ended);
        }
        catch (HttpOperationException none) when (none.Response.StatusCode == HttpStatusCode.NotFound)
        {
            return null;
        }
    }

    protected Task<GpuNode?> UntilAsync(string node, Func<GpuNodeStatus, bool> condition) => Eventually.SeeAsync(
        () => FindAsync(node), seen => seen?.Status is { } status && condition(status), seen => KubernetesJson.Serialize(seen));

    /// <summary>Returns when the agent has looked this many times more.</summary>
    protected async Task UntilLookedAsync(int times)
    {
        var goal = Probe.Looks + times;
        await Eventually.SeeAsync(() => Task.FromResult(Probe.Looks), looks => looks >= goal);
    }

    protected static DeviceInventory Whole(int gpus) => new()
    {
        ObservedAt = default,
        Driver = DriverState.Working,
        Message = "",
        DriverVersion = "550.54.15",
        CudaVersion = "12.4",
        Devices = [.. Enumerable.Range(0, gpus).Select(Device)],
    };

    protected static Device Device(int index) => Device(index, $"GPU-00000000-0000-0000-0000-00000000000{index}");

    protected static Device Device(int index, string uuid) => new()
    {
        Index = index,
        Uuid = new DeviceUuid(uuid),
        Health = DeviceHealth.Healthy,
        Name = "NVIDIA H100 80GB HBM3",
        PciBusId = $"00000000:{index + 1:X2}:00.0",
        TotalMemoryBytes = 85_520_809_984,
        ComputeCapability = new ComputeCapability(9, 0),
    };

    protected static DeviceInventory Sick(DeviceInventory whole, int index) => whole with
    {
        Devices =
        [
            .. whole.Devices.Select(device => device.Index != index ? device
                : device with { Health = new DeviceHealth(HealthVerdict.Unhealthy, HealthReason.UncorrectedEcc, "1 uncorrected memory error") }),
        ],
    };

    protected static async Task IgnoreMissingAsync(Task task)
    {
        try
        {
            await task;
        }
        catch (HttpOperationException gone) when (gone.Response.StatusCode == HttpStatusCode.NotFound)
        {
        }
    }
}
