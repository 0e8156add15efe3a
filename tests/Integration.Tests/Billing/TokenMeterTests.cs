using System.Globalization;
using Microsoft.Extensions.Time.Testing;
using Npgsql;
using Tensormesh.Billing;

namespace Tensormesh.Integration.Tests.Billing;

/// <summary>Each token is charged once, at its own time's price, whatever order, number and lateness its event comes in.</summary>
public sealed class TokenMeterTests(PostgresFixture postgres) : BillingTest(postgres)
{
    private static readonly AccountId Other = new("other");
    private static readonly TokenPrice Llama = new("llama", Money.Parse("0.60"), Money.Parse("2.40"), Money.Parse("0.06"));
    private static readonly TokenPrice Qwen = new("Qwen/Qwen3-32B", Money.Parse("0.07"), Money.Parse("0.28"), Money.Parse("0.00"));

    private ServerlessUsage Usage => new(Database);

    private Task<IReadOnlyList<PriceVersionId>> PriceAsync(DateTimeOffset at, params TokenPrice[] prices)
        => Prices.PublishAsync("tokens", new Dictionary<GpuProduct, Money>(), prices, at, Cancellation);

    private static UsageEvent Event(string id, long input, long cached, long output, DateTimeOffset? at = null, string model = "llama", AccountId? account = null)
        => new("/inference/a", id, account ?? Acme, model, at ?? T0, input, cached, output);

    private async Task<string> IngestAsync(params UsageEvent[] events) => Names((await Tokens.IngestAsync(events, Cancellation)).Outcomes);

    private static string Names(IEnumerable<UsageOutcome> outcomes) => string.Join(" ", outcomes.Select(outcome => outcome switch
    {
        UsageOutcome.Rejected refused => refused.Reason.ToString(),
        UsageOutcome.Duplicate => "Duplicate",
        _ => "Accepted",
    }));

    [Fact]
    public async Task An_event_is_charged_once_and_drawn_on_the_balance_at_once()
    {
        await PriceAsync(T0.AddDays(-40), Llama);
        await OpenAsync(Acme, "10.00");
        var usage = Event("1", 1_000_000, 400_000, 100_000);
        Assert.Equal("Accepted", await IngestAsync(usage));
        var cost = Money.Parse("0.624");
        Assert.Equal((Money.Parse("10.00"), cost, Money.Parse("9.376")), await LeftAsync());

        // Again, in one batch with itself and with a fresh time; then under its id with other content.
        Assert.Equal("Duplicate", await IngestAsync(usage));
        Assert.Equal("Duplicate Duplicate Accepted", await IngestAsync(usage, usage with { At = T0.AddMinutes(1), RequestId = "r" }, Event("2", 0, 0, 0) with { Output = 1 }));
        Assert.Equal("IdReused IdReused", await IngestAsync(usage with { Output = 1 }, usage with { Model = "other" }));
        Assert.Equal("Accepted Duplicate IdReused", await IngestAsync(Event("3", 1, 0, 0), Event("3", 1, 0, 0), Event("3", 2, 0, 0)));

        Assert.Equal(1, (await Meter.SettleAsync(Acme, T0.AddMinutes(1), Cancellation)).TokenTransactions);
        var due = TokenRating.Due(new(1_000_001, 400_000, 100_001), Llama);
        Assert.Equal((Money.Parse("10.00") - due, Money.Zero, Money.Parse("10.00") - due), await LeftAsync());
        Assert.Equal(Settlement.Nothing, await Meter.SettleAsync(Acme, T0.AddMinutes(2), Cancellation));
        Assert.Equal(-due, await SumAsync(MovementType.ServerlessUsage));
        Assert.Equal(due, await SumAsync(MovementType.ServerlessUsage, "revenue:serverless"));

        async Task<(Money, Money, Money)> LeftAsync() => await StandingAsync() is var standing ? (standing.Posted, standing.Tokens.Amount, standing.Balance(T0)) : default;
    }

    [Fact]
    public async Task One_bad_event_rejects_none_of_its_neighbours()
    {
        await PriceAsync(T0.AddDays(-40), Llama);
        await OpenAsync(Acme, "10.00");
        Assert.Equal(
            "Accepted CachedAboveInput AccountUnknown FromTheFuture TooOld NoTokens TooManyTokens Accepted",
            await IngestAsync(
                Event("1", 10, 0, 0), Event("2", 10, 11, 0), Event("3", 10, 0, 0, account: new("nobody")), Event("4", 10, 0, 0, T0.AddMinutes(6)),
                Event("5", 10, 0, 0, T0.AddDays(-35)), Event("6", 0, 0, 0), Event("7", 2_000_000_000, 0, 0), Event("8", 10, 0, 0, T0.AddDays(-34))));
        // An account that is declared later is found then, and what was refused is accepted when it comes again.
        await DeclareAsync(new("nobody"));
        Assert.Equal("Accepted", await IngestAsync(Event("3", 10, 0, 0, account: new("nobody"))));
    }

    [Fact]
    public async Task A_late_event_is_charged_at_the_price_of_its_time_in_the_month_of_its_time_and_on_the_open_statement()
    {
        await PriceAsync(T0.AddDays(-40), Llama);
        await OpenAsync(Acme, "10.00");
        await PriceAsync(T0.AddDays(-10), Llama with { InputPerMillion = Money.Parse("1.20") });
        // One before the change, one at it, one in this month.
        await IngestAsync(Event("1", 1_000_000, 0, 0, T0.AddDays(-10).AddTicks(-10)), Event("2", 1_000_000, 0, 0, T0.AddDays(-10)), Event("3", 1_000_000, 0, 0, T0.AddHours(-1)));
        Assert.Equal(2, (await Meter.SettleAsync(Acme, T0, Cancellation)).TokenTransactions);
        Assert.Equal(Money.Parse("3.00"), -await SumAsync(MovementType.ServerlessUsage));
        Assert.Equal(
            (Money.Parse("1.80"), Money.Parse("1.20"), Money.Parse("3.00")),
            ((await Usage.ReadAsync(Acme, new(2026, 2), Cancellation))!.Cost, (await Usage.ReadAsync(Acme, new(2026, 3), Cancellation))!.Cost,
                (await Usage.ReadAsync(Acme, null, Cancellation))!.Cost));

        // February is closed; what comes for it now is a correction on March, and a row of February's all the same.
        var statements = new Statements(Database);
        await statements.ReadAsync(Acme, T0, Cancellation);
        await IngestAsync(Event("4", 1_000_000, 0, 0, T0.AddDays(-5)));
        await Meter.SettleAsync(Acme, T0, Cancellation);
        var open = (await statements.ReadAsync(Acme, T0, Cancellation))![^1];
        Assert.Equal(new StatementLine("ServerlessUsage", true, 1, Money.Parse("-1.20")), open.Lines.Single(line => line.Correction));
        var listed = (await Transactions.ListAsync(Acme, null, 10, Cancellation)).Where(row => row.Type == "ServerlessUsage").ToArray();
        Assert.Equal(
            [("Serverless usage of March 2026", Money.Parse("-1.20")), ("Serverless usage of February 2026", Money.Parse("-3.00"))],
            listed.Select(row => (row.Description, row.Amount)));
    }

    [Fact]
    public async Task Usage_of_a_model_without_a_price_is_kept_and_charged_once_it_has_one()
    {
        await OpenAsync(Acme, "10.00");
        await OpenAsync(Other, "10.00");
        var receipt = await Tokens.IngestAsync([Event("1", 1_000_000, 0, 0, T0.AddHours(-2)), Event("2", 500_000, 500_000, 0), Event("3", 1_000_000, 0, 0, account: Other)], Cancellation);
        Assert.Equal("Accepted Accepted Accepted", Names(receipt.Outcomes));
        Assert.Equal(3, receipt.Unpriced["llama"]);
        Assert.Equal([new UnpricedUsage("llama", 3, new(2_500_000, 500_000, 0))], await Tokens.ListUnpricedAsync(Cancellation));
        Assert.Equal(Settlement.Nothing, await Meter.SettleAsync(Acme, T0, Cancellation));
        var model = Assert.Single((await Usage.ReadAsync(Acme, null, Cancellation))!.Models);
        Assert.Equal((2L, new TokenTotals(1_500_000, 500_000, 0), Money.Zero), (model.UnpricedEvents, model.Unpriced, model.Cost));

        await PriceAsync(T0, Llama);
        Assert.Empty(await Tokens.ListUnpricedAsync(Cancellation));
        Assert.Equal((Money.Parse("9.37"), Money.Parse("9.40")), ((await StandingAsync()).Balance(T0), (await StandingAsync(Other)).Balance(T0)));
        await Meter.SettleAsync(Acme, T0, Cancellation);
        Assert.Equal((Money.Parse("-0.63"), 0L), (await SumAsync(MovementType.ServerlessUsage), (await Usage.ReadAsync(Acme, null, Cancellation))!.Models[0].UnpricedEvents));
        // Withdrawn: what is used goes on at the last price, and never for nothing.
        await PriceAsync(T0.AddMinutes(1));
        Time.Advance(TimeSpan.FromMinutes(10));
        await IngestAsync(Event("4", 1_000_000, 0, 0, T0.AddMinutes(5)));
        Assert.Equal(Money.Parse("0.60"), (await StandingAsync()).Tokens.Amount);
    }

    [Fact]
    public async Task Tokens_past_the_balance_are_owed_stop_what_runs_and_are_paid_by_the_next_money()
    {
        await PublishAsync(T0.AddDays(-1), (H100, "2.50"));
        await PriceAsync(T0.AddDays(-1), Llama);
        await OpenAsync(Acme, "10.00");
        await RunAsync(2, T0);
        await Meter.SettleAsync(Acme, T0.AddMinutes(6), Cancellation);
        // Twelve minutes of $5.00 an hour ran when tokens of $12.00 came.
        Time.SetUtcNow(T0.AddMinutes(12));
        await IngestAsync(Event("1", 20_000_000, 0, 0));
        Assert.Equal(T0.AddMinutes(12), (await StandingAsync()).ExhaustsAt);
        var suspension = (await Meter.SuspendIfExhaustedAsync(Acme, Policy, T0.AddMinutes(12).AddSeconds(1), Cancellation))!;
        Assert.Equal((T0.AddMinutes(12), Money.Zero, 1), (suspension.At, suspension.Uncollected, suspension.Deployments.Count));
        Assert.Equal((Money.Parse("-1.00"), Money.Parse("-9.00")), (await SumAsync(MovementType.GpuUsage), await SumAsync(MovementType.ServerlessUsage)));
        Assert.Equal((Money.Zero, Money.Parse("-3.00")), (await PostedAsync(), (await StandingAsync()).Balance(T0.AddHours(1))));
        Assert.Equal(Settlement.Nothing, await Meter.SettleAsync(Acme, T0.AddHours(1), Cancellation));

        await GrantAsync(Acme, "5.00");
        Assert.Equal(Money.Parse("3.00"), (await Meter.SettleAsync(Acme, T0.AddHours(1), Cancellation)).Tokens);
        Assert.Equal((Money.Parse("2.00"), Money.Parse("-12.00")), (await PostedAsync(), await SumAsync(MovementType.ServerlessUsage)));
        var month = Assert.Single(await Transactions.ListAsync(Acme, null, 10, Cancellation, new([MovementType.ServerlessUsage])));
        Assert.Equal(Money.Parse("-12.00"), month.Amount);
    }

    [Fact]
    public async Task What_tokens_took_is_not_taken_back_by_a_mirror()
    {
        await PriceAsync(T0.AddDays(-1), Llama);
        await OpenAsync(Acme, "10.00");
        await IngestAsync(Event("1", 1_000_000, 0, 0));
        await Meter.SettleAsync(Acme, T0, Cancellation);
        var id = await ScalarAsync<string>("select id from ledger_transaction where type = 'ServerlessUsage'");
        var refused = Assert.IsType<PostResult.Refused>(await new Corrections(Database).ReverseAsync(id, new("ops", "ADMIN", null, null), "why not", Cancellation));
        Assert.Contains("metered tokens", refused.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task The_overview_has_all_tokens_and_the_history_what_the_cache_saved()
    {
        await PriceAsync(T0.AddDays(-1), Llama);
        await OpenAsync(Acme, "10.00");
        await IngestAsync(Event("1", 1_000_000, 1_000_000, 0));
        var spending = new Spending(Database);
        for (var settled = 0; settled < 2; settled++)
        {
            var overview = (await spending.OverviewAsync(Acme, T0, Cancellation))!;
            Assert.Equal((Money.Parse("0.06"), Money.Parse("0.06")), (overview.Spending.Today, overview.Spending.MonthToDate));
            await Meter.SettleAsync(Acme, T0, Cancellation);
        }

        var today = (await spending.HistoryAsync(Acme, T0, 2, Cancellation))![^1];
        Assert.Equal((Money.Parse("0.06"), Money.Parse("0.54")), (today.Serverless, today.Saved));
    }

    [Fact]
    public async Task Old_days_are_dropped_and_the_days_that_may_come_are_there()
    {
        await PriceAsync(T0.AddDays(-40), Llama);
        await OpenAsync(Acme, "10.00");
        await IngestAsync(Event("1", 10, 0, 0, T0.AddDays(-34)));
        await Tokens.KeepDaysAsync(Cancellation);
        Assert.Equal("usage_event_20260126 usage_event_20260301 usage_event_20260302", await DaysAsync());
        Time.Advance(TimeSpan.FromDays(3));
        Assert.Equal(0, await Tokens.KeepDaysAsync(Cancellation));
        Time.Advance(TimeSpan.FromDays(1));
        Assert.Equal(1, await Tokens.KeepDaysAsync(Cancellation));
        Assert.DoesNotContain("20260126", await DaysAsync(), StringComparison.Ordinal);
        // What was charged for them stays charged.
        Assert.Equal(10L, (await Usage.ReadAsync(Acme, null, Cancellation))!.Tokens.Input);

        Task<string> DaysAsync() => ScalarAsync<string>(
            "select string_agg(c.relname, ' ' order by c.relname) from pg_inherits i join pg_class c on c.oid = i.inhrelid where i.inhparent = 'usage_event'::regclass");
    }

    /// <summary>Two writers share batches of the same events, in any order, while the account is settled and prices change: against a model in memory
    /// that sees each event once, in big numbers.</summary>
    [Fact]
    public async Task Whatever_comes_late_twice_or_out_of_order_the_report_the_ledger_and_a_naive_model_agree_to_the_nano()
    {
        var seed = int.TryParse(Environment.GetEnvironmentVariable("TENSORMESH_SEED"), CultureInfo.InvariantCulture, out var given) ? given : Random.Shared.Next();
        var random = new Random(seed);
        AccountId[] accounts = [Acme, Other, new("third")];
        var start = T0.AddDays(-30);
        var clock = new FakeTimeProvider(start);
        var (first, second) = (new TokenMeter(Database, clock), new TokenMeter(Database, clock));
        await PriceAsync(start.AddDays(-8), Llama);
        foreach (var account in accounts) await OpenAsync(account, "100000.00");
        await Accounts.DeclareAsync(Other, new AccountPolicy("other", null, null, "Asia/Kathmandu"), Cancellation);
        var versions = new List<(string Model, DateTimeOffset From, TokenPrice Price)> { ("llama", start.AddDays(-8), Llama) };
        var counted = new Dictionary<string, UsageEvent>(StringComparer.Ordinal);
        var all = new List<UsageEvent>();
        for (var day = 0; day < 30; day++)
        {
            var now = start.AddDays(day).AddMinutes(random.Next(1440));
            clock.SetUtcNow(now);
            if (day is 7 or 19)
            {
                var price = (day == 7 ? Llama : Qwen) with { InputPerMillion = new(random.Next(1, 2_000_000_000)), OutputPerMillion = new(random.Next(1, 2_000_000_000)) };
                var prices = versions.GroupBy(version => version.Model).Select(model => model.Last().Price).Where(one => one.Model != price.Model).Append(price).ToArray();
                await PriceAsync(now, prices);
                versions.Add((price.Model, now.ToLedgerTime(), price));
            }

            var fresh = Enumerable.Range(0, random.Next(1, 40)).Select(i =>
            {
                var input = random.NextInt64(0, 100_000);
                var at = now - (random.Next(5) == 0 ? TimeSpan.FromMinutes(random.Next(0, 10 * 1440)) : TimeSpan.FromSeconds(random.Next(0, 600)));
                return new UsageEvent(
                    $"/inference/{random.Next(3)}", $"{day}-{i}", accounts[random.Next(3)], random.Next(3) == 0 ? Qwen.Model : Llama.Model,
                    (at < start ? start : at).ToLedgerTime(), input, random.NextInt64(0, input + 1), random.NextInt64(1, 5_000));
            }).ToArray();
            all.AddRange(fresh);
            // Both have the fresh ones, and some that came before.
            var both = Enumerable.Range(0, 2).Select(_ =>
            {
                var batch = fresh.Concat(random.GetItems(all.ToArray(), 10)).ToArray();
                random.Shuffle(batch);
                return batch;
            }).ToArray();
            var receipts = await Task.WhenAll(first.IngestAsync(both[0], Cancellation), second.IngestAsync(both[1], Cancellation), SettleAsync(now));
            foreach (var usage in fresh) counted.TryAdd($"{usage.Source} {usage.Id}", usage);
            Assert.Equal(fresh.Length, receipts.Take(2).Sum(receipt => receipt.Outcomes.Count(outcome => outcome is UsageOutcome.Accepted)));

            async Task<UsageReceipt> SettleAsync(DateTimeOffset at)
            {
                foreach (var account in accounts) await Meter.SettleAsync(account, at, Cancellation);
                return new([], new Dictionary<string, long>());
            }
        }

        foreach (var account in accounts)
        {
            await Meter.SettleAsync(account, clock.GetUtcNow(), Cancellation);
            var because = $"TENSORMESH_SEED={seed} {account}";
            var mine = counted.Values.Where(usage => usage.Account == account).ToArray();
            var report = (await Usage.ReadAsync(account, null, Cancellation))!;
            var expected = mine.GroupBy(VersionOf).Aggregate(Money.Zero, (sum, version) => sum + TokenRating.Due(Sum(version), version.Key.Price));
            Assert.True(expected == report.Cost && report.Settled == report.Cost, because);
            Assert.True(-expected == await SumAsync(MovementType.ServerlessUsage, $"customer:{account}"), because);
            Assert.True(Sum(mine) == report.Tokens && mine.Length == report.Models.Sum(model => model.Events), because);

            // Months and days of the account's own calendar, each as the ledger has it.
            var zone = TimeZoneInfo.FindSystemTimeZoneById(report.TimeZone);
            DateOnly DayOf(DateTimeOffset at) => DateOnly.FromDateTime(TimeZoneInfo.ConvertTime(at.AddTicks(-10), zone).DateTime);
            Assert.True(report.Days.Select(day => (day.Day, day.Tokens)).SequenceEqual(mine.GroupBy(usage => DayOf(usage.At)).OrderBy(day => day.Key).Select(day => (day.Key, Sum(day)))), because);
            Assert.True(report.Cost == report.Days.Aggregate(Money.Zero, (sum, day) => sum + day.Cost), because);
            var listed = (await Transactions.ListAsync(account, null, 1000, Cancellation)).Where(row => row.Type == "ServerlessUsage").ToArray();
            foreach (var month in mine.Select(usage => BillingMonth.Of(DayOf(usage.At))).Distinct())
            {
                var cost = (await Usage.ReadAsync(account, month, Cancellation))!.Cost;
                var row = listed.Single(one => one.Details.Contains($"\"{month}\"", StringComparison.Ordinal));
                Assert.True(-cost == row.Amount, $"{because} {month}");
            }

            Assert.True(report.Cost == -listed.Aggregate(Money.Zero, (sum, row) => sum + row.Amount), because);
        }

        // The version of its model at its time; used before there was a price: the first.
        (string Model, DateTimeOffset From, TokenPrice Price) VersionOf(UsageEvent usage)
        {
            var own = versions.Where(version => version.Model == usage.Model).ToArray();
            return own.LastOrDefault(version => version.From <= usage.At) is { Model: not null } found ? found : own[0];
        }

        static TokenTotals Sum(IEnumerable<UsageEvent> events) => events.Aggregate(default(TokenTotals), (sum, usage) => sum + new TokenTotals(usage.Input, usage.Cached, usage.Output));
    }

    [Fact]
    public async Task A_change_of_what_was_metered_is_found_by_the_verifier()
    {
        await PriceAsync(T0.AddDays(-1), Llama);
        await OpenAsync(Acme, "10.00");
        await IngestAsync(Event("1", 1_000_000, 0, 0));
        await Meter.SettleAsync(Acme, T0, Cancellation);
        var verifier = new LedgerVerifier(Database);
        Assert.Null((await verifier.VerifyAsync(_ => { }, Cancellation)).Difference);
        foreach (var (change, back, what) in ((string, string, string)[])
        [
            ("update token_meter set input_tokens = input_tokens + 1", "update token_meter set input_tokens = input_tokens - 1", "tokens of llama"),
            ("update token_bucket set cost_nanos = cost_nanos + 1", "update token_bucket set cost_nanos = cost_nanos - 1", "cost of llama"),
            ("update token_balance set rated_nanos = rated_nanos + 1, unsettled_from = now(), unsettled_since = now()",
                "update token_balance set rated_nanos = rated_nanos - 1, unsettled_from = null, unsettled_since = null", "totals of tokens"),
            ("update serverless_month_model set amount_nanos = 1", "update serverless_month_model set amount_nanos = 600000000", "serverless usage of 2026-03"),
        ])
        {
            await ExecuteAsync(change);
            Assert.StartsWith(what, (await verifier.VerifyAsync(_ => { }, Cancellation)).Difference?.What, StringComparison.Ordinal);
            await ExecuteAsync(back);
        }
    }

    [Fact]
    public async Task An_event_is_never_changed_or_taken_away()
    {
        await PriceAsync(T0.AddDays(-1), Llama);
        await OpenAsync(Acme, "10.00");
        await IngestAsync(Event("1", 1_000_000, 0, 0));
        foreach (var change in (string[])["update usage_event set input_tokens = 1", "delete from usage_event", "truncate usage_event"])
        {
            Assert.Equal("TM007", (await Assert.ThrowsAsync<PostgresException>(() => ExecuteAsync(change))).SqlState);
        }
    }
}
