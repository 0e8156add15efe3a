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
        foreach (var microseconds in new[] { 1_500_000L, 60_000_000, 61_000_007, 1_799_999_999 })
        {
            await Meter.SettleAsync(Acme, T0 + TimeSpan.FromMicroseconds(microseconds), Cancellation);
        }

        var held = TimeSpan.FromMicroseconds(3_599_123_456L);
        Assert.True(await Runs.CloseAsync(pod, T0 + held, Cancellation));

        var due = Rating.Due(held, Money.Parse("2.50"), 3);
        Assert.Equal(Money.Parse("100") - due, await PostedAsync());
        Assert.Equal(-due, await SumAsync(MovementType.GpuUsage));
    }

    [Fact]
    public async Task Windows_tile_a_run_from_its_start_to_its_end_without_gap_or_overlap()
    {
        await OpenAsync(Acme, "1000.00");
        var (_, pod) = await RunAsync(3, T0);
        // Out of order, repeated, and across a change of price.
        foreach (var seconds in new[] { 1.5, 60, 60, 30, 61.000007, 900.25 }) await Meter.SettleAsync(Acme, T0.AddSeconds(seconds), Cancellation);
        await PublishAsync(T0.AddSeconds(1200.5), (H100, "3.75"), (L40S, "1.00"));
        foreach (var seconds in new[] { 1800.0, 1799, 3000.125 }) await Meter.SettleAsync(Acme, T0.AddSeconds(seconds), Cancellation);
        var end = T0.AddMicroseconds(3_599_123_456);
        Assert.True(await Runs.CloseAsync(pod, end, Cancellation));

        var windows = (await Transactions.ListAsync(Acme, null, 1000, Cancellation))
            .Where(transaction => transaction.Type == nameof(MovementType.GpuUsage))
            .Select(transaction => System.Text.Json.JsonDocument.Parse(transaction.Details).RootElement)
            .Select(details => (From: details.GetProperty("windowStart").GetDateTimeOffset(), To: details.GetProperty("windowEnd").GetDateTimeOffset()))
            .OrderBy(window => window.From).ToList();

        Assert.True(windows.Count >= 7, $"{windows.Count} windows");
        Assert.Equal(T0, windows[0].From);
        Assert.Equal(end, windows[^1].To);
        Assert.All(windows.Zip(windows.Skip(1)), pair => Assert.Equal(pair.First.To, pair.Second.From));
        Assert.Contains(windows, window => window.To == T0.AddSeconds(1200.5));
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

    [Fact]
    public async Task Settling_twice_or_at_once_charges_once()
    {
        await OpenAsync(Acme, "100.00");
        for (var i = 0; i < 5; i++) await RunAsync(1, T0.AddSeconds(i));
        var until = T0.AddMinutes(10);
        var settlements = await Task.WhenAll(
            Enumerable.Range(0, 20).Select(i => Task.Run(() => Meter.SettleAsync(Acme, until.AddSeconds(-(i % 3)), Cancellation))));
        Assert.Equal(Settlement.Nothing, await Meter.SettleAsync(Acme, until, Cancellation));

        var due = Enumerable.Range(0, 5)
            .Select(i => Rating.Due(TimeSpan.FromMinutes(10) - TimeSpan.FromSeconds(i), Money.Parse("2.50"), 1))
            .Aggregate(Money.Zero, (sum, cost) => sum + cost);
        Assert.Equal(due, settlements.Aggregate(Money.Zero, (sum, settlement) => sum + settlement.Charged));
        Assert.Equal(Money.Parse("100.00") - due, await PostedAsync());
        Assert.Equal((await StandingAsync()).Posted, (await StandingAsync()).Balance(until));
    }

    [Fact]
    public async Task A_settlement_never_takes_more_than_there_is()
    {
        await OpenAsync(Acme, "10.00");
        await RunAsync(4, T0);
        await Meter.SettleAsync(Acme, T0.AddHours(9), Cancellation);
        Assert.Equal(Money.Zero, await PostedAsync());
        Assert.Equal(T0.AddHours(1), (await StandingAsync()).ExhaustsAt);
        Assert.Equal(Settlement.Nothing, await Meter.SettleAsync(new("nobody"), T0, Cancellation));
    }

    [Fact]
    public async Task Random_stories_end_with_a_balance_at_or_above_zero_and_charges_that_equal_time_by_price()
    {
        var random = new Random(20260301);
        for (var story = 0; story < 12; story++)
        {
            var account = new AccountId($"story-{story}");
            await OpenAsync(account, "0.00");
            await Ledger.PostAsync(
                Movements.CreditGrant(account, new(random.NextInt64(18_000_000_000, 60_000_000_000)), "start", "tests", "x"), Cancellation);
            var short1 = Policy with { HoldWindow = TimeSpan.FromSeconds(1) };
            var runs = new List<(PodId Pod, int Gpus, DateTimeOffset From)>();
            for (var i = 0; i < random.Next(1, 6); i++)
            {
                var (gpus, from) = (random.Next(1, 9), T0.AddTicks(random.NextInt64(0, 600_000_000) * 10));
                var (_, pod) = await RunAsync(gpus, from, account, short1);
                runs.Add((pod, gpus, from));
            }

            var now = T0.AddMinutes(10);
            Suspension? suspension = null;
            while (suspension is null)
            {
                now += TimeSpan.FromMicroseconds(random.NextInt64(1, 1_200_000_000));
                if (random.Next(2) == 0) await Meter.SettleAsync(account, now, Cancellation);
                suspension = await Meter.SuspendIfExhaustedAsync(account, Policy, now, Cancellation);
            }

            var due = runs.Aggregate(Money.Zero, (sum, run) => sum + Rating.Due(suspension.At - run.From, Money.Parse("2.50"), run.Gpus));
            Assert.Equal(-due, await SumAsync(MovementType.GpuUsage, $"customer:{account}"));
            var left = await PostedAsync(account);
            // One more microsecond of everything would have cost more than what is left.
            Assert.InRange(left.Nanos, 0, runs.Sum(run => run.Gpus) + runs.Count);
        }
    }

    [Fact]
    public async Task What_an_outage_let_run_past_zero_is_written_off_and_never_touches_the_customer()
    {
        await OpenAsync(Acme, "10.00");
        await RunAsync(3, T0);
        await RunAsync(1, T0);
        var suspension = await Meter.SuspendIfExhaustedAsync(Acme, Policy, T0.AddHours(3), Cancellation);
        Assert.Equal((T0.AddHours(1), Money.Parse("20.00")), (suspension!.At, suspension.Uncollected));
        Assert.Equal(2, suspension.Deployments.Count);
        Assert.Equal(Money.Zero, await PostedAsync());
        Assert.Equal(Money.Parse("-20.00"), await SumAsync(MovementType.Uncollected, "expense:uncollected"));
        Assert.Equal(Money.Parse("20.00"), await SumAsync(MovementType.Uncollected, "revenue:gpu"));
        Assert.Equal(20m, await ScalarAsync<decimal>("select uncollected from v_suspension"));
        Assert.Equal(2L, await ScalarAsync<long>(
            "select jsonb_array_length(details -> 'pods')::bigint from ledger_transaction where type = 'Uncollected'"));
    }

    [Fact]
    public async Task Within_the_tolerance_nothing_is_written_off_because_draining_is_free()
    {
        await OpenAsync(Acme, "10.00");
        await RunAsync(4, T0);
        Assert.Equal(Money.Zero,
            (await Meter.SuspendIfExhaustedAsync(Acme, Policy, T0.AddHours(1).AddSeconds(5), Cancellation))!.Uncollected);
    }

    [Fact]
    public async Task Two_operators_that_suspend_at_once_do_it_once()
    {
        await OpenAsync(Acme, "10.00");
        await RunAsync(4, T0);
        var suspensions = await Task.WhenAll(
            Enumerable.Range(0, 10).Select(_ => Task.Run(() => Meter.SuspendIfExhaustedAsync(Acme, Policy, T0.AddHours(2), Cancellation))));
        Assert.Single(suspensions, suspension => suspension is not null);
        Assert.Equal(1L, await ScalarAsync<long>("select count(*) from suspension"));
        Assert.Equal(Money.Parse("-10.00"), await SumAsync(MovementType.Uncollected, "expense:uncollected"));
    }

    [Fact]
    public async Task A_pod_that_ended_after_the_balance_did_is_charged_to_where_the_balance_ended_and_the_rest_is_written_off()
    {
        await OpenAsync(Acme, "10.00");
        var (_, pod) = await RunAsync(4, T0);
        // The operator was away when the balance ran out, and hears of the pod's end first.
        Assert.True(await Runs.CloseAsync(pod, T0.AddHours(2), Cancellation));
        Assert.Equal(Money.Zero, await PostedAsync());
        Assert.Equal(Money.Parse("-10.00"), await SumAsync(MovementType.Uncollected, "expense:uncollected"));
        var suspension = await Meter.SuspendIfExhaustedAsync(Acme, Policy, T0.AddHours(2), Cancellation);
        Assert.Equal(Money.Zero, suspension!.Uncollected);
        Assert.Empty((await StandingAsync()).Holds);
        Assert.Null(await Meter.SuspendIfExhaustedAsync(Acme, Policy, T0.AddHours(2), Cancellation));
    }

    [Fact]
    public async Task Suspending_one_deployment_leaves_the_others_and_does_not_charge_its_draining()
    {
        await OpenAsync(Acme, "100.00");
        var (stopped, pod) = await RunAsync(4, T0);
        var (other, _) = await RunAsync(1, T0);
        var at = T0.AddMinutes(30);
        var suspension = await Meter.SuspendAsync(stopped, at, nameof(RefusalReason.NoValidCard), Policy, at.AddSeconds(1), Cancellation);
        Assert.Equal([stopped], suspension.Deployments);
        Assert.Equal(Money.Parse("95.00"), await PostedAsync());
        Assert.Equal([other], (await StandingAsync()).Holds.Select(hold => hold.Deployment));
        Assert.Equal("NoValidCard", await ScalarAsync<string>("select reason from v_suspension"));

        Assert.Empty((await Meter.SuspendAsync(stopped, at.AddSeconds(9), Cancellation)).Deployments);
        Assert.True(await Runs.CloseAsync(pod, at.AddSeconds(40), Cancellation));
        Assert.Equal(Money.Parse("5.00"), (await Accounts.ReadStandingAsync(Acme, stopped, Cancellation))!.SettledCost);
    }

    [Fact]
    public async Task A_suspension_at_an_instant_that_is_settled_already_gives_nothing_back()
    {
        await OpenAsync(Acme, "100.00");
        var (deployment, _) = await RunAsync(4, T0);
        await Meter.SettleAsync(Acme, T0.AddMinutes(30), Cancellation);
        await Meter.SuspendAsync(deployment, T0.AddMinutes(1), Cancellation);
        Assert.Equal(Money.Parse("95.00"), await PostedAsync());
    }

    [Fact]
    public async Task A_pod_that_had_ended_before_the_suspension_gets_the_difference_back()
    {
        await OpenAsync(Acme, "10.00");
        var (_, pod) = await RunAsync(4, T0);
        await Meter.SuspendIfExhaustedAsync(Acme, Policy, T0.AddHours(1), Cancellation);
        Assert.True(await Runs.CloseAsync(pod, T0.AddMinutes(45), Cancellation));
        Assert.Equal(Money.Parse("2.50"), await PostedAsync());
    }

    [Fact]
    public async Task After_a_top_up_it_starts_again_and_the_time_in_between_is_free()
    {
        await OpenAsync(Acme, "10.00");
        var (deployment, pod) = await RunAsync(4, T0);
        await Meter.SuspendIfExhaustedAsync(Acme, Policy, T0.AddHours(1), Cancellation);
        await Runs.CloseAsync(pod, T0.AddHours(1).AddSeconds(20), Cancellation);
        var later = T0.AddHours(5);
        Assert.IsType<Verdict.Refuse>(await Holds.PlaceAsync(Ask(deployment, 4), Policy, later, Cancellation));
        await TopUps.ChargeAsync(Acme, Money.Parse("20.00"), "pm_card_visa", "again", Cancellation);
        Assert.IsType<Verdict.Admit>(await Holds.PlaceAsync(Ask(deployment, 4), Policy, later, Cancellation));
        await Runs.OpenAsync(Start(deployment, NewPod(), 4, later), Cancellation);
        Assert.Equal(later.AddHours(2), (await StandingAsync()).ExhaustsAt);
    }

    [Fact]
    public async Task Spending_is_summed_by_the_end_of_each_window_less_corrections()
    {
        await OpenAsync(Acme, "1000.00");
        var (_, pod) = await RunAsync(4, T0);
        foreach (var hours in new[] { 1, 30, 24 * 9, 24 * 9 + 1 }) await Meter.SettleAsync(Acme, T0.AddHours(hours), Cancellation);
        var spending = new Spending(Database);
        var now = T0.AddHours(24 * 9 + 1);
        // Windows that end at 1 h ($10), at 30 h ($290), and at 100 h, where the balance ends ($700).
        Assert.Equal(
            new SpendingSummary(Money.Zero, Money.Parse("700.00"), Money.Parse("1000.00")),
            await spending.SummaryAsync(Acme, now, Cancellation));
        Assert.Equal(Money.Parse("300.00"), (await spending.OverviewAsync(Acme, T0.AddHours(30), Cancellation))!.Spending.MonthToDate);
        Assert.Equal(Money.Zero, (await spending.OverviewAsync(Acme, T0.AddMonths(1), Cancellation))!.Spending.MonthToDate);
        Assert.True(await Runs.CloseAsync(pod, T0.AddHours(99), Cancellation));
        Assert.Equal(Money.Parse("990.00"), (await spending.SummaryAsync(Acme, now, Cancellation))!.Last30Days);
        Assert.Null(await spending.SummaryAsync(new("nobody"), now, Cancellation));
    }
}
