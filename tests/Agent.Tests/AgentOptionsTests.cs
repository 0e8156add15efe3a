using Tensormesh.Agent;

namespace Agent.Tests;

public sealed class AgentOptionsTests
{
    [Fact]
    public void A_node_name_is_all_that_must_be_set() => Assert.Empty(new AgentOptions { NodeName = "gpu-a" }.Problems());

    [Fact]
    public void Each_bad_setting_is_named_with_what_to_do()
    {
        var options = new AgentOptions
        {
            PodResourcesSocket = "kubelet.sock",
            MetricsUrl = "https://metrics",
            ProbeInterval = TimeSpan.Zero,
            HeartbeatInterval = TimeSpan.FromHours(2),
        };

        Assert.Equal(
            [
                "Tensormesh:Agent:NodeName is not set: in a pod, set the environment variable Tensormesh__Agent__NodeName from the field spec.nodeName",
                "Tensormesh:Agent:PodResourcesSocket 'kubelet.sock' is no absolute path",
                "Tensormesh:Agent:MetricsUrl 'https://metrics' is not like http://0.0.0.0:8081: an address of this machine and a port",
                "Tensormesh:Agent:ProbeInterval is 00:00:00: use 00:00:00.1 to 00:10:00",
                "Tensormesh:Agent:HeartbeatInterval is 02:00:00: use at least 00:00:01 and ProbeInterval (00:00:00), and at most an hour",
            ],
            options.Problems());
    }

    [Fact]
    public void A_heartbeat_is_not_shorter_than_a_look() => Assert.Single(
        new AgentOptions { NodeName = "gpu-a", ProbeInterval = TimeSpan.FromMinutes(2) }.Problems());
}
