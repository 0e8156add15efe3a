using static Tensormesh.Billing.Tests.Given;

namespace Tensormesh.Billing.Tests;

/// <summary>Which runs a fault ends, and where. Times are seconds from a beginning.</summary>
public sealed class GpuFaultTests
{
    [Theory]
    [InlineData(0, 50, 60, 50)]
    [InlineData(55, 50, 60, 55)]
    [InlineData(70, 50, 60, 70)]
    [InlineData(0, null, 60, 60)]
    [InlineData(70, null, 60, 70)]
    // The node's clock stepped back between the two observations.
    [InlineData(0, 65, 60, 60)]
    public void A_run_pays_until_its_gpu_was_last_seen_well_and_never_until_before_its_start(int started, int? healthy, int seen, int until)
        => Assert.Equal(At(until), Fault(healthy, seen, null).HealthyUntil(At(started)));

    [Theory]
    [InlineData(0, 40, null, null, true)]
    [InlineData(0, 80, 80, null, true)]
    [InlineData(0, 51, null, 51, true)]
    // Ended, or stopped, where the GPU was last seen well or before.
    [InlineData(0, 50, 50, null, false)]
    [InlineData(0, 30, 80, 30, false)]
    [InlineData(0, 50, null, 50, false)]
    // It began after the fault was seen: before it was over, in the instant at which it was over, and after it.
    [InlineData(99, 99, null, null, true)]
    [InlineData(100, 100, null, null, false)]
    [InlineData(101, 130, 130, null, false)]
    // It ended in the instant in which it began.
    [InlineData(70, 70, 70, null, false)]
    public void A_fault_ends_what_is_charged_past_its_last_healthy_observation(int started, int settled, int? ended, int? chargeUntil, bool ends)
    {
        var run = new Run
        {
            Pod = new(Guid.NewGuid()),
            PodName = "train-abc",
            Deployment = Deployment,
            DeploymentName = "train",
            Namespace = "team-a",
            Account = Acme,
            Node = "gpu-a",
            Product = H100,
            Gpus = 1,
            StartedAt = At(started),
            PriceVersion = new(1),
            PerGpuHour = Dollars("2.50"),
            RatedFrom = At(started),
            Rated = Money.Zero,
            Total = Money.Zero,
            SettledUntil = At(settled),
            EndedAt = ended is { } end ? At(end) : null,
            ChargeUntil = chargeUntil is { } stop ? At(stop) : null,
        };
        Assert.Equal(ends, Fault(50, 60, 100).Ends(run));
    }

    private static DateTimeOffset At(int seconds) => Now.AddSeconds(seconds);

    private static GpuFault Fault(int? healthy, int seen, int? recovered) => new()
    {
        Gpus = ["GPU-a"],
        Gpu = "GPU-a",
        Node = "gpu-a",
        Reason = "Lost",
        Message = "it is gone",
        LastHealthyAt = healthy is { } last ? At(last) : null,
        SeenAt = At(seen),
        RecoveredAt = recovered is { } again ? At(again) : null,
    };
}
