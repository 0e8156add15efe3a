using Npgsql;

namespace Tensormesh.Billing;

/// <summary>Places and releases holds, each under the account's row lock, so that two starts never claim the same money.</summary>
public sealed class Holds(NpgsqlDataSource dataSource)
{
    private readonly NpgsqlDataSource dataSource = dataSource;

    /// <summary>
    /// Evaluates the start rule on the standing as locked and, when it admits, sets the hold to cover the request. A hold that already covers as
    /// many GPUs is left as it is, or shrunk with a smaller request; a larger request takes a hold for the difference. Idempotent.
    /// </summary>
    /// <returns>The verdict of <see cref="BillingGate.EvaluateStart"/> under the lock; on Admit the hold is in place.</returns>
    public Task<Verdict> PlaceAsync(LaunchRequest request, CreditPolicy policy, DateTimeOffset now, CancellationToken cancellation) => throw new NotImplementedException();

    /// <summary>Gives back what is left. Idempotent. Does not stop charging of pods that still run.</summary>
    public Task ReleaseAsync(DeploymentId deployment, CancellationToken cancellation) => throw new NotImplementedException();
}
