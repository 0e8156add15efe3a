using Tensormesh.Agent.Allocating;
using Tensormesh.Agent.Reporting;
using Tensormesh.Devices;
using Tensormesh.Resources;
using static Agent.Tests.Seen;

namespace Agent.Tests;

public sealed class NodeReportTests
{
    [Fact]
    public void A_whole_node_is_ready_and_all_of_it_is_free()
    {
        var status = After(Round(0));

        Assert.Equal((4, 4, 4), (status.Gpus, status.HealthyGpus, status.FreeGpus));
        Assert.Equal(("NVIDIA-H100-80GB-HBM3", "550.54.15", "12.4"), (status.Product, status.DriverVersion, status.CudaVersion));
        Assert.Equal((At(0), 60), (status.HeartbeatTime, status.HeartbeatSeconds));
        var first = status.Devices![0];
        Assert.Equal((Gpu(0), 0, 81559L, "9.0", "00000000:01:00.0"), (first.Uuid, first.Index, first.MemoryMiB, first.ComputeCapability, first.PciBusId));
        Assert.Equal((GpuHealth.Healthy, null, At(0), At(0)), (first.Health, first.Reason, first.Since, first.LastHealthyTime));
        Assert.Equal("True AllHealthy all 4 GPUs are healthy", Condition(status, ConditionTypes.Ready));
        Assert.Empty(status.Outages!);
    }

    [Fact]
    public void A_lost_gpu_that_a_new_process_finds_without_a_name_is_the_one_that_had_its_number()
    {
        Device[] nameless = [.. Whole.Select(device => device.Index == 2 ? new Device { Index = 2, Health = Lost } : device)];
        var status = After(Round(0), Round(10, With(2, Lost)), Round(20, nameless));
        Assert.Equal((4, 3), (status.Gpus, status.HealthyGpus));
        Assert.Equal((Gpu(2), At(10), At(0)), (status.Devices![2].Uuid, status.Devices[2].Since, status.Devices[2].LastHealthyTime));

        // Of one that nobody ever knew, only the number can be told.
        Assert.Null(After(Round(0, nameless)).Devices![2].Uuid);
    }

    [Fact]
    public void Whoever_held_a_gpu_while_it_failed_is_remembered_after_both_are_over()
    {
        var (first, second) = (Held(("trainer", "uid-1", [Gpu(2), Gpu(3)])), Held(("next", "uid-2", [Gpu(2)]), ("other", "uid-3", [Gpu(0)])));
        var failed = After(Round(0, allocations: first), Round(10, With(2, Ecc)), Round(20, With(2, Ecc), allocations: second));
        Assert.Equal(["uid-1", "uid-2"], failed.Devices![2].HeldBy!);
        Assert.Null(failed.Devices[3].HeldBy);

        var over = NodeReport.Next(failed, Round(30));
        Assert.Null(over.Devices![2].HeldBy);
        Assert.Equal(["uid-1", "uid-2"], Assert.Single(over.Outages!).HeldBy!);
    }

    [Fact]
    public void Who_held_it_before_the_driver_went_silent_is_remembered_when_it_turns_out_to_have_failed()
    {
        var status = After(Round(0, allocations: Held(("trainer", "uid-1", [Gpu(2)]))), Round(10, With(2, Silent)), Round(20, With(2, Lost)));
        Assert.Equal(["uid-1"], status.Devices![2].HeldBy!);
    }

    [Fact]
    public void A_gpu_that_fails_says_since_when_and_when_it_was_last_healthy()
    {
        var status = After(Round(0), Round(10), Round(20, With(2, Ecc)), Round(30, With(2, Ecc)));

        var sick = status.Devices![2];
        Assert.Equal((GpuHealth.Unhealthy, "UncorrectedEcc", "1 uncorrected error"), (sick.Health, sick.Reason, sick.Message));
        Assert.Equal((At(20), At(10)), (sick.Since, sick.LastHealthyTime));
        Assert.Equal((4, 3, 3), (status.Gpus, status.HealthyGpus, status.FreeGpus));
        Assert.Equal($"False SomeNotHealthy 1 of 4 GPUs: {Gpu(2)} is Unhealthy (UncorrectedEcc)", Condition(status, ConditionTypes.Ready));
        Assert.Equal("True Working CUDA and NVML answer", Condition(status, ConditionTypes.DevicesRead));
        Assert.Equal(At(20).UtcDateTime, Transition(status, ConditionTypes.Ready));
    }

    [Fact]
    public void A_gpu_that_recovers_is_healthy_again_and_its_outage_is_kept()
    {
        var status = After(Round(0), Round(10, With(2, Silent)), Round(20, With(2, Lost)), Round(30), Round(40));

        var well = status.Devices![2];
        Assert.Equal((GpuHealth.Healthy, null, null, At(30), At(40)), (well.Health, well.Reason, well.Message, well.Since, well.LastHealthyTime));
        Assert.Equal(
            [
                (Gpu(2), GpuHealth.Unknown, "Unresponsive", At(0), At(10), At(20)),
                (Gpu(2), GpuHealth.Unhealthy, "Lost", At(0), At(20), At(30)),
            ],
            status.Outages!.Select(Spoken));
        Assert.Equal("True AllHealthy all 4 GPUs are healthy", Condition(status, ConditionTypes.Ready));
    }

    [Fact]
    public void A_process_that_starts_goes_on_where_the_object_says_that_the_one_before_it_was()
    {
        var told = k8s.KubernetesJson.Deserialize<GpuNodeStatus>(k8s.KubernetesJson.Serialize(After(Round(0), Round(10, With(1, Ecc)))));

        var status = NodeReport.Next(told, Round(100, With(1, Ecc)));

        Assert.Equal((At(10), At(0)), (status.Devices![1].Since, status.Devices[1].LastHealthyTime));
        Assert.Empty(status.Outages!);
    }

    [Fact]
    public void A_time_in_which_nobody_looked_is_an_outage_of_what_was_healthy_and_of_nothing_else()
    {
        var status = NodeReport.Next(After(Round(0), Round(10, With(1, Ecc))), Round(10 + 181, With(1, Ecc)));

        Assert.Equal(
            [0, 2, 3],
            status.Outages!.Select(outage => int.Parse(outage.Uuid[^1..], System.Globalization.CultureInfo.InvariantCulture)));
        Assert.All(status.Outages!, outage => Assert.Equal(
            (GpuHealth.Unknown, "NotObserved", At(10), At(10), At(191)),
            (outage.Health, outage.Reason, outage.LastHealthyTime, outage.From, outage.Until)));
        Assert.Equal([At(191), At(10), At(191), At(191)], status.Devices!.Select(device => device.Since));
    }

    [Fact]
    public void A_short_restart_is_no_outage()
    {
        Assert.Empty(NodeReport.Next(After(Round(0)), Round(180)).Outages!);
    }

    [Theory]
    [InlineData(DriverState.Unresponsive, GpuHealth.Unknown, "Unresponsive", "Unknown")]
    [InlineData(DriverState.NoDriver, GpuHealth.Unknown, "NoDriver", "Unknown")]
    [InlineData(DriverState.Failed, GpuHealth.Unhealthy, "Failed", "False")]
    [InlineData(DriverState.NoDevice, GpuHealth.Unhealthy, "Lost", "False")]
    [InlineData(DriverState.Zombie, GpuHealth.Unhealthy, "Lost", "False")]
    public void A_driver_that_names_no_gpu_makes_none_of_them_healthy(DriverState driver, string health, string reason, string read)
    {
        var status = After(Round(0), Round(10, [], driver));

        Assert.Equal((4, 0, 0), (status.Gpus, status.HealthyGpus, status.FreeGpus));
        Assert.All(status.Devices!, device => Assert.Equal((health, reason, At(10), At(0)), (device.Health, device.Reason, device.Since, device.LastHealthyTime)));
        Assert.Equal($"{read} {driver} the driver is {driver}", Condition(status, ConditionTypes.DevicesRead));
        Assert.Equal($"False {driver} the driver is {driver}", Condition(status, ConditionTypes.Ready));
        Assert.Equal("550.54.15", status.DriverVersion);
    }

    [Fact]
    public void A_gpu_that_is_not_listed_after_a_restart_is_lost_and_stays_until_a_day_is_over()
    {
        var three = Whole[..3];
        var lost = After(Round(0), Round(10, three)).Devices![3];
        Assert.Equal((GpuHealth.Unhealthy, "Lost", At(0)), (lost.Health, lost.Reason, lost.LastHealthyTime));
        Assert.Equal("NVIDIA-H100-80GB-HBM3", lost.Product);

        var held = Held(("trainer-0", "uid-0", [Gpu(3)]));
        const int Day = 24 * 60 * 60;
        var stillHeld = After(Round(0), Round(10, three, allocations: held), Round(10 + Day + 1, three, allocations: held));
        Assert.Equal(4, stillHeld.Devices!.Count);
        var forgotten = NodeReport.Next(After(Round(0), Round(10, three), Round(20, three)), Round(10 + Day + 1, three));
        Assert.Equal(3, forgotten.Devices!.Count);
        Assert.Equal((Gpu(3), GpuHealth.Unhealthy, "Lost", At(0), At(10), At(10 + Day + 1)), Spoken(forgotten.Outages!.Single(each => each.Uuid == Gpu(3))));
    }

    [Fact]
    public void A_gpu_in_the_place_of_another_ends_the_other()
    {
        Device[] exchanged = [.. Whole[..3], Device(7) with { Index = 3, Replaces = new DeviceUuid(Gpu(3)) }];

        var status = After(Round(0), Round(10), Round(20, exchanged));

        Assert.Equal([Gpu(0), Gpu(1), Gpu(2), Gpu(7)], status.Devices!.Select(device => device.Uuid));
        Assert.Equal((Gpu(3), GpuHealth.Unhealthy, "Replaced", At(10), At(20), At(20)), Spoken(Assert.Single(status.Outages!)));
    }

    [Fact]
    public void A_gpu_without_an_identity_is_listed_and_told_of()
    {
        var status = After(Round(0, [.. Whole[..3], new Device { Index = 3, Health = Lost }]));

        Assert.Equal((4, 3), (status.Gpus, status.HealthyGpus));
        Assert.Equal("False SomeNotHealthy 1 of 4 GPUs: number 3 is Unhealthy (Lost)", Condition(status, ConditionTypes.Ready));
    }

    [Fact]
    public void The_newest_outages_are_kept_and_it_is_told_until_when_others_were_dropped()
    {
        var rounds = Enumerable.Range(0, 131).SelectMany(i => new[] { Round(20 * i), Round((20 * i) + 10, With(0, Ecc)) });

        var status = After([.. rounds, Round(20 * 131)]);

        Assert.Equal(Formats.MaxOutages, status.Outages!.Count);
        Assert.Equal(At(20 * 131), status.Outages[^1].Until);
        Assert.Equal(At(20 * 3), status.OutagesDroppedUntil);
        Assert.Equal(At(20 * 4), status.Outages[0].Until);
    }

    [Fact]
    public void What_a_pod_holds_is_not_free_whether_or_not_it_is_certain_which_pod_it_is()
    {
        var status = After(Round(0, With(3, Ecc), allocations: Held(("trainer-0", "uid-0", [Gpu(0)]), ("trainer-1", null, [Gpu(1)]))));

        Assert.Equal(1, status.FreeGpus);
        Assert.Equal(
            [("uid-0", "team-a", "trainer-0", "main"), (null, "team-a", "trainer-1", "main")],
            status.Allocations!.Select(each => (each.PodUid, each.PodNamespace, each.PodName, each.Container)));
    }

    [Fact]
    public void A_mig_instance_that_is_held_makes_its_gpu_not_free()
    {
        var mig = Device(0) with { MigEnabled = true, MigInstances = [new MigInstance(0, new DeviceUuid("MIG-0-1"), "1g.10gb", 10_200_547_328, null)] };

        var status = After(Round(0, [mig, .. Whole[1..]], allocations: Held(("trainer-0", "uid-0", ["MIG-0-1"]))));

        Assert.Equal(3, status.FreeGpus);
        Assert.Equal(("MIG-0-1", "1g.10gb", 9728L), Assert.Single(status.Devices![0].MigInstances!) is var part ? (part.Uuid, part.Name, part.MemoryMiB) : default);
    }

    [Fact]
    public void An_allocation_says_since_when_this_very_pod_holds_these_very_gpus()
    {
        var status = After(
            Round(0, allocations: Held(("trainer-0", "uid-0", [Gpu(0)]), ("other", "uid-1", [Gpu(1)]))),
            Round(10, allocations: Held(("trainer-0", "uid-0", [Gpu(0)]), ("other", "uid-2", [Gpu(1)]))),
            Round(20, allocations: Held(("trainer-0", "uid-0", [Gpu(0)]), ("other", "uid-2", [Gpu(1)]))));

        Assert.Equal([At(0), At(10)], status.Allocations!.Select(each => each.Since));
    }

    [Fact]
    public void A_kubelet_that_is_silent_leaves_the_last_known_allocations_and_no_gpu_counted_free()
    {
        var status = After(
            Round(0, allocations: Held(("trainer-0", "uid-0", [Gpu(0)]))), Round(10, allocations: new AllocationReading.Unknown("no such file")));

        Assert.Equal("uid-0", Assert.Single(status.Allocations!).PodUid);
        Assert.Null(status.FreeGpus);
        Assert.Equal("Unknown KubeletSilent no such file", Condition(status, ConditionTypes.AllocationsKnown));
        Assert.Equal(At(10).UtcDateTime, Transition(status, ConditionTypes.AllocationsKnown));
    }

    private static (string, string, string?, DateTimeOffset?, DateTimeOffset?, DateTimeOffset?) Spoken(GpuOutage outage) =>
        (outage.Uuid, outage.Health, outage.Reason, outage.LastHealthyTime, outage.From, outage.Until);

    private static string Condition(GpuNodeStatus status, string type) =>
        status.Conditions!.Single(each => each.Type == type) is var condition ? $"{condition.Status} {condition.Reason} {condition.Message}" : "";

    private static DateTime? Transition(GpuNodeStatus status, string type) => status.Conditions!.Single(each => each.Type == type).LastTransitionTime;
}
