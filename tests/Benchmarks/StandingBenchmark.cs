using System.Diagnostics;
using Npgsql;
using Tensormesh.Billing;

namespace Tensormesh.Benchmarks;

/// <summary>How long the one question takes that every verdict, status and suspension asks: what can this account spend, and until when.</summary>
internal static class StandingBenchmark
{
    private const int AccountCount = 100;
    private const int RunsPerAccount = 100;
    private const int Reads = 3_000;
    private const int Solutions = 300;
    private const int WarmUps = 300;

    public static async Task RunAsync(Workplace workplace, CancellationToken cancellation)
    {
        await using var database = await Workplace.OpenBillingAsync(await workplace.PostgresAsync(cancellation), "billing", cancellation);
        var accounts = new Accounts(database);
        var spread = Enumerable.Range(0, AccountCount).Select(i => new AccountId($"account-{i}")).ToArray();
        var price = await RunningWork.PublishAsync(database, cancellation);
        foreach (var account in spread) await RunningWork.OpenAsync(database, account, RunsPerAccount, price, cancellation);
        await RunningWork.AnalyzeAsync(database, cancellation);

        var reads = new List<double>(Reads);
        for (var i = 0; i < WarmUps + Reads; i++)
        {
            var began = Stopwatch.GetTimestamp();
            var standing = await accounts.ReadStandingAsync(spread[i % spread.Length], cancellation);
            if (i >= WarmUps) reads.Add(Stopwatch.GetElapsedTime(began).TotalMilliseconds);
            if (standing!.Intervals.Count != RunsPerAccount) throw new InvalidOperationException($"read {standing.Intervals.Count} intervals");
        }

        Workplace.Say(
            $"read: median {Samples.Median(reads):0.00} ms, p99 {Samples.Quantile(reads, 0.99):0.00} ms, load {Workplace.LoadAverage()}");
        workplace.Report(
            "p99_ms", Samples.Quantile(reads, 0.99), "ms", "<=5",
            $"reading one account's standing among {AccountCount} accounts with {RunsPerAccount} open intervals each");

        var one = new AccountId("everything");
        await RunningWork.OpenAsync(database, one, AccountCount * RunsPerAccount, price, cancellation);
        await RunningWork.AnalyzeAsync(database, cancellation);
        var whole = (await accounts.ReadStandingAsync(one, cancellation))!;
        var solutions = new List<double>(Solutions);
        for (var i = 0; i < WarmUps + Solutions; i++)
        {
            // Another balance each time, so that no two have the same answer.
            var standing = whole with { Posted = whole.Posted + new Money(i * 1_000_003L) };
            var began = Stopwatch.GetTimestamp();
            var end = standing.ExhaustsAt;
            if (i >= WarmUps) solutions.Add(Stopwatch.GetElapsedTime(began).TotalMilliseconds);
            if (end is null) throw new InvalidOperationException("an account that spends has no end");
        }

        Workplace.Say($"exhaustion: median {Samples.Median(solutions):0.00} ms, p99 {Samples.Quantile(solutions, 0.99):0.00} ms");
        workplace.Report(
            "exhausts_ms", Samples.Quantile(solutions, 0.99), "ms", null,
            $"Standing.ExhaustsAt over {whole.Intervals.Count} intervals of one account, p99");
    }
}

/// <summary>Accounts that already run something, written in bulk as the product's own calls would have left them.</summary>
internal static class RunningWork
{
    public static readonly GpuProduct Product = new("NVIDIA-H100-80GB-HBM3");
    public static readonly Money PerGpuHour = Money.Parse("2.50");

    public static async Task<PriceVersionId> PublishAsync(NpgsqlDataSource database, CancellationToken cancellation)
        => (await new Prices(database).PublishAsync(
            "default", new Dictionary<GpuProduct, Money> { [Product] = PerGpuHour }, [],
            TimeProvider.System.GetUtcNow().AddDays(-30), cancellation))[0];

    /// <summary>An account with a card and a balance, ten runs to a deployment, each deployment with its hold.</summary>
    public static async Task OpenAsync(
        NpgsqlDataSource database, AccountId account, int runs, PriceVersionId price, CancellationToken cancellation)
    {
        await new Accounts(database).DeclareAsync(account, new AccountPolicy(account.Value, null, null, "UTC"), cancellation);
        await new PaymentMethods(database, new SandboxPaymentProvider(), TimeProvider.System).AttachAsync(account, "pm_card_visa", cancellation);
        var granted = await new Ledger(database).PostAsync(
            Movements.CreditGrant(account, Money.FromUnits(1_000_000), "start", "benchmark", "running work"), cancellation);
        if (granted is not PostResult.Posted) throw new InvalidOperationException($"{granted}");

        await using var insert = database.CreateCommand(
            """
            with deployment as (select n, gen_random_uuid() id from generate_series(0, ($2 - 1) / 10) n),
            hold as (
              insert into credit_hold (deployment, account, product, gpus, per_gpu_hour_nanos, remaining_nanos, placed_at)
              select id, $1, $3, 10, $5, $5 * 10, now() - interval '1 hour' from deployment),
            run as (
              insert into run_interval (pod, pod_name, deployment, deployment_name, namespace, account, node, product, gpus, started_at,
                price_version, per_gpu_hour_nanos, rated_from, settled_until)
              select gen_random_uuid(), 'pod-' || i, d.id, 'deployment-' || d.n, 'team', $1, 'gpu-a', $3, 1, began, $4, $5, began, began
              from generate_series(0, $2 - 1) i join deployment d on d.n = i / 10,
                lateral (select now() - i * interval '1 second' as began) t
              returning pod, started_at)
            insert into run_interval_rating (pod, from_at, price_version, per_gpu_hour_nanos) select pod, started_at, $4, $5 from run
            """);
        insert.Parameters.Add(new NpgsqlParameter<string> { TypedValue = account.Value });
        insert.Parameters.Add(new NpgsqlParameter<int> { TypedValue = runs });
        insert.Parameters.Add(new NpgsqlParameter<string> { TypedValue = Product.Name });
        insert.Parameters.Add(new NpgsqlParameter<long> { TypedValue = price.Value });
        insert.Parameters.Add(new NpgsqlParameter<long> { TypedValue = PerGpuHour.Nanos });
        await insert.ExecuteNonQueryAsync(cancellation);
    }

    /// <summary>What autovacuum does a minute after a bulk load.</summary>
    public static async Task AnalyzeAsync(NpgsqlDataSource database, CancellationToken cancellation)
    {
        await using var analyze = database.CreateCommand("vacuum analyze");
        await analyze.ExecuteNonQueryAsync(cancellation);
    }
}
