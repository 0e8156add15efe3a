using Tensormesh.Billing;
using Tensormesh.Operator.Reconciling;
using Tensormesh.Resources;

namespace Tensormesh.Operator.Tests;

public sealed class HeldDevicesTests
{
    private static readonly Guid Pod = Guid.Parse("33333333-3333-3333-3333-333333333333");

    [Fact]
    public void A_pod_holds_what_all_its_containers_hold_and_nothing_of_a_namesake()
    {
        var status = Status(Holds("main", "GPU-1"), Holds("side", "GPU-0", "GPU-1"));
        status.Allocations!.Add(new GpuAllocation { PodUid = null, PodNamespace = "team-a", PodName = "trainer-1", Gpus = ["GPU-3"] });
        Assert.Equal(["GPU-0", "GPU-1"], HeldDevices.Of(Pod.ToString(), "gpu-a", status)!.Gpus);
        Assert.Null(HeldDevices.Of(Guid.NewGuid().ToString(), "gpu-a", status));
    }

    [Fact]
    public void Only_gpus_of_the_pod_are_amiss_with_it_also_by_a_part_of_them()
    {
        var status = Status(Holds("main", "MIG-0"));
        status.Devices![1].MigInstances = [new GpuMigInstance { Uuid = "MIG-0" }];
        (status.Devices[0].Health, status.Devices[0].Reason) = (GpuHealth.Unhealthy, "Lost");
        Assert.Empty(HeldDevices.Of(Pod.ToString(), "gpu-a", status)!.Amiss);

        (status.Devices[1].Health, status.Devices[1].Reason) = (GpuHealth.Unknown, "Unresponsive");
        var held = HeldDevices.Of(Pod.ToString(), "gpu-a", status)!;
        Assert.Equal(["GPU-1 of gpu-a is Unknown (Unresponsive)"], held.Amiss);
        Assert.False(held.Failed);
    }

    [Fact]
    public void Only_pods_of_which_something_else_is_said_are_looked_at_again()
    {
        var before = Status(Holds("main", "GPU-1"));
        var later = Status(Holds("main", "GPU-1"));
        later.HeartbeatTime = A.Noon.AddMinutes(1);
        Assert.Empty(HeldDevices.Changed(before, later));

        (later.Devices![0].Health, later.Devices[0].Reason) = (GpuHealth.Unhealthy, "Lost");
        Assert.Empty(HeldDevices.Changed(before, later));
        (later.Devices[1].Health, later.Devices[1].Reason) = (GpuHealth.Unhealthy, "Lost");
        Assert.Equal(["team-a/trainer-1"], HeldDevices.Changed(before, later));
        Assert.Equal(["team-a/trainer-1"], HeldDevices.Changed(before, null));
        Assert.Equal(["team-a/trainer-1"], HeldDevices.Changed(null, before));
    }

    [Fact]
    public void What_failed_is_evidence_and_what_nobody_could_see_is_none()
    {
        var status = Status();
        var device = status.Devices![1];
        (device.Health, device.Reason, device.Message, device.Since, device.LastHealthyTime) =
            (GpuHealth.Unhealthy, "Lost", "fell off the bus", A.Noon, A.Noon.AddSeconds(-10));
        (status.Devices[2].Health, status.Devices[2].Since) = (GpuHealth.Unknown, A.Noon);
        status.Outages =
        [
            new GpuOutage { Uuid = "GPU-3", Health = GpuHealth.Unhealthy, Reason = "Xid", From = A.Noon.AddHours(-1), Until = A.Noon.AddMinutes(-50) },
            new GpuOutage { Uuid = "GPU-3", Health = GpuHealth.Unknown, Reason = "Unresponsive", From = A.Noon.AddHours(-2), Until = A.Noon.AddHours(-1) },
        ];

        var faults = GpuNodeReconciler.Faults("gpu-a", status);
        Assert.Collection(
            faults,
            now => Assert.Equal(("GPU-1", "Lost", A.Noon.AddSeconds(-10), A.Noon, null), (now.Gpu, now.Reason, now.LastHealthyAt, now.SeenAt, now.RecoveredAt)),
            then => Assert.Equal(("GPU-3", "Xid", null, A.Noon.AddHours(-1), A.Noon.AddMinutes(-50)), (then.Gpu, then.Reason, then.LastHealthyAt, then.SeenAt, then.RecoveredAt)));
    }

    [Fact]
    public void Pods_that_held_what_failed_and_are_gone_are_known_by_it_and_those_that_still_hold_gpus_by_all_they_hold()
    {
        var gone = Guid.NewGuid();
        var status = Status(Holds("main", "GPU-1", "GPU-2"));
        (status.Devices![1].Health, status.Devices[1].HeldBy) = (GpuHealth.Unhealthy, [Pod.ToString(), gone.ToString()]);
        (status.Devices[3].Health, status.Devices[3].HeldBy) = (GpuHealth.Unknown, [Guid.NewGuid().ToString()]);
        status.Outages = [new GpuOutage { Uuid = "GPU-0", Health = GpuHealth.Unhealthy, HeldBy = [gone.ToString()] }];

        var victim = Assert.Single(GpuNodeReconciler.Victims(status, [new HeldGpus(new PodId(Pod), ["GPU-1", "GPU-2"])]));
        Assert.Equal((new PodId(gone), "GPU-0 GPU-1"), (victim.Pod, string.Join(' ', victim.Gpus)));
    }

    [Fact]
    public void The_condition_says_whether_what_is_paid_for_works_and_by_whose_word()
    {
        var pod = new PodId(Pod);
        Assert.Equal("True AllHealthy", Verified(pod, new HeldDevices(["GPU-1"], [], Failed: false)));
        Assert.Equal("False GpuUnhealthy", Verified(pod, new HeldDevices(["GPU-1"], ["GPU-1 of gpu-a is Unhealthy (Lost)"], Failed: true)));
        Assert.Equal("Unknown NotObserved", Verified(pod, new HeldDevices(["GPU-1"], ["GPU-1 of gpu-a is Unknown (Unresponsive)"], Failed: false)));
        Assert.Equal("Unknown NotObserved", Verified(pod, null));
    }

    [Fact]
    public void Without_agents_nothing_is_said_of_gpus()
        => Assert.Null(Decide(A.Seen(standing: A.Standing(hold: A.Hold()), pods: [A.Pod(Pod, started: A.Noon.AddMinutes(-1))])));

    private static string Verified(PodId pod, HeldDevices? held)
    {
        var seen = A.Seen(standing: A.Standing(hold: A.Hold()), pods: [A.Pod(Pod, started: A.Noon.AddMinutes(-1))]) with
        {
            HasAgents = true,
            Devices = held is null ? new Dictionary<PodId, HeldDevices>() : new Dictionary<PodId, HeldDevices> { [pod] = held },
        };
        var condition = Decide(seen)!;
        return $"{condition.Status switch { true => "True", false => "False", null => "Unknown" }} {condition.Reason}";
    }

    private static ConditionReport? Decide(Observation seen)
        => Decider.Decide(seen, A.Policy).Report!.Conditions.FirstOrDefault(condition => condition.Type == ConditionTypes.GpuVerified);

    private static GpuNodeStatus Status(params GpuAllocation[] allocations)
    {
        var status = NodeOfferTests.Seen(4).Status!;
        status.Allocations = [.. allocations];
        return status;
    }

    private static GpuAllocation Holds(string container, params string[] gpus) => new()
    {
        PodUid = Pod.ToString(),
        PodNamespace = "team-a",
        PodName = "trainer-1",
        Container = container,
        Gpus = gpus,
    };
}
