using System.Diagnostics;
using System.Net;
using k8s;
using k8s.Autorest;
using k8s.Models;
using Tensormesh.Resources;

namespace Tensormesh.TestKit;

/// <summary>
/// The agent as a cluster runs it, on the real node: the rights of manifests/base/agent-rbac.yaml, the DaemonSet of manifests/base/agent.yaml, and the
/// image of the repository's Dockerfile. Only what a dev cluster cannot have differs: the driver is the mock, and the kubelet's
/// folder is elsewhere.
/// </summary>
public sealed class AgentDaemonSet : IAsyncDisposable
{
    public const string Name = "tensormesh-agent";
    private const string Selector = "app.kubernetes.io/name=" + Name;
    private const string DriverVolume = "driver";
    private static readonly TimeSpan StartLimit = TimeSpan.FromMinutes(2);

    private readonly DevCluster cluster;

    private AgentDaemonSet(DevCluster cluster) => this.cluster = cluster;

    /// <summary>Makes the image that <see cref="StartAsync"/> runs. The first time takes a minute or two.</summary>
    public static Task PrepareAsync(Action<string> say, CancellationToken cancellation) => ProductImages.EnsureAgentAsync(say, cancellation);

    /// <summary>Returns when the pod is Ready and the GpuNode there. An operator with a webhook must run: agents write nothing past it.</summary>
    /// <param name="settings">Environment of the agent, over what a dev cluster sets.</param>
    /// <exception cref="NotSupportedException">gpu-a is not a real node here.</exception>
    public static async Task<AgentDaemonSet> StartAsync(
        DevCluster cluster, Action<string> say, CancellationToken cancellation, IReadOnlyDictionary<string, string>? settings = null)
    {
        ArgumentNullException.ThrowIfNull(cluster);
        var began = Stopwatch.GetTimestamp();
        var agent = new AgentDaemonSet(cluster);
        var daemonSet = await ForDevClusterAsync(cluster, settings, cancellation);
        await cluster.ImportImagesAsync(await ProductImages.EnsureAgentAsync(say, cancellation), cancellation);
        await AgentRights.GrantAsync(cluster, cancellation);
        await cluster.Client.AppsV1.CreateNamespacedDaemonSetAsync(daemonSet, Installation.AgentNamespace, cancellationToken: cancellation);
        try
        {
            var pod = await agent.WaitUntilReadyAsync(cancellation);
            say($"agent ready on {pod.Spec.NodeName} after {Stopwatch.GetElapsedTime(began).TotalSeconds:0.0} s: pod {pod.Name()}");
            return agent;
        }
        catch
        {
            await agent.DisposeAsync();
            throw;
        }
    }

    /// <summary>Returns the agent's pod when it is Ready, which it is not before the GpuNode was written.</summary>
    public async Task<V1Pod> WaitUntilReadyAsync(CancellationToken cancellation)
    {
        var began = Stopwatch.GetTimestamp();
        while (true)
        {
            var pods = await PodsAsync(cancellation);
            if (pods.FirstOrDefault(IsReady) is { } pod && await HasGpuNodeAsync(pod.Spec.NodeName, cancellation)) return pod;
            if (Stopwatch.GetElapsedTime(began) > StartLimit)
            {
                var seen = string.Join('\n', pods.Select(each => KubernetesJson.Serialize(each.Status)));
                throw new TimeoutException($"no agent was Ready within {StartLimit.TotalSeconds:0} s: {(seen.Length > 0 ? seen : "there is no pod")}");
            }

            await Task.Delay(TimeSpan.FromMilliseconds(100), TimeProvider.System, cancellation);
        }
    }

    /// <summary>Takes the DaemonSet away and returns when its pods are gone; what they told stays.</summary>
    public async ValueTask DisposeAsync()
    {
        using var limit = new CancellationTokenSource(StartLimit);
        try
        {
            await cluster.Client.AppsV1.DeleteNamespacedDaemonSetAsync(
                Name, Installation.AgentNamespace, propagationPolicy: "Foreground", cancellationToken: limit.Token);
        }
        catch (HttpOperationException gone) when (gone.Response.StatusCode == HttpStatusCode.NotFound)
        {
        }

        while ((await PodsAsync(limit.Token)).Count > 0) await Task.Delay(TimeSpan.FromMilliseconds(100), TimeProvider.System, limit.Token);
    }

    private static bool IsReady(V1Pod pod) => pod.Metadata.DeletionTimestamp is null
        && pod.Status.Conditions?.Any(condition => condition is { Type: "Ready", Status: "True" }) == true;

    private async Task<IList<V1Pod>> PodsAsync(CancellationToken cancellation) =>
        (await cluster.Client.CoreV1.ListNamespacedPodAsync(Installation.AgentNamespace, labelSelector: Selector, cancellationToken: cancellation)).Items;

    private async Task<bool> HasGpuNodeAsync(string node, CancellationToken cancellation)
    {
        try
        {
            await cluster.Client.CustomObjects.GetClusterCustomObjectAsync<GpuNode>(
                WellKnown.Group, WellKnown.Version, GpuNode.PluralName, node, cancellation);
            return true;
        }
        catch (HttpOperationException none) when (none.Response.StatusCode == HttpStatusCode.NotFound)
        {
            return false;
        }
    }

    private static async Task<V1DaemonSet> ForDevClusterAsync(
        DevCluster cluster, IReadOnlyDictionary<string, string>? settings, CancellationToken cancellation)
    {
        var daemonSet = KubernetesYaml.Deserialize<V1DaemonSet>(await File.ReadAllTextAsync(Repository.Folder("manifests", "base", "agent.yaml"), cancellation));
        var pod = daemonSet.Spec.Template.Spec;
        var agent = pod.Containers.Single();

        agent.Image = ProductImages.Reference("agent");
        // Hollow nodes have the labels of GPU nodes, and containers that are imagined.
        pod.NodeSelector = new Dictionary<string, string> { ["kubernetes.io/hostname"] = RealNode.Name };
        pod.Volumes.Single(volume => volume.Name == "pod-resources").HostPath.Path = Path.GetDirectoryName(cluster.PodResourcesSocket);
        pod.Volumes.Add(new V1Volume { Name = DriverVolume, HostPath = new V1HostPathVolumeSource { Path = cluster.Driver.Folder, Type = "Directory" } });
        agent.VolumeMounts.Add(new V1VolumeMount { Name = DriverVolume, MountPath = NodeDriver.InContainer, ReadOnlyProperty = true });

        // Seconds instead of a minute, so that what happens can be watched.
        Set(MockDriver.EnvironmentVariable, NodeDriver.GpusFileInContainer);
        Set("Tensormesh__Agent__ProbeInterval", "00:00:01");
        Set("Tensormesh__Agent__HeartbeatInterval", "00:00:10");
        agent.ReadinessProbe.PeriodSeconds = 1;
        foreach (var (name, value) in settings ?? new Dictionary<string, string>()) Set(name, value);
        return daemonSet;

        void Set(string name, string value)
        {
            if (agent.Env.FirstOrDefault(each => each.Name == name) is { } known) known.Value = value;
            else agent.Env.Add(new V1EnvVar { Name = name, Value = value });
        }
    }
}
