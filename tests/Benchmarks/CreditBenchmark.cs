using System.Numerics;
using Npgsql;
using Tensormesh.Billing;

namespace Tensormesh.Benchmarks;

/// <summary>
/// What faulty GPUs give back, to the nano. A thousand runs of three products on twenty accounts see a price change, settlements and a fault
/// each; every credit and every bill in the ledger is compared with one computed from the evidence alone.
/// </summary>
internal static class CreditBenchmark
{
    private const int RunCount = 1_000;
    private const int AccountCount = 20;
    private const int FaultsAtOnce = 25;
    private const long NanosPerHourOfMicroseconds = 3_600_000_000;

    private static readonly DateTimeOffset Begin = new(2026, 3, 1, 12, 0, 0, TimeSpan.Zero);
    private static readonly DateTimeOffset Now = Minute(200);
    private static readonly CreditPolicy Policy = new();

    /// <summary>A product, its price, and when it took another.</summary>
    private sealed record Priced(GpuProduct Product, long Before, DateTimeOffset Change, long After);

    /// <summary>What happens to one pod.</summary>
    /// <param name="End">When it ended; null: it runs on.</param>
    /// <param name="Early">The fault is told before the second settlement.</param>
    private sealed record Story(RunStart Start, Priced Priced, DateTimeOffset? End, GpuFault Fault, bool Early);

    public static async Task RunAsync(Workplace workplace, CancellationToken cancellation)
    {
        await using var database = await Workplace.OpenBillingAsync(await workplace.PostgresAsync(cancellation), "billing", cancellation);
        var seed = Random.Shared.Next();
        var random = new Random(seed);
        Workplace.Say($"seed {seed}");
        Priced[] products =
        [
            .. new[] { "NVIDIA-H100-80GB-HBM3", "NVIDIA-L40S", "NVIDIA-A100-SXM4-80GB-MIG-1g.10gb" }.Select((name, i) => new Priced(
                new(name), random.NextInt64(100_000_000, 9_000_000_000), Minute(90 + i), random.NextInt64(100_000_000, 9_000_000_000))),
        ];
        Story[] stories = [.. Enumerable.Range(0, RunCount).Select(i => Tell(random, i, products[random.Next(products.Length)]))];
        var accounts = stories.Select(story => story.Start.Account).Distinct().ToArray();
        await HappenAsync(database, products, stories, accounts, random, cancellation);

        var (credited, charged) = await ReadAsync(database, cancellation);
        var (off, total, credits) = (BigInteger.Zero, BigInteger.Zero, 0);
        foreach (var story in stories)
        {
            var (credit, due) = Expect(story);
            off += BigInteger.Abs(credit - credited.GetValueOrDefault(story.Start.Pod)) + BigInteger.Abs(due - charged.GetValueOrDefault(story.Start.Pod));
            (total, credits) = (total + credit, credits + (credit > 0 ? 1 : 0));
        }

        Workplace.Say($"{credits} of {RunCount} faults gave back {(decimal)total} nanos in all, load {Workplace.LoadAverage()}");
        workplace.Report(
            "nanos_off", (double)off, "nanos", "0",
            $"credits and bills that differ from the evidence, over {RunCount} injected faults, of which {credits} gave something back ({total} nanos in all)");
    }

    private static Story Tell(Random random, int number, Priced priced)
    {
        DateTimeOffset Between(double from, double to) => Begin.AddMicroseconds(random.NextInt64((long)(from * 60_000_000), (long)(to * 60_000_000)));
        var (startedAt, ended, gpus) = (Between(0, 60), random.Next(3) == 0, random.Next(1, 9));
        var healthy = Between(-10, 150);
        var seen = healthy.AddMicroseconds(random.NextInt64(0, 60_000_000));
        string gpu = $"GPU-{number}", instance = $"MIG-{number}";
        return new Story(
            new RunStart
            {
                Pod = new(Guid.NewGuid()),
                PodName = $"pod-{number}",
                Deployment = new(Guid.NewGuid()),
                DeploymentName = $"deployment-{number}",
                Namespace = "team",
                Account = new($"account-{random.Next(AccountCount)}"),
                Node = "gpu-a",
                Product = priced.Product,
                Gpus = gpus,
                StartedAt = startedAt,
            },
            priced,
            ended ? startedAt.AddMicroseconds(random.NextInt64(0, 90L * 60_000_000)) : null,
            new GpuFault
            {
                Gpus = [gpu, instance],
                Gpu = gpu,
                Node = "gpu-a",
                Reason = "Lost",
                Message = "injected",
                LastHealthyAt = random.Next(10) == 0 ? null : healthy,
                SeenAt = seen,
                RecoveredAt = random.Next(3) == 0 ? seen.AddMicroseconds(random.NextInt64(1, 600_000_000)) : null,
            },
            Early: seen < Minute(85) && random.Next(2) == 0);
    }

    /// <summary>In the order in which an operator would have told of it, with ends and most faults told late.</summary>
    private static async Task HappenAsync(
        NpgsqlDataSource database, Priced[] products, Story[] stories, AccountId[] accounts, Random random, CancellationToken cancellation)
    {
        var (runs, meter, prices, faults) = (new RunIntervals(database), new Meter(database), new Prices(database), new GpuFaults(database));
        Task PublishAsync(DateTimeOffset at) => prices.PublishAsync(
            "default", products.ToDictionary(one => one.Product, one => new Money(one.Change <= at ? one.After : one.Before)), [], at, cancellation);
        async Task SettleAsync(DateTimeOffset at)
        {
            foreach (var account in accounts) await meter.SettleAsync(account, at, cancellation);
        }

        async Task ApplyAsync(IEnumerable<Story> some)
        {
            foreach (var few in some.OrderBy(_ => random.Next()).Chunk(FaultsAtOnce)) await faults.ApplyAsync(
                [.. few.Select(story => story.Fault)], Policy, Now, cancellation);
        }

        await PublishAsync(Begin.AddDays(-1));
        foreach (var account in accounts)
        {
            await new Accounts(database).DeclareAsync(account, new AccountPolicy(account.Value, null, null, "UTC"), cancellation);
            await new Ledger(database).PostAsync(
                Movements.CreditGrant(account, Money.FromUnits(1_000_000), "all", "benchmark", "enough for every run"), cancellation);
        }

        foreach (var story in stories) await runs.OpenAsync(story.Start, cancellation);
        var held = stories.Select((story, i) => new HeldGpus(story.Start.Pod, [i % 2 == 0 ? story.Fault.Gpu : story.Fault.Gpus[1]])).ToList();
        await runs.RecordGpusAsync(held, cancellation);
        await SettleAsync(Minute(70));
        await ApplyAsync(stories.Where(story => story.Early));
        foreach (var one in products) await PublishAsync(one.Change);
        await SettleAsync(Minute(120));
        foreach (var story in stories.Where(story => story.End is not null)) await runs.CloseAsync(story.Start.Pod, story.End!.Value, cancellation);
        await ApplyAsync(stories);
        await ApplyAsync(stories);
        await SettleAsync(Now);
    }

    /// <summary>What the evidence says that one run gets back for its fault, and what it costs in all.</summary>
    private static (BigInteger Credit, BigInteger Due) Expect(Story story)
    {
        var (start, fault) = (story.Start.StartedAt, story.Fault);
        var seenWell = fault.LastHealthyAt ?? fault.SeenAt;
        var paidUntil = seenWell > start ? seenWell : start;
        // Told early, a fault comes before the end of the pod is known.
        var end = story.Early ? null : story.End;
        if (fault.RecoveredAt <= start || end <= paidUntil) return (0, Due(story, story.End ?? Now));

        // By when it was told, the run had been charged to its end, or to a settlement, or was then charged to where the fault was seen.
        DateTimeOffset settled = Minute(story.Early ? 70 : 120);
        var chargedUntil = end ?? new[] { settled, fault.SeenAt, start }.Max();
        var last = story.End < paidUntil ? story.End.Value : paidUntil;
        return (Due(story, chargedUntil) - Due(story, paidUntil), Due(story, last));
    }

    private static BigInteger Due(Story story, DateTimeOffset until)
    {
        BigInteger Part(DateTimeOffset from, DateTimeOffset to, long nanosPerHour) => to <= from
            ? BigInteger.Zero
            : new BigInteger((to - from).Ticks / TimeSpan.TicksPerMicrosecond) * story.Start.Gpus * nanosPerHour / NanosPerHourOfMicroseconds;
        var (start, priced) = (story.Start.StartedAt, story.Priced);
        return Part(start, until < priced.Change ? until : priced.Change, priced.Before) + Part(priced.Change, until, priced.After);
    }

    /// <summary>By pod: what was credited for faults, and what was charged less everything that went back.</summary>
    private static async Task<(Dictionary<PodId, BigInteger> Credited, Dictionary<PodId, BigInteger> Charged)> ReadAsync(
        NpgsqlDataSource database, CancellationToken cancellation)
    {
        await using var command = database.CreateCommand(
            """
            select (t.details ->> 'pod')::uuid, coalesce(sum(e.amount_nanos) filter (where t.type = 'GpuFaultCredit'), 0), -sum(e.amount_nanos)
            from ledger_transaction t join ledger_entry e on e.transaction_position = t.position
            join ledger_account a on a.id = e.ledger_account and a.account is not null
            where t.details ? 'pod' group by 1
            """);
        await using var reader = await command.ExecuteReaderAsync(cancellation);
        var (credited, charged) = (new Dictionary<PodId, BigInteger>(), new Dictionary<PodId, BigInteger>());
        while (await reader.ReadAsync(cancellation))
        {
            var pod = new PodId(reader.GetGuid(0));
            (credited[pod], charged[pod]) = (new(reader.GetDecimal(1)), new(reader.GetDecimal(2)));
        }

        return (credited, charged);
    }

    private static DateTimeOffset Minute(double minute) => Begin.AddMinutes(minute);
}
