using System.Text.Json;
using Tensormesh.Agent.Cluster;
using Tensormesh.Agent.Reporting;
using Tensormesh.Devices;
using Tensormesh.Resources;
using static Agent.Tests.Seen;

namespace Agent.Tests;

public sealed class NodeLabelsTests
{
    [Fact]
    public void Labels_are_those_of_gpu_feature_discovery() => Assert.Equal(
        new Dictionary<string, string>
        {
            ["nvidia.com/gpu.product"] = "NVIDIA-H100-80GB-HBM3",
            ["nvidia.com/gpu.memory"] = "81559",
            ["nvidia.com/gpu.count"] = "4",
            ["nvidia.com/gpu.compute.major"] = "9",
            ["nvidia.com/gpu.compute.minor"] = "0",
        },
        NodeLabels.Wanted(After(Round(0))));

    [Fact]
    public void A_node_of_which_no_gpu_is_known_gets_none() => Assert.Null(NodeLabels.Wanted(After(Round(0, [], DriverState.NoDevice))));

    [Theory]
    [InlineData("NVIDIA H100 80GB HBM3", "NVIDIA-H100-80GB-HBM3")]
    [InlineData("Tesla T4", "Tesla-T4")]
    [InlineData("NVIDIA RTX 6000 Ada (Generation) ", "NVIDIA-RTX-6000-Ada-Generation")]
    [InlineData("---", null)]
    [InlineData(null, null)]
    public void A_product_is_what_a_label_can_hold(string? name, string? product) => Assert.Equal(product, DeviceHistory.Product(name));

    [Theory]
    [InlineData(null, null, false)]
    [InlineData("kubectl", "Update", true)]
    [InlineData("nfd-master", "Apply", true)]
    [InlineData("tensormesh-agent", "Apply", false)]
    public void What_another_wrote_is_known_by_its_manager(string? manager, string? operation, bool byAnother)
    {
        var node = new NodeObject("v1", "Node", new ObjectMeta { Name = "gpu-a" });
        if (manager is not null)
        {
            node = node with
            {
                Metadata = new ObjectMeta
                {
                    Name = "gpu-a",
                    Labels = new Dictionary<string, string> { [WellKnown.GpuProductLabel] = "NVIDIA-L40S" },
                    ManagedFields =
                    [
                        new(manager, operation, JsonSerializer.Deserialize<JsonElement>("""{"f:metadata": {"f:labels": {"f:nvidia.com/gpu.product": {} } } }""")),
                    ],
                },
            };
        }

        Assert.Equal(byAnother, NodeLabels.IsLabelledByAnother(node));
    }
}
