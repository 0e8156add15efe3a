using Npgsql;
using NpgsqlTypes;

namespace Tensormesh.Billing;

/// <summary>One row of an account's transaction list.</summary>
/// <param name="Type">The movement's type: TopUp, CreditGrant, GpuUsage, GpuUsageCorrection, GpuFaultCredit, ...</param>
/// <param name="Amount">Positive: money in. Negative: a charge.</param>
public sealed record AccountTransaction(
    string TransactionId, long Position, string Type, Money Amount, string Description, DateTimeOffset CreatedAt, string? PaymentIntentId,
    string? PaymentMethodId, string Details);

/// <summary>An account's ledger transactions, newest first.</summary>
public sealed class Transactions(NpgsqlDataSource dataSource)
{
    private readonly NpgsqlDataSource dataSource = dataSource;

    /// <param name="before">Only transactions with a position below this; null for the newest page.</param>
    /// <param name="limit">1 to 1000.</param>
    /// <returns>Empty for an account that the ledger does not know.</returns>
    public async Task<IReadOnlyList<AccountTransaction>> ListAsync(
        AccountId account, long? before, int limit, CancellationToken cancellation)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(limit, 1);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(limit, 1000);
        return await Transact.UseAsync(dataSource, connection => ReadAsync(connection, account, before, limit, cancellation), cancellation);
    }

    private static async Task<IReadOnlyList<AccountTransaction>> ReadAsync(
        NpgsqlConnection connection, AccountId account, long? before, int limit, CancellationToken cancellation)
    {
        await using var command = new NpgsqlCommand(SqlText.ListTransactions, connection);
        command.Parameters.Add(Transact.Value(Movements.Customer(account)));
        command.Parameters.Add(Transact.Value(before, NpgsqlDbType.Bigint));
        command.Parameters.Add(Transact.Value(limit));
        await using var reader = await command.ExecuteReaderAsync(cancellation);
        var transactions = new List<AccountTransaction>();
        while (await reader.ReadAsync(cancellation))
        {
            transactions.Add(new(
                reader.GetString(0), reader.GetInt64(1), reader.GetString(2), new Money(reader.GetInt64(3)), reader.GetString(4),
                reader.GetFieldValue<DateTimeOffset>(5),
                reader.IsDBNull(6) ? null : reader.GetString(6), reader.IsDBNull(7) ? null : reader.GetString(7), reader.GetString(8)));
        }

        return transactions;
    }
}
