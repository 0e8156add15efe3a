using System.Collections.Concurrent;
using System.Diagnostics;
using Npgsql;
using NpgsqlTypes;

namespace Tensormesh.Billing;

/// <summary>What became of a batch.</summary>
/// <param name="Outcomes">Of each event, in the order in which they came.</param>
/// <param name="Unpriced">How many of the accepted ones are of models without a price, by model.</param>
public sealed record UsageReceipt(IReadOnlyList<UsageOutcome> Outcomes, IReadOnlyDictionary<string, long> Unpriced);

/// <summary>Usage that is held until its model has a price.</summary>
public sealed record UnpricedUsage(string Model, long Events, TokenTotals Tokens);

/// <summary>
/// Takes usage events: each is counted once, priced at its own time, and drawn on its account's standing, in one statement and one SQL transaction for
/// a whole batch (<c>ingest_usage</c>). What is answered is on disk; without an answer the same batch can be sent again, as often as it takes.
/// </summary>
/// <param name="time">For tests; null: the clock of Postgres.</param>
public sealed class TokenMeter(NpgsqlDataSource dataSource, TimeProvider? time = null)
{
    /// <summary>Events of one call.</summary>
    public const int MaxBatch = 10_000;

    /// <summary>Accounts are never closed, so that one that was found once is not looked for again. A bound all the same.</summary>
    private const int MostKnownAccounts = 100_000;

    private readonly NpgsqlDataSource dataSource = dataSource;
    private readonly TimeProvider? time = time;
    private readonly StandingHints hints = StandingHints.Of(dataSource);
    private readonly ConcurrentDictionary<AccountId, long> customers = [];
    private readonly ConcurrentDictionary<DateOnly, bool> days = [];

    /// <summary>Whether events are expected to be new: while something is sent again, more of it mostly is. Only how a batch is written depends on it.</summary>
    private volatile bool areFresh = true;

    /// <param name="events">At most <see cref="MaxBatch"/>.</param>
    public async Task<UsageReceipt> IngestAsync(IReadOnlyList<UsageEvent> events, CancellationToken cancellation)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan(events.Count, MaxBatch, nameof(events));
        using var span = BillingTrace.Source.StartActivity("ingest usage");
        span?.SetTag("tensormesh.usage.events", events.Count);
        var now = time?.GetUtcNow().ToLedgerTime() ?? await ReadClockAsync(cancellation);
        var outcomes = new UsageOutcome?[events.Count];
        await FindCustomersAsync(events, cancellation);
        var sent = Sort(events, outcomes, now);
        var unpriced = new Dictionary<string, long>(StringComparer.Ordinal);
        if (sent.Count > 0)
        {
            await EnsureDaysAsync(sent, cancellation);
            var batch = await SendAsync(sent, now, cancellation);
            for (var i = 0; i < batch.Known.Length; i++)
            {
                outcomes[sent[batch.Known[i]].Place] = batch.Same[i] ? UsageOutcome.Duplicate.Known : Reused(sent[batch.Known[i]].Usage);
            }

            foreach (var one in sent) outcomes[one.Place] ??= UsageOutcome.Accepted.Once;
            for (var i = 0; i < batch.UnpricedModels.Length; i++) unpriced[batch.UnpricedModels[i]] = batch.UnpricedEvents[i];
            Tell(sent, batch.Customers, batch.Funds);
        }

        ResolveTwins(events, outcomes);
        return new(outcomes!, unpriced);
    }

    /// <summary>By model, those with the most events first.</summary>
    public Task<IReadOnlyList<UnpricedUsage>> ListUnpricedAsync(CancellationToken cancellation)
        => Transact.UseAsync<IReadOnlyList<UnpricedUsage>>(dataSource, async connection =>
        {
            await using var command = new NpgsqlCommand(
                """
                select model, sum(events)::bigint, sum(input_tokens)::bigint, sum(cached_tokens)::bigint, sum(output_tokens)::bigint
                from token_bucket where price_version = 0 group by model order by 2 desc, 1
                """, connection);
            await using var reader = await command.ExecuteReaderAsync(cancellation);
            var unpriced = new List<UnpricedUsage>();
            while (await reader.ReadAsync(cancellation))
            {
                unpriced.Add(new(reader.GetString(0), reader.GetInt64(1), new(reader.GetInt64(2), reader.GetInt64(3), reader.GetInt64(4))));
            }

            return unpriced;
        }, cancellation);

    /// <summary>Makes the partitions of today and tomorrow, and drops those of days of which no event is taken any more.</summary>
    /// <returns>How many were dropped.</returns>
    public async Task<int> KeepDaysAsync(CancellationToken cancellation)
    {
        var now = time?.GetUtcNow() ?? await ReadClockAsync(cancellation);
        foreach (var day in (DateOnly[])[DayOf(now), DayOf(now).AddDays(1)]) await EnsureDayAsync(day, cancellation);
        var before = DayOf(now - UsageRule.Kept);
        var dropped = await Transact.UseAsync(dataSource, async connection =>
        {
            await using var drop = new NpgsqlCommand("select drop_usage_days($1)", connection) { Parameters = { Transact.Value(before) } };
            return (int)(await drop.ExecuteScalarAsync(cancellation))!;
        }, cancellation);
        foreach (var day in days.Keys.Where(day => day < before)) days.TryRemove(day, out _);
        return dropped;
    }

    /// <summary>An event that is sent to the database, and its place among those that came.</summary>
    private readonly record struct Sent(UsageEvent Usage, DateOnly Day, long Customer, int Place);

    private sealed record Batch(int[] Known, bool[] Same, long[] Customers, long[] Funds, string[] UnpricedModels, long[] UnpricedEvents);

    private static DateOnly DayOf(DateTimeOffset at) => DateOnly.FromDateTime(at.UtcDateTime);

    private static UsageOutcome.Rejected Reused(UsageEvent usage) => new(UsageRefusal.IdReused,
        $"Another event of {usage.Source} has the id {usage.Id}, and other content: it was counted as it came first. Give every event an id of its own.");

    private Task<DateTimeOffset> ReadClockAsync(CancellationToken cancellation) => Transact.UseAsync(dataSource, async connection =>
    {
        await using var command = new NpgsqlCommand("select clock_timestamp()", connection);
        return new DateTimeOffset((DateTime)(await command.ExecuteScalarAsync(cancellation))!);
    }, cancellation);

    /// <summary>Refuses what cannot be counted, and puts the rest in the order in which every batch is written: two with the same events then wait
    /// for each other, and not each for the other. What comes twice is sent once.</summary>
    private List<Sent> Sort(IReadOnlyList<UsageEvent> events, UsageOutcome?[] outcomes, DateTimeOffset now)
    {
        var sent = new List<Sent>(events.Count);
        for (var i = 0; i < events.Count; i++)
        {
            var usage = events[i];
            if (UsageRule.Refuse(usage, now) is { } refused) outcomes[i] = refused;
            else if (customers.TryGetValue(usage.Account, out var customer)) sent.Add(new(usage, DayOf(usage.At), customer, i));
            else outcomes[i] = new UsageOutcome.Rejected(UsageRefusal.AccountUnknown,
                $"The ledger knows no account '{usage.Account}': apply a BillingAccount of that name, and send the event again.");
        }

        sent.Sort(static (left, right) =>
        {
            var order = left.Day.CompareTo(right.Day);
            if (order == 0) order = string.CompareOrdinal(left.Usage.Source, right.Usage.Source);
            if (order == 0) order = string.CompareOrdinal(left.Usage.Id, right.Usage.Id);
            return order != 0 ? order : left.Place.CompareTo(right.Place);
        });
        var kept = 0;
        for (var i = 0; i < sent.Count; i++)
        {
            if (kept > 0 && IsTwin(sent[kept - 1], sent[i])) continue;
            sent[kept++] = sent[i];
        }

        sent.RemoveRange(kept, sent.Count - kept);
        return sent;
    }

    private static bool IsTwin(Sent one, Sent other) => one.Day == other.Day && one.Usage.Source == other.Usage.Source && one.Usage.Id == other.Usage.Id;

    /// <summary>What came twice in one batch: of the first it is known what became of it.</summary>
    private static void ResolveTwins(IReadOnlyList<UsageEvent> events, UsageOutcome?[] outcomes)
    {
        if (!Array.Exists(outcomes, outcome => outcome is null)) return;
        var first = new Dictionary<(DateOnly, string, string), UsageEvent>();
        for (var i = 0; i < outcomes.Length; i++)
        {
            var usage = events[i];
            if (outcomes[i] is UsageOutcome.Rejected { Reason: not UsageRefusal.IdReused }) continue;
            if (first.TryAdd((DayOf(usage.At), usage.Source, usage.Id), usage)) continue;
            var counted = first[(DayOf(usage.At), usage.Source, usage.Id)];
            outcomes[i] ??= (counted.Account, counted.Model, counted.Input, counted.Cached, counted.Output)
                == (usage.Account, usage.Model, usage.Input, usage.Cached, usage.Output) ? UsageOutcome.Duplicate.Known : Reused(usage);
        }
    }

    private async Task FindCustomersAsync(IReadOnlyList<UsageEvent> events, CancellationToken cancellation)
    {
        var unknown = events.Select(usage => usage.Account).Where(account => !customers.ContainsKey(account)).Distinct().ToArray();
        if (unknown.Length == 0) return;
        if (customers.Count > MostKnownAccounts) customers.Clear();
        await Transact.UseAsync(dataSource, async connection =>
        {
            await using var find = new NpgsqlCommand("select account, id from ledger_account where account = any ($1)", connection)
            {
                Parameters = { Transact.Value(unknown.Select(account => account.Value).ToArray()) },
            };
            await using var reader = await find.ExecuteReaderAsync(cancellation);
            while (await reader.ReadAsync(cancellation)) customers[new(reader.GetString(0))] = reader.GetInt64(1);
            return true;
        }, cancellation);
    }

    private async Task EnsureDaysAsync(List<Sent> sent, CancellationToken cancellation)
    {
        foreach (var day in sent.Select(one => one.Day).Distinct()) await EnsureDayAsync(day, cancellation);
    }

    private async Task EnsureDayAsync(DateOnly day, CancellationToken cancellation)
    {
        if (days.ContainsKey(day)) return;
        await Transact.RunAsync(dataSource, async connection =>
        {
            await using var ensure = new NpgsqlCommand("select ensure_usage_day($1)", connection) { Parameters = { Transact.Value(day) } };
            return await ensure.ExecuteNonQueryAsync(cancellation);
        }, cancellation);
        days[day] = true;
    }

    private Task<Batch> SendAsync(List<Sent> sent, DateTimeOffset now, CancellationToken cancellation)
    {
        T[] Column<T>(Func<Sent, T> of)
        {
            var column = new T[sent.Count];
            for (var i = 0; i < column.Length; i++) column[i] = of(sent[i]);
            return column;
        }

        return Transact.RetryAsync(() => Transact.UseAsync(dataSource, async connection =>
        {
            await using var command = new NpgsqlCommand(
                "select known, same, customers, funds, unpriced_models, unpriced_events from ingest_usage($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
                connection)
            {
                Parameters =
                {
                    Transact.Value(now), Transact.Value(Activity.Current?.Id, NpgsqlDbType.Text), Transact.Value(areFresh),
                    Transact.Value(Column(one => one.Day)),
                    Transact.Value(Column(one => one.Usage.Source)), Transact.Value(Column(one => one.Usage.Id)), Transact.Value(Column(one => one.Customer)),
                    Transact.Value(Column(one => one.Usage.Model)), Transact.Value(Column(one => one.Usage.At.ToLedgerTime())),
                    Transact.Value(Column(one => one.Usage.Input)), Transact.Value(Column(one => one.Usage.Cached)),
                    Transact.Value(Column(one => one.Usage.Output)), Transact.Value(Column(one => one.Usage.RequestId), NpgsqlDbType.Array | NpgsqlDbType.Text),
                    Transact.Value(Column(one => one.Usage.ApiKeyId), NpgsqlDbType.Array | NpgsqlDbType.Text),
                },
            };
            await using var reader = await command.ExecuteReaderAsync(cancellation);
            if (!await reader.ReadAsync(cancellation)) throw new InvalidOperationException("ingest_usage returned no row");
            T[] Read<T>(int ordinal) => reader.IsDBNull(ordinal) ? [] : reader.GetFieldValue<T[]>(ordinal);
            var batch = new Batch(Read<int>(0), Read<bool>(1), Read<long>(2), Read<long>(3), Read<string>(4), Read<long>(5));
            // The commit comes after the row, and what it refuses is seen only by reading on.
            while (await reader.NextResultAsync(cancellation)) { }
            areFresh = batch.Known.Length == 0;
            return batch;
        }, cancellation));
    }

    /// <summary>Whose money is used up is told of at once, the others within a second.</summary>
    private void Tell(List<Sent> sent, long[] charged, long[] funds)
    {
        var names = new Dictionary<long, string>();
        foreach (var one in sent) names.TryAdd(one.Customer, one.Usage.Account.Value);
        var left = charged.Zip(funds).ToLookup(one => one.Second > 0, one => names[one.First]);
        hints.Tell(left[false]);
        hints.TellSoon(left[true]);
    }
}
