using System.Diagnostics;
using Tensormesh.Billing;

namespace Tensormesh.Benchmarks;

/// <summary>
/// How many balanced transactions a second the ledger takes, over what Postgres itself does on the same server with
/// <c>pgbench -b simple-update</c>: one row updated and one inserted where ours writes a header, two entries and two balances.
/// </summary>
internal static class LedgerBenchmark
{
    private const int Clients = 8;
    private const int PgbenchThreads = 2;
    private const int PgbenchScale = 10;
    private const int AccountCount = 1_000;
    private const int BatchSize = 500;
    private const int Rounds = 5;
    private static readonly TimeSpan Duration = TimeSpan.FromSeconds(3);
    private static readonly TimeSpan WarmUp = TimeSpan.FromSeconds(2);

    public static async Task RunAsync(Workplace workplace, CancellationToken cancellation)
    {
        var server = await workplace.PostgresAsync(cancellation);
        var pgbench = new Pgbench(await server.CreateDatabaseAsync("pgbench", cancellation));
        await pgbench.InitializeAsync(PgbenchScale, cancellation);
        await using var database = await Workplace.OpenBillingAsync(server, "billing", cancellation);
        var ledger = new Ledger(database);
        var accounts = await DeclareAsync(new Accounts(database), cancellation);
        var hot = accounts[0];

        var spread = new Load(() => ledger, random => accounts[random.Next(accounts.Length)], 1);
        var onOne = new Load(() => ledger, _ => hot, 1);
        // Eight processes' worth of clients, which cannot share a commit: what the lock of one row allows.
        var apart = new Load(() => new Ledger(database), _ => hot, 1);
        var batched = new Load(() => ledger, random => accounts[random.Next(accounts.Length)], BatchSize);
        foreach (var load in new[] { spread, onOne, apart, batched }) await load.PerSecondAsync(WarmUp, cancellation);
        await RunningWork.AnalyzeAsync(database, cancellation);

        var (floors, spreads, hots, batches, aparts) = (
            new List<double>(), new List<double>(), new List<double>(), new List<double>(), new List<double>());
        for (var round = 1; round <= Rounds; round++)
        {
            // Interleaved, so that what else the machine does meets the floor and the subjects alike.
            floors.Add(await pgbench.SimpleUpdateAsync(Clients, PgbenchThreads, Duration, cancellation));
            spreads.Add(await spread.PerSecondAsync(Duration, cancellation));
            hots.Add(await onOne.PerSecondAsync(Duration, cancellation));
            aparts.Add(await apart.PerSecondAsync(Duration, cancellation));
            batches.Add(await batched.PerSecondAsync(Duration, cancellation));
            Workplace.Say(
                $"round {round}: pgbench {floors[^1]:0}/s, spread {spreads[^1]:0}/s, hot {hots[^1]:0}/s (apart {aparts[^1]:0}/s), batched {batches[^1]:0}/s, load {Workplace.LoadAverage()}");
        }

        var floor = Samples.Median(floors);
        const string peer = "pgbench -b simple-update -c 8 -j 2 on the same server";
        workplace.Report("spread_ratio", Samples.Median(spreads) / floor, "ratio", ">=1.0", peer);
        workplace.Report("hot_ratio", Samples.Median(hots) / floor, "ratio", ">=0.7", peer);
        workplace.Report(
            "hot_apart_ratio", Samples.Median(aparts) / floor, "ratio", null, peer + "; every post in an SQL transaction of its own");
        workplace.Report("batched_ratio", Samples.Median(batches) / floor, "ratio", ">=4.0", peer);
    }

    private static async Task<AccountId[]> DeclareAsync(Accounts accounts, CancellationToken cancellation)
    {
        var ids = Enumerable.Range(0, AccountCount).Select(i => new AccountId($"account-{i}")).ToArray();
        await Parallel.ForEachAsync(
            ids, new ParallelOptions { MaxDegreeOfParallelism = Clients, CancellationToken = cancellation },
            async (id, token) => await accounts.DeclareAsync(id, new AccountPolicy(id.Value, null, null, "UTC"), token));
        return ids;
    }

    /// <summary>Clients that post top-ups one after the other, each in SQL transactions of a number of movements.</summary>
    private sealed class Load(Func<Ledger> open, Func<Random, AccountId> choose, int batch)
    {
        private static long payments;

        /// <summary>Movements posted a second by all clients together.</summary>
        public async Task<double> PerSecondAsync(TimeSpan duration, CancellationToken cancellation)
        {
            var began = Stopwatch.GetTimestamp();
            var counts = await Task.WhenAll(Enumerable.Range(0, Clients).Select(
                client => Task.Run(() => ClientAsync(new Random(client), began, duration, cancellation), cancellation)));
            return counts.Sum() / Stopwatch.GetElapsedTime(began).TotalSeconds;
        }

        private async Task<long> ClientAsync(Random random, long began, TimeSpan duration, CancellationToken cancellation)
        {
            var ledger = open();
            var posted = 0L;
            while (Stopwatch.GetElapsedTime(began) < duration)
            {
                var results = batch == 1
                    ? [await ledger.PostAsync(Next(random), cancellation)]
                    : await ledger.PostManyAsync([.. Enumerable.Range(0, batch).Select(_ => Next(random))], cancellation);
                if (results.FirstOrDefault(result => result is not PostResult.Posted) is { } other)
                {
                    throw new InvalidOperationException($"a post was not posted: {other}");
                }

                posted += results.Count;
            }

            return posted;
        }

        private Movement Next(Random random) => Movements.TopUp(
            choose(random), new Money(1_000_000), "sandbox", $"pi_{Interlocked.Increment(ref payments)}", "pm_card_visa");
    }
}
