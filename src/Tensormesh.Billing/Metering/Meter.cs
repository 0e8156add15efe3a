using Npgsql;

namespace Tensormesh.Billing;

/// <summary>What one settlement did.</summary>
public sealed record Settlement(int Windows, Money Charged)
{
    public static readonly Settlement Nothing = new(0, Money.Zero);
}

/// <summary>What a suspension did.</summary>
/// <param name="At">The instant at which charging stopped.</param>
/// <param name="Uncollected">Cost between <paramref name="At"/> and the suspension that nobody pays: zero when it was in time.</param>
/// <param name="Deployments">The deployments that lost their hold.</param>
public sealed record Suspension(DateTimeOffset At, Money Uncollected, IReadOnlyList<DeploymentId> Deployments);

/// <summary>Usage since the watermark, rated, posted, and the watermark moved: one SQL transaction an account.</summary>
public sealed class Meter(NpgsqlDataSource dataSource)
{
    private readonly NpgsqlDataSource dataSource = dataSource;

    /// <summary>Posts every open interval of the account up to <paramref name="until"/> (never past its end, its charge-until or the balance). Idempotent.</summary>
    public Task<Settlement> SettleAsync(AccountId account, DateTimeOffset until, CancellationToken cancellation) => throw new NotImplementedException();

    /// <summary>
    /// If the account is exhausted at <paramref name="now"/>: stops charging every open interval at the exact instant of exhaustion, settles to it, releases
    /// every hold, and writes off what ran later than the policy's tolerance. Null when the account is not exhausted. Idempotent.
    /// </summary>
    public Task<Suspension?> SuspendIfExhaustedAsync(AccountId account, CreditPolicy policy, DateTimeOffset now, CancellationToken cancellation) => throw new NotImplementedException();

    /// <summary>Stops charging one deployment at <paramref name="at"/>, settles to it and releases its hold (no card, budget spent, moved to another account). Idempotent.</summary>
    public Task<Suspension> SuspendAsync(DeploymentId deployment, DateTimeOffset at, CancellationToken cancellation) => throw new NotImplementedException();
}
