using Tensormesh.Billing;

namespace Tensormesh.Integration.Tests.Billing;

/// <summary>What reports say is what the ledger's transactions come to, to the nano, on every calendar.</summary>
public sealed class SpendingTests(PostgresFixture postgres) : BillingTest(postgres)
{
    private static readonly TimeSpan Tick = TimeSpan.FromMicroseconds(1);

    private Spending Spending => new(Database);

    /// <summary>
    /// Days of 23, 24 and 25 hours, one without a midnight (Cairo in April), one with two (Havana in November), a shift of half an hour, and an offset
    /// of quarters: compared with sums over the transaction list.
    /// </summary>
    [Fact]
    public async Task Every_sum_is_that_of_the_transactions_on_every_calendar()
    {
        await PublishAsync(T0.AddDays(-1), (H100, "2.50"));
        var seed = Random.Shared.Next();
        var random = new Random(seed);
        foreach (var zone in (string[])["Europe/Berlin", "America/New_York", "Africa/Cairo", "America/Havana", "Asia/Kathmandu", "Australia/Lord_Howe", "UTC"])
        {
            var account = new AccountId($"in-{zone.Replace('/', '-').Replace('_', '-').ToLowerInvariant()}");
            await OpenAsync(account, "30000.00");
            await Accounts.DeclareAsync(account, new AccountPolicy(account.Value, null, null, zone), Cancellation);
            var (_, pod) = await RunAsync(1, T0, account);
            var (end, local) = (T0.AddDays(260), TimeZoneInfo.FindSystemTimeZoneById(zone));
            // Windows end anywhere, at a midnight, and a tick after one.
            var settled = Enumerable.Range(0, 120).Select(_ => T0 + TimeSpan.FromMicroseconds(random.NextInt64((long)(end - T0).TotalMicroseconds)))
                .Concat(Enumerable.Range(1, 259).Where(_ => random.Next(6) == 0).SelectMany(day => Midnight(T0.AddDays(day), local)))
                .Order().ToList();
            foreach (var at in settled) await Meter.SettleAsync(account, at, Cancellation);
            Assert.True(await Runs.CloseAsync(pod, settled[^1] - TimeSpan.FromHours(3), Cancellation));

            var all = await ListAsync(account);
            for (var i = 0; i < 25; i++)
            {
                var now = i % 5 == 0 ? settled[random.Next(settled.Count)] : T0 + TimeSpan.FromMicroseconds(random.NextInt64((long)(end - T0).TotalMicroseconds));
                var because = $"TENSORMESH_SEED={seed} {zone} at {now:O}";
                var today = DayOf(now, local);
                var (first, next) = (new DateOnly(today.Year, today.Month, 1), new DateOnly(today.Year, today.Month, 1).AddMonths(1));
                var summary = (await Spending.SummaryAsync(account, now, Cancellation))!;
                Assert.True(summary == new SpendingSummary(
                    Sum(row => row.At > now.AddHours(-24)), Sum(row => row.At > now.AddDays(-7)), Sum(row => row.At > now.AddDays(-30))), because);
                var calendar = (await Spending.OverviewAsync(account, now, Cancellation))!.Spending;
                Assert.True(calendar == new CalendarSpending(
                    Sum(row => row.Day == today), Sum(row => row.Day >= today.AddDays(-7) && row.Day < today),
                    Sum(row => row.Day >= first.AddMonths(-1) && row.Day < first), Sum(row => row.Day >= first), calendar.NextBillingAt), because);
                Assert.True((next, next.AddDays(-1)) == (DayOf(calendar.NextBillingAt, local), DayOf(calendar.NextBillingAt - Tick, local)), because);
                var history = (await Spending.HistoryAsync(account, now, 31, Cancellation))!;
                Assert.True(history.Select(day => (DayOf(day.StartsAt, local), DayOf(day.StartsAt - Tick, local)))
                    .SequenceEqual(Enumerable.Range(-30, 31).Select(ago => (today.AddDays(ago), today.AddDays(ago - 1)))), because);
                Assert.True(history.All(day => day.Total == Sum(row => row.Day == DayOf(day.StartsAt, local)) && day.Serverless == Money.Zero), because);

                Money Sum(Func<(DateTimeOffset At, DateOnly Day, Money Spent), bool> which) => all.Where(row => row.At <= now && which(row))
                    .Aggregate(Money.Zero, (sum, row) => sum + row.Spent);
            }

            // A window belongs where it ends: at midnight sharp to the day that ends.
            async Task<List<(DateTimeOffset At, DateOnly Day, Money Spent)>> ListAsync(AccountId of)
            {
                await using var command = Database.CreateCommand(
                    "select t.effective_at, -(select sum(e.amount) from unnest(t.accounts, t.amounts) as e(account, amount) where e.account = t.customer)::bigint "
                        + $"from ledger_transaction t join ledger_account a on a.id = t.customer where a.account = '{of}' and t.type in ('GpuUsage', 'GpuUsageCorrection')");
                await using var reader = await command.ExecuteReaderAsync(Cancellation);
                var rows = new List<(DateTimeOffset, DateOnly, Money)>();
                while (await reader.ReadAsync(Cancellation))
                {
                    var at = reader.GetFieldValue<DateTimeOffset>(0);
                    rows.Add((at, DayOf(at - Tick, local), new(reader.GetInt64(1))));
                }

                return rows;
            }
        }
    }

    [Fact]
    public async Task An_overview_is_of_one_instant_however_often_it_is_settled_meanwhile()
    {
        await PublishAsync(T0.AddDays(-1), (H100, "2.50"));
        await OpenAsync(Acme, "1000.00");
        await RunAsync(4, T0);
        var (now, settling) = (T0.AddHours(10), true);
        var settle = Task.Run(async () =>
        {
            for (var minutes = 1; minutes <= 600; minutes += 2) await Meter.SettleAsync(Acme, T0.AddMinutes(minutes), Cancellation);
            Volatile.Write(ref settling, false);
        }, Cancellation);
        var seen = new HashSet<Money>();
        do
        {
            var overview = (await Spending.OverviewAsync(Acme, now, Cancellation))!;
            Assert.Equal(Money.Parse("1000.00"), overview.Standing.Posted + overview.Spending.MonthToDate);
            Assert.Equal(Money.Parse("100.00"), overview.Spending.Today + overview.Accrued);
            seen.Add(overview.Spending.Today);
        }
        while (Volatile.Read(ref settling));
        await settle;
        Assert.True(seen.Count > 1, "nothing was settled while it was read");
    }

    [Fact]
    public async Task What_was_posted_before_sums_were_kept_is_in_them()
    {
        await PublishAsync(T0.AddDays(-1), (H100, "2.50"));
        await OpenAsync(Acme, "1000.00");
        var (_, pod) = await RunAsync(4, T0);
        foreach (var minutes in (int[])[1, 15, 16, 40]) await Meter.SettleAsync(Acme, T0.AddMinutes(minutes), Cancellation);
        Assert.True(await Runs.CloseAsync(pod, T0.AddMinutes(30), Cancellation));
        // As the migration does, whose sums every test compares with the transactions at its end.
        var kept = await ScalarAsync<decimal>("select sum(amount_nanos) from spending_bucket");
        var backfill = SqlText.Read("Migrations/0012_roll_up_spending.sql");
        backfill = backfill[backfill.IndexOf("insert into spending_bucket (customer, is_day, bucket, type, amount_nanos)\nselect", StringComparison.Ordinal)..];
        await ExecuteAsync("truncate spending_bucket");
        await ExecuteAsync(backfill[..(backfill.IndexOf(';', StringComparison.Ordinal) + 1)]);
        Assert.Equal(kept, await ScalarAsync<decimal>("select sum(amount_nanos) from spending_bucket"));
        Assert.Equal(Money.Parse("5.00"), (await Spending.SummaryAsync(Acme, T0.AddHours(1), Cancellation))!.Last24Hours);
    }

    [Fact]
    public async Task An_account_without_spending_has_days_of_zero_and_an_unknown_one_has_none()
    {
        await DeclareAsync(Acme);
        var history = (await Spending.HistoryAsync(Acme, T0, 3, Cancellation))!;
        Assert.Equal([T0.Date.AddDays(-2), T0.Date.AddDays(-1), T0.Date], history.Select(day => day.StartsAt.UtcDateTime));
        Assert.All(history, day => Assert.Equal(Money.Zero, day.Total));
        Assert.Null(await Spending.HistoryAsync(new("nobody"), T0, 3, Cancellation));
        Assert.Null(await Spending.OverviewAsync(new("nobody"), T0, Cancellation));
    }

    private static DateOnly DayOf(DateTimeOffset instant, TimeZoneInfo zone) => DateOnly.FromDateTime(TimeZoneInfo.ConvertTime(instant, zone).DateTime);

    /// <summary>The first instant of the day, found by halving, and a tick after it.</summary>
    private static IEnumerable<DateTimeOffset> Midnight(DateTimeOffset within, TimeZoneInfo zone)
    {
        var (before, after) = (within.AddHours(-30), within);
        while (after - before > Tick)
        {
            var middle = (before + TimeSpan.FromTicks((after - before).Ticks / 2)).ToLedgerTime();
            if (middle == before) break;
            if (DayOf(middle, zone) == DayOf(within, zone)) after = middle;
            else before = middle;
        }

        return [after, after + Tick];
    }
}
