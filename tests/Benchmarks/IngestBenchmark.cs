using System.Diagnostics;
using System.Globalization;
using Npgsql;
using NpgsqlTypes;
using Tensormesh.Billing;

namespace Tensormesh.Benchmarks;

/// <summary>
/// Usage events a second from HTTP to the disk, deduplicated, priced, summed and charged, over a plain binary COPY of the same rows into a table with the same primary
/// key; and the same with very many events stored. Client, Web API and Postgres share the machine.
/// </summary>
internal static class IngestBenchmark
{
    private const int Rounds = 5;
    private const int BatchesPerRound = 20;
    private const int Clients = 4;
    private const int StoredDays = 35;
    private const int LoadersAtOnce = 2;
    private const long StoredEvents = 100_000_000;
    private const int LoadSeconds = 1_500;
    private const int WarmUps = 2;

    /// <summary>What Postgres' manual advises for a server that has a machine of some memory and writes much: as it comes, it keeps 128 MB in memory, which is less than the index of
    /// one day of the 100,000,000 events, and writes whole pages anew every few seconds.</summary>
    private const string ServerSettings = """

        shared_buffers = '4GB'
        max_wal_size = '8GB'
        checkpoint_timeout = '15min'
        """;

    public static async Task RunAsync(Workplace workplace, CancellationToken cancellation)
    {
        var server = await workplace.PostgresAsync(cancellation, ServerSettings);
        await using var empty = await Workplace.OpenBillingAsync(server, "none", cancellation);
        await using var full = await Workplace.OpenBillingAsync(server, "full", cancellation);
        foreach (var database in new[] { empty, full }) await UsageLoad.OpenAccountsAsync(database, cancellation);
        var stored = await FillAsync(full, cancellation);
        await CreateFloorAsync(empty, cancellation);

        await using var onEmpty = await UsageLoad.StartAsync(empty.ConnectionString, cancellation);
        await using var onFull = await UsageLoad.StartAsync(full.ConnectionString, cancellation);
        var (seed, rss) = (Random.Shared.Next(), 0.0);
        var random = new Random(seed);
        var (floors, empties, fulls) = (new List<double>(), new List<double>(), new List<double>());
        for (var round = 1 - WarmUps; round <= Rounds; round++)
        {
            var batches = Enumerable.Range(0, BatchesPerRound).Select(_ => UsageLoad.Make(TokenMeter.MaxBatch, random)).ToArray();
            var bodies = batches.Select(UsageLoad.Json).ToArray();
            var floor = await CopyAsync(empty, batches, cancellation);
            var one = await SendAsync(onEmpty, bodies, cancellation);
            var other = await SendAsync(onFull, bodies, cancellation);
            rss = Math.Max(rss, Math.Max(ProcessUsage.PeakMegabytes(onEmpty.ProcessId), ProcessUsage.PeakMegabytes(onFull.ProcessId)));
            if (round < 1) continue;
            floors.Add(floor);
            empties.Add(one);
            fulls.Add(other);
            Workplace.Say($"round {round}: copy {floor:0}/s, ours {one:0}/s, with {stored} stored {other:0}/s, peak {rss:0} MB, load {Workplace.LoadAverage()}");
        }

        var many = stored.ToString(CultureInfo.InvariantCulture);
        workplace.Report("floor_ratio", Samples.Median(empties) / Samples.Median(floors), "ratio", ">=0.5",
            "one binary COPY of the same rows into a table with the same primary key; batches of 10000 from 4 clients, 200 accounts, 10 models, random ids; shared_buffers 4GB, max_wal_size 8GB");
        workplace.Report("full_ratio", Samples.Median(fulls) / Samples.Median(empties), "ratio", ">=0.8", $"the same with {many} events of 35 days stored over the same with none");
        workplace.Report("rss_mb", rss, "MB", "<=300", "the Web API's resident memory meanwhile, the most that it ever was");
        workplace.Report("events_per_s", Samples.Median(empties), "1/s", null, "events from HTTP to the disk");
    }

    private static async Task<double> SendAsync(UsageLoad load, byte[][] bodies, CancellationToken cancellation)
    {
        var (next, accepted, began) = (-1, 0, Stopwatch.GetTimestamp());
        await Task.WhenAll(Enumerable.Range(0, Clients).Select(_ => Task.Run(async () =>
        {
            while (Interlocked.Increment(ref next) is var i && i < bodies.Length) Interlocked.Add(ref accepted, await load.SendAsync(bodies[i], cancellation));
        }, cancellation)));
        var expected = bodies.Length * TokenMeter.MaxBatch;
        return accepted == expected
            ? expected / Stopwatch.GetElapsedTime(began).TotalSeconds
            : throw new InvalidOperationException($"{accepted} of {expected} events were accepted");
    }

    private static async Task CreateFloorAsync(NpgsqlDataSource database, CancellationToken cancellation)
    {
        await using var create = database.CreateCommand(
            """
            create table floor (day date not null, source text not null, id text not null, customer bigint not null, model text not null, at timestamptz not null,
              input_tokens bigint not null, cached_tokens bigint not null, output_tokens bigint not null, request_id text, api_key_id text, received_at timestamptz not null,
              primary key (day, source, id))
            """);
        await create.ExecuteNonQueryAsync(cancellation);
    }

    private static async Task<double> CopyAsync(NpgsqlDataSource database, UsageEvent[][] batches, CancellationToken cancellation)
    {
        var (now, began) = (TimeProvider.System.GetUtcNow(), Stopwatch.GetTimestamp());
        await using var connection = await database.OpenConnectionAsync(cancellation);
        await using var copy = await connection.BeginBinaryImportAsync("copy floor from stdin (format binary)", cancellation);
        foreach (var usage in batches.SelectMany(batch => batch))
        {
            await copy.StartRowAsync(cancellation);
            await copy.WriteAsync(DateOnly.FromDateTime(usage.At.UtcDateTime), NpgsqlDbType.Date, cancellation);
            await copy.WriteAsync(usage.Source, NpgsqlDbType.Text, cancellation);
            await copy.WriteAsync(usage.Id, NpgsqlDbType.Text, cancellation);
            await copy.WriteAsync(1L, NpgsqlDbType.Bigint, cancellation);
            await copy.WriteAsync(usage.Model, NpgsqlDbType.Text, cancellation);
            await copy.WriteAsync(usage.At, NpgsqlDbType.TimestampTz, cancellation);
            await copy.WriteAsync(usage.Input, NpgsqlDbType.Bigint, cancellation);
            await copy.WriteAsync(usage.Cached, NpgsqlDbType.Bigint, cancellation);
            await copy.WriteAsync(usage.Output, NpgsqlDbType.Bigint, cancellation);
            await copy.WriteNullAsync(cancellation);
            await copy.WriteNullAsync(cancellation);
            await copy.WriteAsync(now, NpgsqlDbType.TimestampTz, cancellation);
        }

        var rows = await copy.CompleteAsync(cancellation);
        return rows / Stopwatch.GetElapsedTime(began).TotalSeconds;
    }

    /// <summary>Days of events, the newest first, each written by Postgres and indexed at once; and their sums by quarters of an hour, of every account and model.</summary>
    /// <returns>Events that are stored: as many as fit into the time.</returns>
    private static async Task<long> FillAsync(NpgsqlDataSource database, CancellationToken cancellation)
    {
        var began = Stopwatch.GetTimestamp();
        var (limit, all) = (TimeSpan.FromSeconds(Number("TENSORMESH_BENCH_LOAD_SECONDS", LoadSeconds)), Number("TENSORMESH_BENCH_EVENTS", StoredEvents));
        var (today, stored) = (DateOnly.FromDateTime(TimeProvider.System.GetUtcNow().UtcDateTime), 0L);
        await Parallel.ForEachAsync(
            Enumerable.Range(0, StoredDays), new ParallelOptions { MaxDegreeOfParallelism = LoadersAtOnce, CancellationToken = cancellation }, async (ago, _) =>
            {
                if (Stopwatch.GetElapsedTime(began) > limit) return;
                var (day, count) = (today.AddDays(-ago), all / StoredDays);
                await FillDayAsync(database, day, count, cancellation);
                Workplace.Say($"{Interlocked.Add(ref stored, count)} events after {Stopwatch.GetElapsedTime(began).TotalSeconds:0} s");
            });
        await ExecuteAsync(database, "vacuum analyze token_bucket");
        return stored;
    }

    private static async Task FillDayAsync(NpgsqlDataSource database, DateOnly day, long count, CancellationToken cancellation)
    {
        var name = $"usage_event_{day.ToString("yyyyMMdd", CultureInfo.InvariantCulture)}";
        var date = day.ToString("yyyy-MM-dd", CultureInfo.InvariantCulture);
        await ExecuteAsync(database, FormattableString.Invariant(
            $"""
            begin;
            create table {name} (like usage_event including defaults including constraints);
            insert into {name}
            select '{date}', '/inference/gateway-' || i % 4, 'chatcmpl-' || md5(i || '{date}'), a.id, 'vendor/model-' || i % {UsageLoad.Models} || '-instruct',
              timestamptz '{date} 00:00Z' + i * (interval '1 day' / {count}), 5000 + i % 5000, i % 5000, 1 + i % 2000, null, null, now()
            from generate_series(1, {count}) i join (select id, row_number() over () as n from ledger_account where account is not null) a on a.n = 1 + i % {UsageLoad.Accounts};
            alter table {name} add primary key (day, source, id);
            alter table usage_event attach partition {name} for values from ('{date}') to ('{day.AddDays(1).ToString("yyyy-MM-dd", CultureInfo.InvariantCulture)}');
            insert into token_balance (customer) select id from ledger_account where account is not null order by 1 on conflict do nothing;
            insert into token_bucket (customer, bucket, model, price_version, events, input_tokens, cached_tokens, output_tokens, cost_nanos, last_at, settled_input, settled_cached,
              settled_output, settled_nanos)
            select a.id, b, p.item, p.id, 40, 280000, 100000, 40000, 1000, b + interval '14 minutes', 280000, 100000, 40000, 1000
            from ledger_account a, price_version p, generate_series(timestamptz '{date} 00:00Z', timestamptz '{date} 23:45Z', interval '15 minutes') b
            where a.account is not null and p.kind = 'token' and b + interval '15 minutes' < now() - interval '1 hour' order by 1, 2, 3;
            commit
            """));
    }

    private static async Task ExecuteAsync(NpgsqlDataSource database, string sql)
    {
        await using var command = database.CreateCommand(sql);
        command.CommandTimeout = 0;
        await command.ExecuteNonQueryAsync();
    }

    private static long Number(string variable, long otherwise)
        => long.TryParse(Environment.GetEnvironmentVariable(variable), CultureInfo.InvariantCulture, out var value) ? value : otherwise;
}
