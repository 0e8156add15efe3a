using Tensormesh.Billing;

namespace Tensormesh.Integration.Tests.Billing;

public sealed class PricesTests(PostgresFixture postgres) : BillingTest(postgres)
{
    [Fact]
    public async Task Unchanged_prices_keep_their_version_and_changed_ones_get_a_new_one()
    {
        Assert.Equal(2, (await PublishAsync(T0, (H100, "2.50"), (L40S, "1.00"))).Count);
        Assert.Empty(await PublishAsync(T0.AddHours(1), (H100, "2.50"), (L40S, "1.00")));
        var written = Assert.Single(await PublishAsync(T0.AddHours(2), (H100, "3.00"), (L40S, "1.00")));
        var current = await Prices.CurrentAsync(Cancellation);
        Assert.Equal(new GpuPrice(written, H100, Money.Parse("3.00"), T0.AddHours(2)), current[H100]);
        Assert.Equal(T0, current[L40S].EffectiveAt);
    }

    [Fact]
    public async Task A_price_that_is_left_out_is_withdrawn_from_its_own_book_only()
    {
        await PublishAsync(T0, (H100, "2.50"), (L40S, "1.00"));
        await Prices.PublishAsync("other", new Dictionary<GpuProduct, Money> { [L40S] = Money.Parse("0.90") }, [], T0, Cancellation);
        Assert.Single(await PublishAsync(T0.AddHours(1), (L40S, "1.00")));
        Assert.Equal([L40S], (await Prices.CurrentAsync(Cancellation)).Keys);
        await PublishAsync(T0.AddHours(2));
        Assert.Equal(Money.Parse("0.90"), (await Prices.CurrentAsync(Cancellation))[L40S].PerGpuHour);
        Assert.Single(await PublishAsync(T0.AddHours(3), (H100, "2.50")));
        Assert.Equal(2, (await Prices.CurrentAsync(Cancellation)).Count);
    }

    [Fact]
    public async Task Token_prices_are_versions_as_well()
    {
        TokenPrice model = new("llama", Money.Parse("0.20"), Money.Parse("0.60"), Money.Parse("0.05"));
        Assert.Single(await Prices.PublishAsync("default", new Dictionary<GpuProduct, Money>(), [model], T0, Cancellation));
        Assert.Empty(await Prices.PublishAsync("default", new Dictionary<GpuProduct, Money>(), [model], T0, Cancellation));
        Assert.Single(await Prices.PublishAsync(
            "default", new Dictionary<GpuProduct, Money>(), [model with { CachedPerMillion = Money.Zero }], T0, Cancellation));
        Assert.Single(await Prices.PublishAsync("default", new Dictionary<GpuProduct, Money>(), [], T0, Cancellation));
        Assert.Equal(3L, await ScalarAsync<long>("select count(*) from v_price"));
        await Assert.ThrowsAsync<ArgumentOutOfRangeException>(() => PublishAsync(T0, (H100, "-1.00")));
    }

    [Fact]
    public async Task A_price_takes_effect_neither_in_the_future_nor_before_the_one_that_it_replaces()
    {
        await PublishAsync(T0, (H100, "2.50"));
        var now = new DateTimeOffset(await ScalarAsync<DateTime>("select clock_timestamp()"));
        var future = await Assert.ThrowsAsync<PriceInstantException>(() => PublishAsync(now.AddHours(1), (H100, "3.00")));
        Assert.Contains("cannot take effect in the future", future.Message, StringComparison.Ordinal);
        var past = await Assert.ThrowsAsync<PriceInstantException>(() => PublishAsync(T0.AddHours(-1), (H100, "3.00")));
        Assert.Contains("before the version that it replaces, of 2026-03-01T12:00:00Z", past.Message, StringComparison.Ordinal);
        Assert.Equal(1L, await ScalarAsync<long>("select count(*) from price_version"));
        // What stays as it is takes no effect, whenever that is said; and clocks differ a little.
        Assert.Empty(await PublishAsync(T0.AddHours(-1), (H100, "2.50")));
        Assert.Single(await PublishAsync(T0.AddSeconds(-30), (H100, "3.00")));
        Assert.Equal(T0, (await Prices.AtAsync(H100, T0, Cancellation))!.EffectiveAt);
    }

    [Fact]
    public async Task The_price_of_a_product_is_known_for_every_instant()
    {
        await PublishAsync(T0, (H100, "2.50"));
        await Prices.PublishAsync("other", new Dictionary<GpuProduct, Money> { [H100] = Money.Parse("2.00") }, [], T0.AddHours(1), Cancellation);
        await PublishAsync(T0.AddHours(2), (H100, "3.00"));
        await PublishAsync(T0.AddHours(3));
        await Prices.PublishAsync("other", new Dictionary<GpuProduct, Money>(), [], T0.AddHours(4), Cancellation);
        async Task<string?> At(double hours) => (await Prices.AtAsync(H100, T0.AddHours(hours), Cancellation))?.PerGpuHour.ToDecimalString();
        Assert.Equal(
            [null, "2.50", "2.50", "2.00", "3.00", "2.00", null],
            new[] { await At(-1), await At(0), await At(0.5), await At(1), await At(2), await At(3), await At(4) });
        Assert.Null(await Prices.AtAsync(L40S, T0, Cancellation));
    }

    [Fact]
    public async Task Publishing_at_once_writes_each_change_once()
    {
        var written = await Task.WhenAll(Enumerable.Range(0, 10).Select(_ => Task.Run(() => PublishAsync(T0, (H100, "2.50")))));
        Assert.Single(written.SelectMany(versions => versions));
    }

    [Fact]
    public async Task A_change_settles_what_runs_to_its_instant_and_charges_the_rest_at_the_new_price()
    {
        await PublishAsync(T0.AddDays(-1), (H100, "2.50"));
        await OpenAsync(Acme, "100.00");
        var (_, pod) = await RunAsync(2, T0);
        await Meter.SettleAsync(Acme, T0.AddMinutes(10), Cancellation);
        await PublishAsync(T0.AddMinutes(20), (H100, "6.00"));
        Assert.Equal(Money.Parse("12.00"), (await StandingAsync()).BurnPerHour);
        await Meter.SettleAsync(Acme, T0.AddMinutes(30), Cancellation);
        await Runs.CloseAsync(pod, T0.AddMinutes(50), Cancellation);

        var due = Rating.Due(TimeSpan.FromMinutes(20), Money.Parse("2.50"), 2)
            + Rating.Due(TimeSpan.FromMinutes(30), Money.Parse("6.00"), 2);
        Assert.Equal(Money.Parse("100.00") - due, await PostedAsync());
        Assert.Equal(
            ["2500000000", "2500000000", "6000000000", "6000000000"],
            (await Transactions.ListAsync(Acme, null, 4, Cancellation)).Reverse()
                .Select(row => System.Text.Json.JsonDocument.Parse(row.Details).RootElement.GetProperty("perGpuHourNanos").ToString()));
    }

    [Fact]
    public async Task A_pod_that_had_ended_before_a_price_change_is_corrected_over_both_prices()
    {
        await PublishAsync(T0.AddDays(-1), (H100, "2.50"));
        await OpenAsync(Acme, "100.00");
        var (_, pod) = await RunAsync(1, T0);
        await PublishAsync(T0.AddMinutes(20), (H100, "6.00"));
        await Meter.SettleAsync(Acme, T0.AddMinutes(30), Cancellation);
        await Runs.CloseAsync(pod, T0.AddMinutes(12), Cancellation);
        Assert.Equal(Money.Parse("99.50"), await PostedAsync());
        Assert.Equal(Money.Parse("0.50"), new Money(await ScalarAsync<long>("select rated_nanos from run_interval")));
    }

    [Fact]
    public async Task A_start_that_is_reported_after_a_price_change_is_charged_at_each_price_for_its_time()
    {
        await PublishAsync(T0.AddDays(-1), (H100, "2.50"));
        await OpenAsync(Acme, "100.00");
        await PublishAsync(T0.AddMinutes(6), (H100, "6.00"));
        var pod = NewPod();
        await Runs.OpenAsync(Start(NewDeployment(), pod, 1, T0), Cancellation);
        await Runs.CloseAsync(pod, T0.AddMinutes(16), Cancellation);
        Assert.Equal(Money.Parse("98.75"), await PostedAsync());
    }

    [Fact]
    public async Task An_instant_that_is_settled_already_takes_the_new_price_from_where_it_is_settled()
    {
        await PublishAsync(T0.AddDays(-1), (H100, "2.50"));
        await OpenAsync(Acme, "100.00");
        await RunAsync(1, T0);
        await Meter.SettleAsync(Acme, T0.AddMinutes(12), Cancellation);
        await PublishAsync(T0.AddMinutes(6), (H100, "6.00"));
        await Meter.SettleAsync(Acme, T0.AddMinutes(22), Cancellation);
        Assert.Equal(Money.Parse("98.50"), await PostedAsync());
    }

    [Fact]
    public async Task A_change_after_the_balance_ran_out_suspends_the_account_where_it_ran_out()
    {
        await PublishAsync(T0.AddDays(-1), (H100, "2.50"));
        await OpenAsync(Acme, "10.00");
        var (deployment, _) = await RunAsync(4, T0);
        await PublishAsync(T0.AddHours(2), (H100, "6.00"));
        Assert.Equal(T0.AddHours(1), Assert.Single(await Runs.ListOpenAsync(deployment, Cancellation)).ChargeUntil);
        Assert.Empty((await StandingAsync()).Holds);
        Assert.Equal((Money.Zero, Money.Parse("-10.00")),
            (await PostedAsync(), await SumAsync(MovementType.Uncollected, "expense:uncollected")));
    }

    [Fact]
    public async Task A_withdrawal_leaves_what_runs_at_its_price()
    {
        await PublishAsync(T0.AddDays(-1), (H100, "2.50"));
        await OpenAsync(Acme, "100.00");
        await RunAsync(1, T0);
        await PublishAsync(T0.AddMinutes(6));
        Assert.Equal(Money.Parse("2.50"), (await StandingAsync()).BurnPerHour);
        Assert.Empty(await Prices.CurrentAsync(Cancellation));
    }

    [Fact]
    public async Task Changes_and_starts_and_settlements_at_once_end_with_every_run_at_the_last_price()
    {
        await PublishAsync(T0.AddDays(-1), (H100, "1.00"));
        foreach (var name in new[] { "a", "b", "c" }) await OpenAsync(new(name), "500.00");
        await Parallel.ForEachAsync(
            Enumerable.Range(0, 60), new ParallelOptions { MaxDegreeOfParallelism = 12, CancellationToken = Cancellation },
            async (i, cancellation) =>
        {
            var account = new AccountId("abc"[i % 3].ToString());
            if (i % 10 == 9) await PublishAsync(T0.AddSeconds(i), (H100, $"{1 + i / 10}.50"));
            else if (i % 2 == 0) await Runs.OpenAsync(Start(NewDeployment(), NewPod(), 1, T0.AddSeconds(i), account), cancellation);
            else await Meter.SettleAsync(account, T0.AddSeconds(i), cancellation);
        });
        var last = (await Prices.CurrentAsync(Cancellation))[H100].Version.Value;
        Assert.Equal(0L, await ScalarAsync<long>($"select count(*) from run_interval where price_version <> {last}"));
    }
}
