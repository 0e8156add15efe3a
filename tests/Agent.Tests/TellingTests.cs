using Tensormesh.Agent.Reporting;
using Tensormesh.Resources;
using static Agent.Tests.Seen;

namespace Agent.Tests;

public sealed class TellingTests
{
    [Fact]
    public void The_first_report_is_told() => Assert.True(Telling.IsDue(told: null, After(Round(0)), Heartbeat));

    [Fact]
    public void Nothing_new_is_not_told_before_the_heartbeat()
    {
        var told = After(Round(0));

        Assert.False(Telling.IsDue(told, NodeReport.Next(told, Round(10)), Heartbeat));
        Assert.False(Telling.IsDue(told, NodeReport.Next(told, Round(59)), Heartbeat));
        Assert.True(Telling.IsDue(told, NodeReport.Next(told, Round(60)), Heartbeat));
    }

    [Fact]
    public void A_clock_that_went_back_does_not_silence_the_node()
    {
        var told = After(Round(3600));

        Assert.True(Telling.IsDue(told, NodeReport.Next(told, Round(0)), Heartbeat));
    }

    [Fact]
    public void What_was_read_back_from_the_object_says_the_same()
    {
        var told = After(Round(0), Round(10, With(1, Ecc)), Round(20));
        var read = k8s.KubernetesJson.Deserialize<GpuNodeStatus>(k8s.KubernetesJson.Serialize(told));

        Assert.False(Telling.SaysOther(read, NodeReport.Next(told, Round(30))));
    }

    [Fact]
    public void A_change_of_health_of_holders_of_the_kubelet_or_of_the_driver_is_told_at_once()
    {
        var told = After(Round(0));
        Assert.True(IsTold(Round(10, With(0, Ecc))));
        Assert.True(IsTold(Round(10, driver: Tensormesh.Devices.DriverState.Unresponsive)));
        Assert.True(IsTold(Round(10, allocations: Held(("trainer-0", "uid-0", [Gpu(0)])))));
        Assert.True(IsTold(Round(10, allocations: new Tensormesh.Agent.Allocating.AllocationReading.Unknown("silent"))));

        bool IsTold(NodeObservation seen) => Telling.IsDue(told, NodeReport.Next(told, seen), Heartbeat);
    }

    [Fact]
    public void What_changes_back_before_it_could_be_told_is_told_all_the_same()
    {
        var told = After(Round(0));

        Assert.True(Telling.IsDue(told, NodeReport.Next(NodeReport.Next(told, Round(10, With(0, Ecc))), Round(20)), Heartbeat));
    }
}
