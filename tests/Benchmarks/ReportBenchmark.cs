using System.Diagnostics;
using Npgsql;
using Tensormesh.Billing;

namespace Tensormesh.Benchmarks;

/// <summary>
/// Whether what a customer reads slows down as the account grows: the overview and a page of transactions of an account with very many
/// entries over the same of one with a thousandth of them, on one server. The rows are written by Postgres itself, through every trigger.
/// </summary>
internal static class ReportBenchmark
{
    public const string Large = "large";
    public const string Small = "small";

    public const int SmallTransactions = 5_000;
    private const int LargeTransactions = 5_000_000;
    /// <summary>Each changes the same two sums, whose versions within one SQL transaction have to be gone through.</summary>
    private const int RowsAtOnce = 1_000;
    private const int Samples = 400;
    private const int WarmUps = 50;
    private const int PageSize = 20;

    /// <summary>Not settled by the bench's own clock: rows lie in the 60 days before this.</summary>
    public static readonly DateTimeOffset Now = new(2026, 5, 20, 15, 7, 0, TimeSpan.Zero);

    public static async Task RunAsync(Workplace workplace, CancellationToken cancellation)
    {
        var server = await workplace.PostgresAsync(cancellation);
        await using var database = await Workplace.OpenBillingAsync(server, "billing", cancellation);
        var entries = 2 * await FillAsync(database, Now, cancellation);
        var (spending, transactions) = (new Spending(database), new Transactions(database));
        var deep = new Dictionary<string, long>(StringComparer.Ordinal);
        foreach (var account in new[] { Small, Large }) deep[account] = await MiddleAsync(database, account, cancellation);

        var overview = await RatioAsync(account => spending.OverviewAsync(new(account), Now, cancellation));
        var first = await RatioAsync(account => transactions.ListAsync(new(account), null, PageSize, cancellation));
        var later = await RatioAsync(account => transactions.ListAsync(new(account), deep[account], PageSize, cancellation));
        var of = FormattableString.Invariant($"p99 for an account with {entries} entries over the same with {2 * SmallTransactions}");
        workplace.Report("overview_ratio", overview, "ratio", "<=2.0", of);
        workplace.Report("transactions_ratio", Math.Max(first, later), "ratio", "<=2.0", of + "; the worse of the first page and one in the middle");
    }

    /// <summary>Two accounts with the same 60 days. Stops early where the machine is slow: the figure says how many there were.</summary>
    /// <param name="now">Rows lie in the 60 days before.</param>
    /// <returns>Transactions of the large account.</returns>
    public static async Task<long> FillAsync(NpgsqlDataSource database, DateTimeOffset now, CancellationToken cancellation)
    {
        foreach (var account in new[] { Small, Large }) await new Accounts(database).DeclareAsync(new(account), new AccountPolicy(account, null, null, "Europe/Berlin"), cancellation);
        foreach (var account in new[] { Small, Large })
        {
            var granted = await new Ledger(database).PostAsync(Movements.CreditGrant(new(account), Money.FromUnits(1_000_000), account, "bench", "bench"), cancellation);
            if (granted is not PostResult.Posted) throw new InvalidOperationException($"a grant was not posted: {granted}");
        }

        await InsertAsync(database, Small, now, 0, SmallTransactions, SmallTransactions, cancellation);
        var began = Stopwatch.GetTimestamp();
        var (limit, all) = (TimeSpan.FromSeconds(Seconds("TENSORMESH_BENCH_LOAD_SECONDS", 900)), (long)Seconds("TENSORMESH_BENCH_TRANSACTIONS", LargeTransactions));
        var filled = 0L;
        while (filled < all && Stopwatch.GetElapsedTime(began) < limit)
        {
            var some = Math.Min(RowsAtOnce, all - filled);
            await InsertAsync(database, Large, now, filled, some, all, cancellation);
            filled += some;
            if (filled % 1_000_000 == 0) Workplace.Say($"{filled} transactions after {Stopwatch.GetElapsedTime(began).TotalSeconds:0} s");
        }

        await using var analyze = database.CreateCommand("vacuum analyze");
        analyze.CommandTimeout = 0;
        await analyze.ExecuteNonQueryAsync(cancellation);
        return filled;
    }

    private static int Seconds(string variable, int otherwise)
        => int.TryParse(Environment.GetEnvironmentVariable(variable), System.Globalization.CultureInfo.InvariantCulture, out var value) ? value : otherwise;

    /// <summary>As settlements write them: a nano-dollar amount for a window of a pod, in the order of time.</summary>
    private static async Task InsertAsync(NpgsqlDataSource database, string account, DateTimeOffset now, long from, long count, long all, CancellationToken cancellation)
    {
        await using var command = database.CreateCommand(
            """
            with posted as (
              insert into ledger_transaction (id, type, idempotency_key, effective_at, description, details, currency, accounts, amounts)
              select new_transaction_id(), 'GpuUsage', 'bench/' || $1 || '/' || i, at, '1 x NVIDIA-H100-80GB-HBM3 for 60 s (team-a/train)',
                jsonb_build_object('deployment', 'd-' || i % 50, 'deploymentName', 'train-' || i % 50, 'namespace', 'team-a', 'podName', 'train-0',
                  'product', 'NVIDIA-H100-80GB-HBM3', 'gpus', 1, 'windowStart', at - interval '60 seconds', 'windowEnd', at,
                  'priceVersion', 1, 'perGpuHourNanos', 2500000000),
                'USD', array[c.id, r.id], array[-41667 - i % 7, 41667 + i % 7]
              from ledger_account c, ledger_account r, generate_series($2, $2 + $3 - 1) i,
                lateral (select $5 - interval '60 days' + i * (interval '60 days' / $4)) a(at)
              where c.account = $1 and r.name = 'revenue:gpu' order by i
              returning customer, amounts[1] as amount)
            update ledger_balance b set amount_nanos = b.amount_nanos + p.amount
            from (select customer, sum(amount) as amount from posted group by customer) p where b.ledger_account = p.customer
            """);
        command.CommandTimeout = 0;
        command.Parameters.Add(new NpgsqlParameter<string> { TypedValue = account });
        command.Parameters.Add(new NpgsqlParameter<long> { TypedValue = from });
        command.Parameters.Add(new NpgsqlParameter<long> { TypedValue = count });
        command.Parameters.Add(new NpgsqlParameter<double> { TypedValue = all });
        command.Parameters.Add(new NpgsqlParameter<DateTime> { TypedValue = now.UtcDateTime });
        await command.ExecuteNonQueryAsync(cancellation);
    }

    private static async Task<long> MiddleAsync(NpgsqlDataSource database, string account, CancellationToken cancellation)
    {
        await using var command = database.CreateCommand(
            "select (min(t.position) + max(t.position)) / 2 from ledger_account l join ledger_transaction t on t.customer = l.id and t.type = 'GpuUsage' where l.account = $1");
        command.CommandTimeout = 0;
        command.Parameters.Add(new NpgsqlParameter<string> { TypedValue = account });
        return (long)(await command.ExecuteScalarAsync(cancellation))!;
    }

    /// <summary>The two accounts take turns, so that what else the machine does meets both alike.</summary>
    private static async Task<double> RatioAsync(Func<string, Task> read)
    {
        var (small, large) = (new List<double>(), new List<double>());
        for (var i = -WarmUps; i < Samples; i++)
        {
            foreach (var (account, times) in new[] { (Small, small), (Large, large) })
            {
                var began = Stopwatch.GetTimestamp();
                await read(account);
                if (i >= 0) times.Add(Stopwatch.GetElapsedTime(began).TotalMilliseconds);
            }
        }

        var (floor, subject) = (Benchmarks.Samples.Quantile(small, 0.99), Benchmarks.Samples.Quantile(large, 0.99));
        Workplace.Say($"small p50 {Benchmarks.Samples.Median(small):0.00} ms, p99 {floor:0.00} ms; large p50 {Benchmarks.Samples.Median(large):0.00} ms, p99 {subject:0.00} ms");
        return subject / floor;
    }
}
