using Tensormesh.Agent.Allocating;
using Tensormesh.Agent.Allocating.V1;

namespace Agent.Tests;

public sealed class KubeletTests
{
    [Fact]
    public void Only_gpus_count_and_each_once_in_order()
    {
        var answer = new ListPodResourcesResponse
        {
            PodResources =
            {
                Pod("b", "trainer-0", Container("main", ("nvidia.com/gpu", ["GPU-2"]), ("nvidia.com/gpu", ["GPU-1"]), ("intel.com/qat", ["0"])), Container("sidecar")),
                Pod("a", "shared", Container("main", ("nvidia.com/gpu", ["GPU-3::1", "GPU-3::0"]))),
                Pod("a", "part", Container("main", ("nvidia.com/mig-1g.10gb", ["MIG-GPU-5/1/0"]))),
                Pod("c", "plain", Container("main")),
            },
        };

        Assert.Equal(
            ["a/part main MIG-GPU-5/1/0", "a/shared main GPU-3", "b/trainer-0 main GPU-1,GPU-2"],
            Kubelet.Read(answer).Select(held => $"{held.Pod} {held.Container} {string.Join(',', held.Gpus)}"));
    }

    private static PodResources Pod(string ns, string name, params ContainerResources[] containers) =>
        new() { Namespace = ns, Name = name, Containers = { containers } };

    private static ContainerResources Container(string name, params (string Resource, string[] Ids)[] devices) => new()
    {
        Name = name,
        Devices = { devices.Select(each => new ContainerDevices { ResourceName = each.Resource, DeviceIds = { each.Ids } }) },
    };
}
