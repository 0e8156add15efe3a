using Npgsql;
using NpgsqlTypes;

namespace Tensormesh.Billing;

/// <summary>A GPU that was seen to be unhealthy or lost: the evidence that ends the charge of what held it.</summary>
public sealed record GpuFault
{
    /// <summary>The GPU's UUID and those of its MIG instances: a run that held any of them held the faulty GPU.</summary>
    public required IReadOnlyList<string> Gpus { get; init; }

    /// <summary>The UUID to name.</summary>
    public required string Gpu { get; init; }

    public required string Node { get; init; }

    /// <summary>One word: <c>Lost</c>.</summary>
    public required string Reason { get; init; }

    public required string Message { get; init; }

    /// <summary>The last observation that found the GPU well; null: there never was one.</summary>
    public DateTimeOffset? LastHealthyAt { get; init; }

    /// <summary>The first observation of the fault.</summary>
    public required DateTimeOffset SeenAt { get; init; }

    /// <summary>The first observation after it that found the GPU well; null: none yet.</summary>
    public DateTimeOffset? RecoveredAt { get; init; }

    /// <summary>Without an observation that found the GPU well there is no evidence before the one that did not.</summary>
    internal DateTimeOffset LastSeenWell => Instants.Earlier(LastHealthyAt ?? SeenAt, SeenAt).ToLedgerTime();

    /// <summary>The last instant that a run which began then has to pay for.</summary>
    internal DateTimeOffset HealthyUntil(DateTimeOffset startedAt) => Instants.Later(startedAt, LastSeenWell);

    /// <summary>Whether a run that held the GPU is, or may yet be, charged past where the GPU was seen well. What is ended or stopped is
    /// settled to its chargeable end.</summary>
    internal bool Ends(Run run) => (RecoveredAt?.ToLedgerTime() is not { } recovered || run.StartedAt < recovered)
        && (run.Accrues || run.SettledUntil > HealthyUntil(run.StartedAt));
}

/// <summary>A run whose charge ended with its GPU.</summary>
/// <param name="Fault">The fault that decided: of several the one with the earliest last healthy observation.</param>
/// <param name="ChargedUntil">The last instant that the customer pays for.</param>
/// <param name="Credited">What went back to the customer; zero when nothing was charged past that instant.</param>
public sealed record FaultedRun(
    PodId Pod, string PodName, DeploymentId Deployment, string DeploymentName, string Namespace, AccountId Account, GpuFault Fault,
    DateTimeOffset ChargedUntil, Money Credited);

/// <summary>Ends the charge of the runs that held a faulty GPU, and gives back what was charged past its last healthy observation.</summary>
public sealed class GpuFaults(NpgsqlDataSource dataSource, OperatorEpoch? epoch = null)
{
    private readonly NpgsqlDataSource dataSource = dataSource;
    private readonly StandingHints hints = StandingHints.Of(dataSource);
    private readonly OperatorEpoch? epoch = epoch;

    /// <summary>Runs of one account that one SQL transaction ends.</summary>
    private const int MostAtOnce = 200;

    /// <summary>
    /// Ends the charge of every run that held one of the faulty GPUs where they were last seen well, and credits what was charged
    /// past it, each account in an SQL transaction of its own. Idempotent, and the same whenever it is called: the evidence decides, not
    /// when it arrived. Which GPUs a run held is what <see cref="RunIntervals.RecordGpusAsync"/> was told.
    /// </summary>
    /// <returns>The runs that this call changed. After an exception some accounts may be done: the same call again does the others, and
    /// returns those only.</returns>
    /// <exception cref="ArgumentException">A fault names no GPU.</exception>
    public async Task<IReadOnlyList<FaultedRun>> ApplyAsync(
        IReadOnlyList<GpuFault> faults, CreditPolicy policy, DateTimeOffset now, CancellationToken cancellation)
    {
        foreach (var fault in faults) RefuseUnsound(fault);
        if (faults.Count == 0) return [];
        var ended = new List<FaultedRun>();
        foreach (var account in (await FindAsync(faults, cancellation)).GroupBy(one => one.Account).OrderBy(one => one.Key.Value, StringComparer.Ordinal))
        {
            // The earliest end first: money that comes back then covers what the others used after it, in whatever order they were found.
            var inTime = account.GroupBy(one => one.Pod, (_, all) => all.MinBy(one => one.Fault.LastSeenWell)!)
                .OrderBy(one => one.Fault.HealthyUntil(one.StartedAt)).ThenBy(one => one.Pod.Value);
            foreach (var some in inTime.Chunk(MostAtOnce))
            {
                var changed = await EndAsync(account.Key, some, policy, now.ToLedgerTime(), cancellation);
                if (changed.Count > 0) hints.Tell(account.Key);
                ended.AddRange(changed);
            }
        }

        return ended;
    }

    private Task<List<FaultedRun>> EndAsync(
        AccountId account, IReadOnlyList<Found> faulted, CreditPolicy policy, DateTimeOffset now, CancellationToken cancellation)
        => Transact.RunAsync(dataSource, async connection =>
        {
            PodId[] pods = [.. faulted.Select(one => one.Pod)];
            if (await LockedAccount.LockAsync(connection, epoch, account, pods, cancellation) is not { } locked) return [];
            var totals = await RunRows.ReadRatingsAsync(connection, pods, cancellation);
            var ended = new List<FaultedRun>();
            foreach (var (_, pod, _, fault) in faulted)
            {
                if (locked.Find(pod) is { } run && locked.EndWithGpu(run, fault, [.. totals[pod]], policy, now) is { } one) ended.Add(one);
            }

            await locked.WriteAsync(cancellation);
            return ended;
        }, cancellation);

    /// <summary>Without a lock: whether a run is still to be changed is asked again under that of its account.</summary>
    private Task<List<Found>> FindAsync(IReadOnlyList<GpuFault> faults, CancellationToken cancellation)
        => Transact.UseAsync(dataSource, async connection =>
        {
            var gpus = faults.SelectMany((fault, i) => fault.Gpus.Select(gpu => (Number: i, Gpu: gpu, Fault: fault))).ToList();
            await using var command = new NpgsqlCommand(SqlText.FindFaultedRuns, connection)
            {
                Parameters =
                {
                    Transact.Value(gpus.Select(one => one.Number).ToArray()),
                    Transact.Value(gpus.Select(one => one.Gpu).ToArray()),
                    Transact.Value(gpus.Select(one => one.Fault.LastSeenWell).ToArray()),
                    Transact.Value(
                        gpus.Select(one => one.Fault.RecoveredAt?.ToLedgerTime()).ToArray(), NpgsqlDbType.Array | NpgsqlDbType.TimestampTz),
                },
            };
            await using var reader = await command.ExecuteReaderAsync(cancellation);
            var found = new List<Found>();
            while (await reader.ReadAsync(cancellation)) found.Add(new(
                new(reader.GetString(0)), new(reader.GetGuid(1)), reader.GetFieldValue<DateTimeOffset>(2), faults[reader.GetInt32(3)]));
            return found;
        }, cancellation);

    private sealed record Found(AccountId Account, PodId Pod, DateTimeOffset StartedAt, GpuFault Fault);

    private static void RefuseUnsound(GpuFault fault)
    {
        if (fault.Gpus.Count == 0 || fault.Gpus.Append(fault.Gpu).Any(string.IsNullOrWhiteSpace)) throw new ArgumentException(
            $"a fault of node {fault.Node} ({fault.Reason}) names no GPU, or one with an empty UUID", nameof(fault));
    }
}
