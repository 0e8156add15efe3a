using k8s;
using k8s.Autorest;
using k8s.Models;
using Tensormesh.Resources;
using Tensormesh.TestKit;

namespace Tensormesh.Integration.Tests.Operators;

/// <summary>A GpuNode in the words of an agent that is not there.</summary>
internal sealed class ToldNode(IKubernetes client, string name, string product, int gpus)
{
    private readonly List<GpuDevice> devices =
    [
        .. MockGpus.OfNode(name, gpus).Devices.Select((gpu, index) => new GpuDevice
        {
            Uuid = gpu.Uuid,
            Index = index,
            Product = product,
            MemoryMiB = gpu.MemoryMebibytes,
            ComputeCapability = "9.0",
            Health = GpuHealth.Healthy,
        }),
    ];

    private readonly List<GpuAllocation> allocations = [];
    private readonly List<GpuOutage> outages = [];
    private bool created;

    public string Name => name;

    public string Uuid(int index) => devices[index].Uuid!;

    public void Hold(V1Pod pod, params int[] indexes) => allocations.Add(new GpuAllocation
    {
        PodUid = pod.Uid(),
        PodNamespace = pod.Namespace(),
        PodName = pod.Name(),
        Container = "main",
        Gpus = [.. indexes.Select(Uuid).Order(StringComparer.Ordinal)],
        Since = TimeProvider.System.GetUtcNow(),
    });

    public void Release() => allocations.Clear();

    public void Fail(int index, string reason, DateTimeOffset? lastHealthy, DateTimeOffset seen)
    {
        var device = devices[index];
        (device.Health, device.Reason, device.Message) = (GpuHealth.Unhealthy, reason, "said by a test");
        (device.LastHealthyTime, device.Since) = (lastHealthy, seen);
    }

    public void Repair(int index, DateTimeOffset at)
    {
        var device = devices[index];
        outages.Add(new GpuOutage
        {
            Uuid = device.Uuid!,
            Health = device.Health,
            Reason = device.Reason,
            Message = device.Message,
            LastHealthyTime = device.LastHealthyTime,
            From = device.Since,
            Until = at,
        });
        (device.Health, device.Reason, device.Message, device.Since, device.LastHealthyTime) = (GpuHealth.Healthy, null, null, at, at);
    }

    public async Task TellAsync()
    {
        if (!created)
        {
            await client.CustomObjects.CreateClusterCustomObjectAsync(
                new GpuNode { Metadata = new V1ObjectMeta { Name = name } }, WellKnown.Group, WellKnown.Version, GpuNode.PluralName);
            created = true;
        }

        var status = new GpuNodeStatus
        {
            NodeName = name,
            HeartbeatTime = TimeProvider.System.GetUtcNow(),
            HeartbeatSeconds = 600,
            Gpus = gpus,
            HealthyGpus = devices.Count(device => device.Health == GpuHealth.Healthy),
            Product = product,
            Devices = devices,
            Allocations = allocations,
            Outages = outages,
            Conditions = [],
        };
        await client.CustomObjects.PatchClusterCustomObjectStatusAsync(
            new V1Patch(KubernetesJson.Serialize(new { status }), V1Patch.PatchType.MergePatch), WellKnown.Group, WellKnown.Version, GpuNode.PluralName, name);
    }
}
