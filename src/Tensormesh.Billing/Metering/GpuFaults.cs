using Npgsql;

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

    /// <summary>
    /// Ends the charge of every run that held one of the faulty GPUs where they were last seen well, and credits what was charged
    /// past it. Idempotent, and the same whenever it is called: the evidence decides, not when it arrived.
    /// </summary>
    /// <returns>The runs that this call changed.</returns>
    /// <exception cref="ArgumentException">A fault names no GPU, or was seen before the GPU was last healthy.</exception>
    public Task<IReadOnlyList<FaultedRun>> ApplyAsync(
        IReadOnlyList<GpuFault> faults, CreditPolicy policy, DateTimeOffset now, CancellationToken cancellation)
        => Transact.UseAsync<IReadOnlyList<FaultedRun>>(
            dataSource, _ => throw new NotImplementedException($"{epoch} {hints}"), cancellation);
}
