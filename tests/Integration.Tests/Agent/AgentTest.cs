using System.Net;
using k8s;
using k8s.Autorest;
using k8s.Models;
using Tensormesh.Agent;
using Tensormesh.Agent.Cluster;
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
    private readonly List<MockNode> mocks = [];

    protected ClusterFixture Shared => product.Shared;
    protected DevCluster Cluster => product.Cluster;
    protected Installation Installation => product.Installation;
    protected IKubernetes Client => product.Cluster.Client;
    protected static CancellationToken Ended => TestContext.Current.CancellationToken;

    public virtual async ValueTask InitializeAsync() => await AgentRights.GrantAsync(Cluster, Ended);

    public virtual async ValueTask DisposeAsync()
    {
        GC.SuppressFinalize(this);
        foreach (var mock in mocks) await mock.DisposeAsync();
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

    /// <summary>Healthy H100s that the mock driver shows on the node.</summary>
    internal async Task<MockNode> MountAsync(string node, int gpus)
    {
        var mock = new MockNode(await MockDriver.BuildAsync(Console.WriteLine, Ended), node, gpus);
        mocks.Add(mock);
        return mock;
    }

    /// <summary>A client with the rights of an agent whose pod is on the node.</summary>
    protected async Task<Kubernetes> ConnectAsync(string node)
    {
        if (!nodes.Contains(node)) nodes.Add(node);
        var pod = await AgentRights.CreatePodAsync(Cluster, node, Ended);
        pods.Add(pod);
        return await AgentRights.ConnectAsync(Cluster, pod, Ended);
    }

    /// <summary>The same, as an agent itself connects: by a kubeconfig file.</summary>
    internal async Task<ApiServer> ServerAsync(string node)
    {
        if (!nodes.Contains(node)) nodes.Add(node);
        var pod = await AgentRights.CreatePodAsync(Cluster, node, Ended);
        pods.Add(pod);
        return ApiServerConnection.Open(await AgentRights.WriteKubeconfigAsync(Cluster, pod, Ended));
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
        () => FindAsync(node), seen => seen?.Status is { } status && condition(status), seen => seen is null ? "there is none" : KubernetesJson.Serialize(seen));

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
