using Tensormesh.Billing;

namespace Tensormesh.Integration.Tests.Billing;

public sealed class MeterTests(PostgresFixture postgres) : BillingTest(postgres)
{
    public override async ValueTask InitializeAsync()
    {
        await base.InitializeAsync();
        await PublishAsync(T0.AddDays(-1), (H100, "2.50"), (L40S, "1.00"));
    }

    [Fact]
    public async Task Charges_the_exact_price_of_a_run_however_it_was_settled()
    {
        await OpenAsync(Acme, "100.00");
        var (_, pod) = await RunAsync(3, T0);
        foreach (var seconds in new[] { 1.5, 60, 61.000007, 1799.999999 }) await Meter.SettleAsync(Acme, T0.AddSeconds(seconds), Cancellation);
        Assert.True(await Runs.CloseAsync(pod, T0.AddSeconds(3599.123456), Cancellation));

        var due = Rating.Due(TimeSpan.FromSeconds(3599.123456), Money.Parse("2.50"), 3);
        Assert.Equal(Money.Parse("100") - due, await PostedAsync());
        Assert.Equal(-due, await SumAsync(MovementType.GpuUsage));
    }

    [Fact]
    public async Task Suspends_at_the_exact_instant_of_exhaustion_and_charges_no_nano_beyond_the_balance()
    {
        await OpenAsync(Acme, "10.00");
        var (deployment, pod) = await RunAsync(4, T0);
        var exhausts = (await StandingAsync()).ExhaustsAt!.Value;
        Assert.Equal(T0.AddHours(1), exhausts);
        Assert.Null(await Meter.SuspendIfExhaustedAsync(Acme, Policy, exhausts.AddMicroseconds(-1), Cancellation));

        var suspension = await Meter.SuspendIfExhaustedAsync(Acme, Policy, exhausts.AddSeconds(1), Cancellation);
        Assert.NotNull(suspension);
        Assert.Equal(exhausts, suspension.At);
        Assert.Equal(Money.Zero, suspension.Uncollected);
        Assert.Equal([deployment], suspension.Deployments);
        Assert.Equal(Money.Zero, await PostedAsync());
        Assert.Empty((await StandingAsync()).Holds);
        Assert.Equal(exhausts, Assert.Single(await Runs.ListOpenAsync(deployment, Cancellation)).ChargeUntil);

        Assert.Null(await Meter.SuspendIfExhaustedAsync(Acme, Policy, exhausts.AddSeconds(2), Cancellation));
        Assert.True(await Runs.CloseAsync(pod, exhausts.AddSeconds(30), Cancellation));
        Assert.Equal(Money.Zero, await PostedAsync());
    }

    [Fact]
    public async Task Gives_back_what_was_settled_past_the_true_end_of_a_pod()
    {
        await OpenAsync(Acme, "10.00");
        var (_, pod) = await RunAsync(1, T0);
        await Meter.SettleAsync(Acme, T0.AddMinutes(30), Cancellation);
        Assert.True(await Runs.CloseAsync(pod, T0.AddMinutes(20), Cancellation));

        var due = Rating.Due(TimeSpan.FromMinutes(20), Money.Parse("2.50"), 1);
        Assert.Equal(Money.Parse("10") - due, await PostedAsync());
        Assert.Equal(Money.Parse("1.25") - due, await SumAsync(MovementType.GpuUsageCorrection));
        Assert.False(await Runs.CloseAsync(pod, T0.AddMinutes(10), Cancellation));
    }
}
