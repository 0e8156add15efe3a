using System.Diagnostics;
using Npgsql;
using Tensormesh.Billing;

namespace Tensormesh.Benchmarks;

/// <summary>
/// Whether a month's report slows down with the number of events: of an account with 100,000,000 over the same of one with 1,000,000. The events are given to the
/// product's own function for sums (<c>rate_usage</c>) as sums of quarters of an hour, which is all that a report reads: the events themselves are not stored here.
/// </summary>
internal static class ServerlessReportBenchmark
{
    private const long Large = 100_000_000;
    private const long Small = 1_000_000;
    private const int Quarters = 31 * 96;
    private const int Reads = 200;
    private const int WarmUps = 20;
    private static readonly DateTimeOffset From = new(2026, 3, 1, 0, 0, 0, TimeSpan.Zero);

    public static async Task RunAsync(Workplace workplace, CancellationToken cancellation)
    {
        var server = await workplace.PostgresAsync(cancellation);
        await using var database = await Workplace.OpenBillingAsync(server, "usage", cancellation);
        await UsageLoad.OpenAccountsAsync(database, cancellation);
        var (small, large) = (new AccountId(UsageLoad.Account(0)), new AccountId(UsageLoad.Account(1)));
        await FillAsync(database, small, Small, cancellation);
        await FillAsync(database, large, Large, cancellation);
        await using (var analyze = database.CreateCommand("vacuum analyze")) await analyze.ExecuteNonQueryAsync(cancellation);

        var usage = new ServerlessUsage(database);
        var (floor, subject) = (new List<double>(), new List<double>());
        for (var i = -WarmUps; i < Reads; i++)
        {
            foreach (var (account, events, times) in new[] { (small, Small, floor), (large, Large, subject) })
            {
                var began = Stopwatch.GetTimestamp();
                var report = (await usage.ReadAsync(account, new BillingMonth(2026, 3), cancellation))!;
                if (i >= 0) times.Add(Stopwatch.GetElapsedTime(began).TotalMilliseconds);
                if (report.Models.Sum(model => model.Events) != events) throw new InvalidOperationException($"the report of {account} has not {events} events");
            }
        }

        Workplace.Say($"p50 {Samples.Median(floor):0.0} ms and {Samples.Median(subject):0.0} ms; load {Workplace.LoadAverage()}");
        workplace.Report("p99_ratio", Samples.Quantile(subject, 0.99) / Samples.Quantile(floor, 0.99), "ratio", "<=1.5",
            $"a month's report of an account with {Large} events of {UsageLoad.Models} models over the same with {Small}; summed by quarters of an hour, {Reads} reads each");
        workplace.Report("p99_ms", Samples.Quantile(subject, 0.99), "ms", null, $"the report with {Large} events");
    }

    /// <summary>As many events in every quarter of an hour and of every model.</summary>
    private static async Task FillAsync(NpgsqlDataSource database, AccountId account, long events, CancellationToken cancellation)
    {
        await using var fill = database.CreateCommand(
            """
            select count(*) from (
              select array_agg(l.id) as customers, array_agg(p.item) as models, array_agg(p.id) as versions, array_agg(b.at) as buckets, array_agg(e.n) as events,
                array_agg(e.n * 5000) as input, array_agg(e.n * 2000) as cached, array_agg(e.n * 500) as output, array_agg(b.at + interval '10 minutes') as last_at
              from ledger_account l, price_version p, generate_series(0, $3 - 1) q, lateral (select $2 + q * interval '15 minutes' as at) b,
                lateral (select $4 * (q * $5 + p.id) / ($3 * $5) - $4 * (q * $5 + p.id - 1) / ($3 * $5) as n) e
              where l.account = $1 and p.kind = 'token' and e.n > 0) a,
              lateral rate_usage($2, null, a.customers, a.models, a.versions, a.buckets, a.events, a.input, a.cached, a.output, a.last_at) r
            """);
        fill.CommandTimeout = 0;
        fill.Parameters.Add(new NpgsqlParameter<string> { TypedValue = account.Value });
        fill.Parameters.Add(new NpgsqlParameter<DateTime> { TypedValue = From.UtcDateTime });
        fill.Parameters.Add(new NpgsqlParameter<long> { TypedValue = Quarters });
        fill.Parameters.Add(new NpgsqlParameter<long> { TypedValue = events });
        fill.Parameters.Add(new NpgsqlParameter<long> { TypedValue = UsageLoad.Models });
        await fill.ExecuteNonQueryAsync(cancellation);
    }
}
