using Tensormesh.Billing;

namespace Tensormesh.Integration.Tests.Billing;

public sealed class RunIntervalsTests(PostgresFixture postgres) : BillingTest(postgres)
{
    public override async ValueTask InitializeAsync()
    {
        await base.InitializeAsync();
        await PublishAsync(T0.AddDays(-1), (H100, "2.50"));
    }

    [Fact]
    public async Task The_first_start_recorded_stays()
    {
        await OpenAsync(Acme, "10.00");
        var (deployment, pod) = (NewDeployment(), NewPod());
        var starts = await Task.WhenAll(
            Enumerable.Range(0, 10).Select(i => Task.Run(() => Runs.OpenAsync(Start(deployment, pod, 1, T0.AddTicks(7)), Cancellation))));
        Assert.Single(starts, first => first);
        Assert.Equal(new OpenRun(pod, deployment, Acme, T0, null), Assert.Single(await Runs.ListOpenAsync(Cancellation)));
        Assert.False(await Runs.OpenAsync(Start(deployment, pod, 4, T0.AddHours(1)), Cancellation));
    }

    [Fact]
    public async Task The_first_end_recorded_stays_and_unknown_pods_are_ignored()
    {
        await OpenAsync(Acme, "10.00");
        var (_, pod) = await RunAsync(1, T0);
        var ends = await Task.WhenAll(
            Enumerable.Range(0, 10).Select(_ => Task.Run(() => Runs.CloseAsync(pod, T0.AddMinutes(12), Cancellation))));
        Assert.Single(ends, ended => ended);
        Assert.Equal(Money.Parse("9.50"), await PostedAsync());
        Assert.False(await Runs.CloseAsync(NewPod(), T0, Cancellation));
        Assert.Empty(await Runs.ListOpenAsync(Cancellation));
    }

    [Fact]
    public async Task A_pod_that_ends_before_it_began_costs_nothing()
    {
        await OpenAsync(Acme, "10.00");
        var (_, pod) = await RunAsync(1, T0);
        Assert.True(await Runs.CloseAsync(pod, T0.AddHours(-1), Cancellation));
        Assert.Equal(Money.Parse("10.00"), await PostedAsync());
    }

    [Fact]
    public async Task A_settlement_and_an_end_at_once_charge_the_time_once()
    {
        await OpenAsync(Acme, "100.00");
        for (var round = 0; round < 10; round++)
        {
            var (_, pod) = await RunAsync(1, T0);
            await Task.WhenAll(
                Task.Run(() => Runs.CloseAsync(pod, T0.AddMinutes(12), Cancellation)),
                Task.Run(() => Meter.SettleAsync(Acme, T0.AddMinutes(18), Cancellation)));
        }

        Assert.Equal(Money.Parse("95.00"), await PostedAsync());
    }

    [Fact]
    public async Task A_start_without_any_price_or_account_is_an_error_that_says_so()
    {
        await OpenAsync(Acme, "10.00");
        var noPrice = await Assert.ThrowsAsync<InvalidOperationException>(
            () => Runs.OpenAsync(Start(NewDeployment(), NewPod(), 1, T0, product: L40S), Cancellation));
        Assert.Contains("no PriceBook ever named a price", noPrice.Message, StringComparison.Ordinal);
        var noAccount = await Assert.ThrowsAsync<InvalidOperationException>(
            () => Runs.OpenAsync(Start(NewDeployment(), NewPod(), 1, T0, new("nobody")), Cancellation));
        Assert.Contains("account nobody, which the ledger does not know", noAccount.Message, StringComparison.Ordinal);
        Assert.Empty(await Runs.ListOpenAsync(Cancellation));
    }

    [Fact]
    public async Task Declaring_an_account_again_records_its_policy_and_keeps_its_money()
    {
        await OpenAsync(Acme, "10.00");
        await Accounts.DeclareAsync(Acme, new("Acme Corp", Money.Parse("5.00"), TimeSpan.FromHours(2), "Europe/Berlin"), Cancellation);
        var standing = await StandingAsync();
        Assert.Equal((new AccountPolicy("Acme Corp", Money.Parse("5.00"), TimeSpan.FromHours(2), "Europe/Berlin"), Money.Parse("10.00")),
            (standing.Policy, standing.Posted));
        Assert.Equal([Acme], await Accounts.ListAsync(Cancellation));
        await Assert.ThrowsAsync<ArgumentException>(
            () => Accounts.DeclareAsync(Acme, new("Acme", null, null, "Mars/Olympus"), Cancellation));
        Assert.Null(await Accounts.ReadStandingAsync(new("nobody"), Cancellation));
        await Task.WhenAll(Enumerable.Range(0, 20).Select(_ => Task.Run(() => DeclareAsync(new("fresh")))));
        Assert.Equal(Money.Zero, await PostedAsync(new("fresh")));
    }

    [Fact]
    public async Task A_standing_carries_everything_that_runs_is_held_and_is_on_file()
    {
        await OpenAsync(Acme, "100.00");
        var (deployment, pod) = await RunAsync(3, T0);
        await Meter.SettleAsync(Acme, T0.AddMinutes(2), Cancellation);
        var standing = (await Accounts.ReadStandingAsync(Acme, deployment, Cancellation))!;
        Assert.Equal(
            new AccruingInterval(pod, deployment, H100, 3, Money.Parse("2.50"), T0, Money.Parse("0.25"), T0.AddMinutes(2)),
            Assert.Single(standing.Account.Intervals));
        Assert.Equal(new CreditHold(deployment, Acme, H100, 3, Money.Parse("2.50"), Money.Parse("7.25"), T0), standing.Hold);
        Assert.Equal(new Card("pm_card_visa", "Visa", "4242", 12, 2040, true, T0), Assert.Single(standing.Account.Cards.Cards));
        Assert.Equal(Money.Parse("0.25"), standing.SettledCost);
    }

    [Fact]
    public async Task A_start_that_is_told_after_the_balance_ended_and_the_price_changed_is_written_off_until_it_was_noticed()
    {
        var (deployment, pod) = await OpenBeforeAChangeAsync();
        await Runs.OpenAsync(Start(deployment, pod, 4, T0), null, T0.AddHours(3), Cancellation);
        Assert.Equal(T0.AddHours(1), Assert.Single(await Runs.ListOpenAsync(deployment, Cancellation)).ChargeUntil);
        // An hour of four GPUs at 2.50, and another at 6.00.
        Assert.Equal((Money.Zero, Money.Parse("-34.00")), (await PostedAsync(), await SumAsync(MovementType.Uncollected, "expense:uncollected")));
    }

    [Fact]
    public async Task A_start_that_is_told_with_its_end_is_written_off_until_that_end()
    {
        var (deployment, pod) = await OpenBeforeAChangeAsync();
        await Runs.OpenAsync(Start(deployment, pod, 4, T0), T0.AddMinutes(90), T0.AddHours(3), Cancellation);
        await Runs.CloseAsync(pod, T0.AddMinutes(90), Cancellation);
        Assert.Equal((Money.Zero, Money.Parse("-5.00")), (await PostedAsync(), await SumAsync(MovementType.Uncollected, "expense:uncollected")));
    }

    [Fact]
    public async Task A_start_that_is_told_with_an_end_which_the_balance_outlived_suspends_nothing()
    {
        var (deployment, pod) = await OpenBeforeAChangeAsync();
        await Runs.OpenAsync(Start(deployment, pod, 4, T0), T0.AddMinutes(30), T0.AddHours(3), Cancellation);
        await Runs.CloseAsync(pod, T0.AddMinutes(30), Cancellation);
        Assert.Equal((Money.Parse("5.00"), Money.Zero), (await PostedAsync(), await SumAsync(MovementType.Uncollected, "expense:uncollected")));
        Assert.Equal(0L, await ScalarAsync<long>("select count(*) from suspension"));
    }

    /// <summary>Four GPUs use up the balance in an hour, and their price changes in two.</summary>
    private async Task<(DeploymentId, PodId)> OpenBeforeAChangeAsync()
    {
        await PublishAsync(T0.AddDays(-1), (H100, "2.50"));
        await OpenAsync(Acme, "10.00");
        await PublishAsync(T0.AddHours(2), (H100, "6.00"));
        return (NewDeployment(), NewPod());
    }
}
