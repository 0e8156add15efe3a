using Npgsql;
using NpgsqlTypes;

namespace Tensormesh.Billing;

/// <summary>The channel on which Postgres tells that an account's money, cards or holds changed.</summary>
public static class StandingChannel
{
    /// <summary>LISTEN to this name; the payload is the account's id. A hint only: a lost notification delays a decision until the
    /// resync.</summary>
    public const string Name = "tensormesh_standing";

    internal static NpgsqlBatchCommand Notify(AccountId account)
        => Transact.Command("select pg_notify($1, $2)", Transact.Value(Name), Transact.Value(account.Value));
}

/// <summary>The double-entry ledger: append only, exact, idempotent by key.</summary>
public sealed class Ledger(NpgsqlDataSource dataSource)
{
    private readonly NpgsqlDataSource dataSource = dataSource;

    /// <summary>Posts in one round trip. A refusal is a value; an exception is an operating fault.</summary>
    public async Task<PostResult> PostAsync(Movement movement, CancellationToken cancellation)
    {
        try
        {
            return await Transact.RetryAsync(async () =>
            {
                await using var batch = dataSource.CreateBatch();
                batch.BatchCommands.Add(Command(movement));
                await using var reader = await batch.ExecuteReaderAsync(cancellation);
                var result = await ReadAsync(reader, cancellation);
                // The commit comes after the row, and what it refuses is seen only by reading on.
                while (await reader.NextResultAsync(cancellation)) { }
                return result;
            });
        }
        catch (PostgresException error) when (SqlStates.Refusal(error.SqlState) is { } reason)
        {
            return new PostResult.Refused(reason, error.MessageText);
        }
    }

    internal static async Task<PostResult> ReadAsync(NpgsqlDataReader reader, CancellationToken cancellation)
    {
        if (!await reader.ReadAsync(cancellation)) throw new InvalidOperationException("post_transaction returned no row");
        return reader.GetBoolean(1) ? new PostResult.AlreadyPosted(reader.GetString(0)) : new PostResult.Posted(reader.GetString(0));
    }

    internal static NpgsqlBatchCommand Command(Movement movement) => Transact.Command(
        "select transaction_id, already_posted from post_transaction($1, $2, $3, $4, $5, $6, $7, $8)",
        Transact.Value(movement.Type.ToString()),
        Transact.Value(movement.Key),
        Transact.Value(movement.EffectiveAt, NpgsqlDbType.TimestampTz),
        Transact.Value(movement.Description),
        Transact.Value(movement.Details, NpgsqlDbType.Jsonb),
        Transact.Value(movement.Entries.Select(entry => entry.LedgerAccount).ToArray()),
        Transact.Value(movement.Entries.Select(entry => entry.Amount.Nanos).ToArray()),
        Transact.Value(movement.Entries.Select(entry => entry.Currency).ToArray()));

    /// <summary>Locks the balances of the named ledger accounts, in order, for the rest of the SQL transaction.</summary>
    internal static NpgsqlBatchCommand LockCommand(IEnumerable<string> ledgerAccounts)
        => Transact.Command("select lock_ledger_accounts($1)", Transact.Value(ledgerAccounts.ToArray()));
}
