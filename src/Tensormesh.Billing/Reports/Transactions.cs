using Npgsql;

namespace Tensormesh.Billing;

/// <summary>One row of an account's transaction list.</summary>
/// <param name="Type">The movement's type: TopUp, CreditGrant, GpuUsage, GpuUsageCorrection, ...</param>
/// <param name="Amount">Positive: money in. Negative: a charge.</param>
public sealed record AccountTransaction(
    string TransactionId, long Position, string Type, Money Amount, string Description, DateTimeOffset CreatedAt, string? PaymentIntentId, string? PaymentMethodId, string Details);

/// <summary>An account's ledger transactions, newest first.</summary>
public sealed class Transactions(NpgsqlDataSource dataSource)
{
    private readonly NpgsqlDataSource dataSource = dataSource;

    /// <param name="before">Only transactions with a position below this; null for the newest page.</param>
    /// <param name="limit">1 to 1000.</param>
    public Task<IReadOnlyList<AccountTransaction>> ListAsync(AccountId account, long? before, int limit, CancellationToken cancellation) => throw new NotImplementedException();
}
