using Npgsql;
using NpgsqlTypes;

namespace Tensormesh.Billing;

/// <summary>One row of an account's transaction list.</summary>
/// <param name="Type">The movement's type: TopUp, CreditGrant, GpuUsage, GpuUsageCorrection, GpuFaultCredit, ...</param>
/// <param name="Amount">Positive: money in. Negative: a charge.</param>
public sealed record AccountTransaction(
    string TransactionId, long Position, string Type, Money Amount, string Description, DateTimeOffset CreatedAt, string? PaymentIntentId,
    string? PaymentMethodId, string Details);

/// <summary>Which transactions a list has.</summary>
/// <param name="Types">Null: of every type.</param>
/// <param name="From">Posted at this instant or later; null: from the first on.</param>
/// <param name="Until">Posted before this instant; null: to the newest.</param>
public sealed record TransactionFilter(IReadOnlyList<MovementType>? Types = null, DateTimeOffset? From = null, DateTimeOffset? Until = null);

/// <summary>One transaction, with what it has to do with others.</summary>
/// <param name="EffectiveAt">For when it is: the end of a usage window.</param>
/// <param name="Corrects">What it takes back, whole or in part; null for most.</param>
/// <param name="CorrectedBy">What takes it back, in the order of posting.</param>
public sealed record TransactionDetail(AccountTransaction Transaction, DateTimeOffset EffectiveAt, string? Corrects, IReadOnlyList<string> CorrectedBy);

/// <summary>An account's ledger transactions, newest first.</summary>
public sealed class Transactions(NpgsqlDataSource dataSource)
{
    private readonly NpgsqlDataSource dataSource = dataSource;

    /// <param name="before">Only transactions with a position below this; null for the newest page.</param>
    /// <param name="limit">1 to 1000.</param>
    /// <param name="filter">Null: all.</param>
    /// <returns>Empty for an account that the ledger does not know.</returns>
    public async Task<IReadOnlyList<AccountTransaction>> ListAsync(
        AccountId account, long? before, int limit, CancellationToken cancellation, TransactionFilter? filter = null)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(limit, 1);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(limit, 1000);
        return await Transact.UseAsync(dataSource, connection => ReadAsync(connection, account, before, limit, filter ?? new(), cancellation), cancellation);
    }

    /// <summary>Null when the account has no such transaction.</summary>
    public Task<TransactionDetail?> FindAsync(AccountId account, string transactionId, CancellationToken cancellation)
        => Transact.UseAsync<TransactionDetail?>(dataSource, async connection =>
        {
            await using var command = new NpgsqlCommand(SqlText.ReadTransaction, connection)
            {
                Parameters = { Transact.Value(Movements.Customer(account)), Transact.Value(transactionId) },
            };
            await using var reader = await command.ExecuteReaderAsync(cancellation);
            return await reader.ReadAsync(cancellation)
                ? new TransactionDetail(
                    Row(reader), reader.GetFieldValue<DateTimeOffset>(9), reader.IsDBNull(10) ? null : reader.GetString(10),
                    reader.GetFieldValue<string[]>(11))
                : null;
        }, cancellation);

    /// <summary>Whose transaction this is, and of which type. Null: there is no such transaction of a customer.</summary>
    public Task<(AccountId Account, MovementType Type)?> FindOwnerAsync(string transactionId, CancellationToken cancellation)
        => Transact.UseAsync<(AccountId, MovementType)?>(dataSource, async connection =>
        {
            await using var command = new NpgsqlCommand(
                "select a.account, t.type from ledger_transaction t join ledger_account a on a.id = t.customer where t.id = $1", connection)
            {
                Parameters = { Transact.Value(transactionId) },
            };
            await using var reader = await command.ExecuteReaderAsync(cancellation);
            return await reader.ReadAsync(cancellation) ? (new(reader.GetString(0)), Enum.Parse<MovementType>(reader.GetString(1))) : null;
        }, cancellation);

    private static async Task<IReadOnlyList<AccountTransaction>> ReadAsync(
        NpgsqlConnection connection, AccountId account, long? before, int limit, TransactionFilter filter, CancellationToken cancellation)
    {
        await using var command = new NpgsqlCommand(SqlText.ListTransactions, connection)
        {
            Parameters =
            {
                Transact.Value(Movements.Customer(account)), Transact.Value(before, NpgsqlDbType.Bigint), Transact.Value(limit),
                Transact.Value(filter.Types?.Select(type => type.ToString()).ToArray(), NpgsqlDbType.Array | NpgsqlDbType.Text),
                Transact.Value(filter.From?.ToLedgerTime(), NpgsqlDbType.TimestampTz), Transact.Value(filter.Until?.ToLedgerTime(), NpgsqlDbType.TimestampTz),
            },
        };
        await using var reader = await command.ExecuteReaderAsync(cancellation);
        var transactions = new List<AccountTransaction>();
        while (await reader.ReadAsync(cancellation)) transactions.Add(Row(reader));
        return transactions;
    }

    private static AccountTransaction Row(NpgsqlDataReader reader) => new(
        reader.GetString(0), reader.GetInt64(1), reader.GetString(2), new Money(reader.GetInt64(3)), reader.GetString(4),
        reader.GetFieldValue<DateTimeOffset>(5),
        reader.IsDBNull(6) ? null : reader.GetString(6), reader.IsDBNull(7) ? null : reader.GetString(7), reader.GetString(8));
}
