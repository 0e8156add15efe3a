using Npgsql;

namespace Tensormesh.Billing;

/// <summary>The beginning of one pod's hold on its GPUs, in the times that the kubelet reported.</summary>
public record RunStart
{
    public required PodId Pod { get; init; }
    public required string PodName { get; init; }
    public required DeploymentId Deployment { get; init; }
    public required string DeploymentName { get; init; }
    public required string Namespace { get; init; }
    public required AccountId Account { get; init; }
    public required string Node { get; init; }
    public required GpuProduct Product { get; init; }
    public required int Gpus { get; init; }
    public required DateTimeOffset StartedAt { get; init; }
}

/// <summary>An interval that is not ended, whether or not it still accrues.</summary>
/// <param name="ChargeUntil">Set when charging was stopped before the pod's end (a suspension).</param>
public sealed record OpenRun(PodId Pod, DeploymentId Deployment, AccountId Account, DateTimeOffset StartedAt, DateTimeOffset? ChargeUntil);

/// <summary>Which GPUs a pod's hold is on, as its node saw it: the evidence of what was charged.</summary>
/// <param name="Gpus">UUIDs of GPUs or MIG instances, in order.</param>
public sealed record HeldGpus(PodId Pod, IReadOnlyList<string> Gpus);

/// <summary>Run intervals: one pod's hold on its GPUs, from the container's startedAt to its termination.</summary>
public sealed class RunIntervals(NpgsqlDataSource dataSource, OperatorEpoch? epoch = null)
{
    /// <summary>More than any node has, MIG instances included.</summary>
    public const int MaxGpus = 64;

    private readonly NpgsqlDataSource dataSource = dataSource;
    private readonly StandingHints hints = StandingHints.Of(dataSource);
    private readonly OperatorEpoch? epoch = epoch;

    /// <summary>Records a start as it happens, or of a pod that is paid for whatever happened since.</summary>
    public Task<bool> OpenAsync(RunStart start, CancellationToken cancellation) => OpenAsync(start, null, start.StartedAt, cancellation);

    /// <summary>Records the start at the price in force at <see cref="RunStart.StartedAt"/>. Idempotent by pod: the first start recorded
    /// stays.</summary>
    /// <remarks>A start that is reported after a price change is charged at each price for its time. If the balance had run out before that
    /// change, charging stops where it did, and what ran from there until now is written off, at each price as well.</remarks>
    /// <param name="endedAt">The pod's end, where that is known already: nothing ran after it.</param>
    /// <returns>False when the interval was already recorded.</returns>
    /// <exception cref="InvalidOperationException">The product never had a price, or the ledger knows no such account.</exception>
    public async Task<bool> OpenAsync(RunStart start, DateTimeOffset? endedAt, DateTimeOffset now, CancellationToken cancellation)
    {
        var opened = await Transact.RunAsync(dataSource, async connection =>
        {
            var prices = await LockAndReadPricesAsync(connection, start.Product, cancellation);
            var startedAt = start.StartedAt.ToLedgerTime();
            var price = PriceHistory.InForce(prices, startedAt)
                ?? throw new InvalidOperationException(
                    $"pod {start.Namespace}/{start.PodName} holds {start.Gpus} x {start.Product}, "
                    + "for which no PriceBook ever named a price");
            var locked = await LockedAccount.LockAsync(connection, epoch, start.Account, [], cancellation)
                ?? throw new InvalidOperationException(
                    $"pod {start.Namespace}/{start.PodName} runs for account {start.Account}, which the ledger does not know");

            var run = new Run(start with { StartedAt = startedAt }, price.Version, price.PerGpuHour!.Value)
            {
                LaterPrices = [.. PriceHistory.ChangesAfter(prices, price, startedAt).Select(change => new RunRating(change.EffectiveAt, change.Version, change.PerGpuHour!.Value))],
            };
            if (!await InsertAsync(connection, run, cancellation)) return false;
            locked.Add(run);
            foreach (var change in run.LaterPrices)
            {
                if (locked.ExhaustsAt is { } exhausted && exhausted < change.From)
                {
                    // What had ended by then has not used the balance up: its end is recorded next.
                    if (endedAt is null || exhausted < endedAt) locked.SuspendExhausted(
                        exhausted, Instants.Later((endedAt ?? now).ToLedgerTime(), exhausted), new CreditPolicy());
                    break;
                }

                locked.Reprice(locked.Find(run.Pod)!, change.Version, change.PerGpuHour, change.From);
            }

            await locked.WriteAsync(cancellation);
            return true;
        }, cancellation);
        if (opened) hints.Tell(start.Account);
        return opened;
    }

    /// <summary>
    /// Records the end and settles the interval to it, in one SQL transaction; when settlement had run past it, the difference goes back
    /// as a correction. Idempotent: the first end recorded stays. Unknown pods are ignored.
    /// </summary>
    /// <returns>True when this call ended the interval.</returns>
    public Task<bool> CloseAsync(PodId pod, DateTimeOffset endedAt, CancellationToken cancellation)
        => CloseAsync(pod, endedAt, new CreditPolicy(), cancellation);

    /// <summary>
    /// The same. If the balance had run out before the end, charging stops where it did, and the rest is written off when it is longer than
    /// the policy's tolerance.
    /// </summary>
    public Task<bool> CloseAsync(PodId pod, DateTimeOffset endedAt, CreditPolicy policy, CancellationToken cancellation)
        => CloseAtAsync(pod, endedAt, policy, cancellation);

    /// <summary>Ends an interval of whose end nothing is known where it is settled: nobody has seen it run after that. Idempotent.</summary>
    /// <returns>True when this call ended the interval.</returns>
    public Task<bool> CloseWhereSettledAsync(PodId pod, CreditPolicy policy, CancellationToken cancellation)
        => CloseAtAsync(pod, null, policy, cancellation);

    private async Task<bool> CloseAtAsync(PodId pod, DateTimeOffset? endedAt, CreditPolicy policy, CancellationToken cancellation)
    {
        var ended = default(AccountId);
        var closed = await Transact.RunAsync(dataSource, async connection =>
        {
            if (await ReadAccountAsync(connection, pod, cancellation) is not { } account) return false;
            var locked = await LockedAccount.LockAsync(connection, epoch, account, [pod], cancellation);
            if (locked?.Find(pod) is not { EndedAt: null } run) return false;
            var end = Instants.Later((endedAt ?? run.SettledUntil).ToLedgerTime(), run.StartedAt);
            var totals = end < run.SettledUntil ? (await RunRows.ReadRatingsAsync(connection, [pod], cancellation))[pod] : [];
            locked.Close(run, end, [.. totals], policy);
            await locked.WriteAsync(cancellation);
            ended = account;
            return true;
        }, cancellation);
        if (closed) hints.Tell(ended);
        return closed;
    }

    /// <summary>
    /// Keeps which GPUs the pods hold, in one round trip. Idempotent: what was recorded first for a pod stays. Pods without an interval
    /// are ignored, so that the caller asks again once there is one.
    /// </summary>
    /// <returns>The pods whose GPUs are recorded now, by this call or before.</returns>
    /// <exception cref="ArgumentException">A pod holds no GPU or more than <see cref="MaxGpus"/>, or a UUID is empty.</exception>
    public async Task<IReadOnlyCollection<PodId>> RecordGpusAsync(IReadOnlyList<HeldGpus> held, CancellationToken cancellation)
    {
        foreach (var one in held) RefuseUnsound(one);
        if (held.Count == 0) return [];
        var gpus = held.DistinctBy(one => one.Pod).SelectMany(one => one.Gpus.Select(gpu => (Pod: one.Pod.Value, Gpu: gpu))).ToList();
        return await Transact.RetryAsync(() => Transact.UseAsync(dataSource, async connection =>
        {
            await using var batch = new NpgsqlBatch(connection);
            batch.BatchCommands.Add(Transact.Command(
                SqlText.RecordGpus, Transact.Value(gpus.Select(one => one.Pod).ToArray()), Transact.Value(gpus.Select(one => one.Gpu).ToArray())));
            // A statement of its own: it sees what another call has recorded while this one waited for it.
            batch.BatchCommands.Add(Transact.Command(
                "select pod from run_interval_gpus where pod = any ($1)", Transact.Value(held.Select(one => one.Pod.Value).ToArray())));
            if (epoch is not null) batch.BatchCommands.Add(epoch.Check());
            await using var reader = await batch.ExecuteReaderAsync(cancellation);
            var recorded = new List<PodId>();
            while (await reader.ReadAsync(cancellation)) recorded.Add(new(reader.GetGuid(0)));
            // An epoch that is over is the last statement's error, which is met only when that is read.
            while (await reader.NextResultAsync(cancellation)) { }
            return recorded;
        }, cancellation));
    }

    private static void RefuseUnsound(HeldGpus held)
    {
        if (held.Gpus.Count is 0 or > MaxGpus) throw new ArgumentException(
            $"pod {held.Pod} is said to hold {held.Gpus.Count} GPUs: 1 to {MaxGpus} can be recorded", nameof(held));
        if (held.Gpus.Any(string.IsNullOrWhiteSpace)) throw new ArgumentException($"a GPU of pod {held.Pod} has an empty UUID", nameof(held));
    }

    public Task<IReadOnlyList<OpenRun>> ListOpenAsync(DeploymentId deployment, CancellationToken cancellation)
        => ListAsync(deployment, cancellation);

    /// <summary>All open runs of all deployments: for the sweep that compares them with the cluster's truth.</summary>
    public Task<IReadOnlyList<OpenRun>> ListOpenAsync(CancellationToken cancellation) => ListAsync(null, cancellation);

    /// <summary>Every deployment that has an open run or a hold, with its namespace and name; none for a hold that never ran.</summary>
    public Task<IReadOnlyList<(DeploymentId Deployment, (string Namespace, string Name)? Owner)>> ListOpenOwnersAsync(CancellationToken cancellation)
        => Transact.UseAsync<IReadOnlyList<(DeploymentId, (string, string)?)>>(dataSource, async connection =>
        {
            await using var command = new NpgsqlCommand(
                """
                select coalesce(r.deployment, h.deployment), r.namespace, r.deployment_name
                from (select distinct deployment, namespace, deployment_name from run_interval where ended_at is null) r
                full join credit_hold h on h.deployment = r.deployment
                """, connection);
            await using var reader = await command.ExecuteReaderAsync(cancellation);
            var owners = new List<(DeploymentId, (string, string)?)>();
            while (await reader.ReadAsync(cancellation)) owners.Add((new(reader.GetGuid(0)), reader.IsDBNull(1) ? null : (reader.GetString(1), reader.GetString(2))));
            return owners;
        }, cancellation);

    private Task<IReadOnlyList<OpenRun>> ListAsync(DeploymentId? deployment, CancellationToken cancellation)
        => Transact.UseAsync(dataSource, async connection =>
        {
            await using var batch = new NpgsqlBatch(connection);
            batch.BatchCommands.Add(OpenCommand(deployment));
            await using var reader = await batch.ExecuteReaderAsync(cancellation);
            return await ReadOpenAsync(reader, cancellation);
        }, cancellation);

    /// <summary>Of one deployment, which an index finds, or of all: one statement for both would be planned for all.</summary>
    internal static NpgsqlBatchCommand OpenCommand(DeploymentId? deployment)
    {
        const string Open = "select pod, deployment, account, started_at, charge_until from run_interval where ended_at is null";
        return deployment is { } one
            ? Transact.Command($"{Open} and deployment = $1 order by started_at, pod", Transact.Value(one.Value))
            : Transact.Command($"{Open} order by started_at, pod");
    }

    internal static async Task<IReadOnlyList<OpenRun>> ReadOpenAsync(NpgsqlDataReader reader, CancellationToken cancellation)
    {
        var runs = new List<OpenRun>();
        while (await reader.ReadAsync(cancellation))
        {
            runs.Add(new(
                new(reader.GetGuid(0)), new(reader.GetGuid(1)), new(reader.GetString(2)), reader.GetFieldValue<DateTimeOffset>(3),
                reader.IsDBNull(4) ? null : reader.GetFieldValue<DateTimeOffset>(4)));
        }

        return runs;
    }

    private static async Task<bool> InsertAsync(NpgsqlConnection connection, Run run, CancellationToken cancellation)
    {
        await using var command = new NpgsqlCommand(SqlText.InsertRun, connection)
        {
            Parameters =
            {
                Transact.Value(run.Pod.Value), Transact.Value(run.PodName), Transact.Value(run.Deployment.Value),
                Transact.Value(run.DeploymentName),
                Transact.Value(run.Namespace), Transact.Value(run.Account.Value), Transact.Value(run.Node),
                Transact.Value(run.Product.Name),
                Transact.Value(run.Gpus), Transact.Value(run.StartedAt), Transact.Value(run.PriceVersion.Value),
                Transact.Value(run.PerGpuHour.Nanos),
            },
        };
        return await command.ExecuteNonQueryAsync(cancellation) > 0;
    }

    private static async Task<IReadOnlyList<PriceRow>> LockAndReadPricesAsync(
        NpgsqlConnection connection, GpuProduct product, CancellationToken cancellation)
    {
        await using var batch = new NpgsqlBatch(connection)
        {
            BatchCommands = { Transact.Command(PriceHistory.LockShared), PriceHistory.Command(product) },
        };
        await using var reader = await batch.ExecuteReaderAsync(cancellation);
        await reader.NextResultAsync(cancellation);
        return await PriceHistory.ReadAsync(reader, cancellation);
    }

    private static async Task<AccountId?> ReadAccountAsync(NpgsqlConnection connection, PodId pod, CancellationToken cancellation)
    {
        await using var command = new NpgsqlCommand("select account from run_interval where pod = $1", connection)
        {
            Parameters = { Transact.Value(pod.Value) },
        };
        return await command.ExecuteScalarAsync(cancellation) is string account ? new AccountId(account) : null;
    }
}
