using System.Text.Json.Nodes;
using Npgsql;
using NpgsqlTypes;

namespace Tensormesh.Billing;

/// <summary>The channel on which Postgres tells that an account's money, cards or holds changed.</summary>
public static class StandingChannel
{
    /// <summary>LISTEN to this name; the payload is the account's id. A hint only: a lost notification delays a decision until the
    /// resync.</summary>
    public const string Name = "tensormesh_standing";

    /// <summary>LISTEN to this name as well to find out whether anything is heard at all: through a pooler in transaction mode nothing is.</summary>
    public const string Probe = "tensormesh_probe";

    /// <summary>Sends to <see cref="Probe"/>.</summary>
    public static Task ProbeAsync(NpgsqlDataSource dataSource, string payload, CancellationToken cancellation)
        => Transact.UseAsync(dataSource, async connection =>
        {
            await using var command = new NpgsqlCommand("select pg_notify($1, $2)", connection)
            {
                Parameters = { Transact.Value(Probe), Transact.Value(payload) },
            };
            return await command.ExecuteNonQueryAsync(cancellation);
        }, cancellation);

    internal static NpgsqlBatchCommand Notify(params string[] accounts) => Transact.Command(
        "select pg_notify($1, account) from unnest($2) as a(account)", Transact.Value(Name), Transact.Value(accounts));

    /// <summary>
    /// The customers whose standing the movements change. A settlement changes neither what an account can spend nor when it runs out, so
    /// it wakes nobody: otherwise every settlement would wake every deployment.
    /// </summary>
    internal static string[] Changed(IEnumerable<Movement> movements) =>
    [
        .. movements.Where(movement => movement.Type is not (MovementType.GpuUsage or MovementType.ServerlessUsage)).SelectMany(movement => movement.Entries)
            .Select(entry => entry.LedgerAccount)
            .Where(account => account.StartsWith(Movements.CustomerPrefix, StringComparison.Ordinal))
            .Select(account => account[Movements.CustomerPrefix.Length..]).Distinct(),
    ];
}

/// <summary>The double-entry ledger: append only, exact, idempotent by key.</summary>
public sealed class Ledger
{
    private readonly NpgsqlDataSource dataSource;
    private readonly StandingHints hints;
    private readonly AccountTurns turns;

    public Ledger(NpgsqlDataSource dataSource)
    {
        this.dataSource = dataSource;
        hints = StandingHints.Of(dataSource);
        turns = new AccountTurns(PostOneAsync, PostManyAsync);
    }

    /// <summary>Movements that one call of <see cref="PostManyAsync"/> takes: a bound on how long its accounts stay locked.</summary>
    public const int MaxBatch = 1_000;

    /// <summary>
    /// Posts in one round trip. A refusal is a value; an exception is an operating fault. Posts to one account that come at once may
    /// share an SQL transaction; each is answered once it is on disk.
    /// </summary>
    public Task<PostResult> PostAsync(Movement movement, CancellationToken cancellation) => turns.PostAsync(movement, cancellation);

    /// <summary>Posts what a person asked for, and notes who did in the same SQL transaction. Refused or posted before, nothing is noted.</summary>
    /// <param name="about">Whose money it is.</param>
    public async Task<PostResult> PostAsync(
        Movement movement, Actor by, AuditAction action, AccountId about, JsonObject details, CancellationToken cancellation)
    {
        var result = await Transact.RunAsync(dataSource, async connection =>
        {
            var tried = await TryAsync(connection, movement, cancellation);
            if (tried is PostResult.Posted posted)
            {
                await AuditLog.NoteAsync(connection, by, action, about, posted.TransactionId, details, cancellation);
            }

            return tried;
        }, cancellation);
        if (result is PostResult.Posted) hints.Tell(StandingChannel.Changed([movement]));
        return result;
    }

    private async Task<PostResult> PostOneAsync(Movement movement, CancellationToken cancellation)
    {
        try
        {
            return (await ExecuteAsync([movement], () => TryCommand(movement), cancellation))[0];
        }
        catch (PostgresException error) when (SqlStates.Refusal(error.SqlState) is { } reason)
        {
            return new PostResult.Refused(reason, error.MessageText);
        }
    }

    /// <summary>
    /// Posts in one round trip and one SQL transaction, as if one after the other: each movement has its own result, at its own place, and
    /// a refused one leaves its neighbours as they are. After an exception nothing is posted, or (the connection was lost at the end)
    /// everything is: the same call again finds which.
    /// </summary>
    /// <param name="movements">At most <see cref="MaxBatch"/>.</param>
    public async Task<IReadOnlyList<PostResult>> PostManyAsync(IReadOnlyList<Movement> movements, CancellationToken cancellation)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan(movements.Count, MaxBatch, nameof(movements));
        return movements.Count == 0 ? [] : await ExecuteAsync(movements, () => ManyCommand(movements), cancellation);
    }

    private Task<PostResult[]> ExecuteAsync(IReadOnlyList<Movement> movements, Func<NpgsqlBatchCommand> command, CancellationToken cancellation)
        => Transact.RetryAsync(() => Transact.UseAsync(dataSource, async connection =>
        {
            await using var batch = new NpgsqlBatch(connection);
            batch.BatchCommands.Add(command());
            await using var reader = await batch.ExecuteReaderAsync(cancellation);
            var results = new PostResult[movements.Count];
            for (var i = 0; i < results.Length; i++) results[i] = await ReadTriedAsync(reader, cancellation);
            // The commit comes after the rows, and what it refuses is seen only by reading on.
            while (await reader.NextResultAsync(cancellation)) { }
            hints.Tell(StandingChannel.Changed(movements.Where((_, i) => results[i] is PostResult.Posted)));
            return results;
        }, cancellation));

    private static async Task<PostResult> ReadTriedAsync(NpgsqlDataReader reader, CancellationToken cancellation)
    {
        if (!await reader.ReadAsync(cancellation)) throw new InvalidOperationException("the ledger returned too few rows");
        if (reader.IsDBNull(2)) return Found(reader);
        var state = reader.GetString(2);
        return new PostResult.Refused(
            SqlStates.Refusal(state) ?? throw new InvalidOperationException($"the ledger refused with {state}"), reader.GetString(3));
    }

    internal static async Task<PostResult> ReadAsync(NpgsqlDataReader reader, CancellationToken cancellation)
        => await reader.ReadAsync(cancellation) ? Found(reader) : throw new InvalidOperationException("post_transaction returned no row");

    private static PostResult Found(NpgsqlDataReader reader)
        => reader.GetBoolean(1) ? new PostResult.AlreadyPosted(reader.GetString(0)) : new PostResult.Posted(reader.GetString(0));

    /// <summary>Posts inside a larger SQL transaction, which a refusal ends. Its caller tells whose standing changed.</summary>
    internal static NpgsqlBatchCommand Command(Movement movement)
        => Transact.Command("select transaction_id, already_posted from post_transaction($1, $2, $3, $4, $5, $6, $7, $8)", Parameters(movement));

    /// <summary>The same, and a refusal leaves the SQL transaction as it is.</summary>
    internal static async Task<PostResult> TryAsync(NpgsqlConnection connection, Movement movement, CancellationToken cancellation)
    {
        await using var batch = new NpgsqlBatch(connection) { BatchCommands = { TryCommand(movement) } };
        await using var reader = await batch.ExecuteReaderAsync(cancellation);
        return await ReadTriedAsync(reader, cancellation);
    }

    private static NpgsqlBatchCommand TryCommand(Movement movement) => Transact.Command(
        "select transaction_id, already_posted, refusal, message from try_post($1, $2, $3, $4, $5, $6, $7, $8)", Parameters(movement));

    private static NpgsqlParameter[] Parameters(Movement movement) =>
    [
        Transact.Value(movement.Type.ToString()),
        Transact.Value(movement.Key),
        Transact.Value(movement.EffectiveAt?.ToLedgerTime(), NpgsqlDbType.TimestampTz),
        Transact.Value(movement.Description),
        Transact.Value(movement.Details, NpgsqlDbType.Jsonb),
        Transact.Value(movement.Entries.Select(entry => entry.LedgerAccount).ToArray()),
        Transact.Value(movement.Entries.Select(entry => entry.Amount.Nanos).ToArray()),
        Transact.Value(movement.Entries.Select(entry => entry.Currency).ToArray()),
    ];

    private static NpgsqlBatchCommand ManyCommand(IReadOnlyList<Movement> movements)
    {
        var entries = movements.SelectMany((movement, i) => movement.Entries.Select(entry => (Movement: i + 1, Entry: entry))).ToList();
        return Transact.Command(
            "select transaction_id, already_posted, refusal, message from post_transactions($1, $2, $3, $4, $5, $6, $7, $8, $9) "
                + "order by movement",
            Transact.Value(movements.Select(movement => movement.Type.ToString()).ToArray()),
            Transact.Value(movements.Select(movement => movement.Key).ToArray()),
            Transact.Value(movements.Select(movement => movement.EffectiveAt?.ToLedgerTime()).ToArray(), NpgsqlDbType.Array | NpgsqlDbType.TimestampTz),
            Transact.Value(movements.Select(movement => movement.Description).ToArray()),
            Transact.Value(movements.Select(movement => movement.Details).ToArray(), NpgsqlDbType.Array | NpgsqlDbType.Jsonb),
            Transact.Value(entries.Select(one => one.Movement).ToArray()),
            Transact.Value(entries.Select(one => one.Entry.LedgerAccount).ToArray()),
            Transact.Value(entries.Select(one => one.Entry.Amount.Nanos).ToArray()),
            Transact.Value(entries.Select(one => one.Entry.Currency).ToArray()));
    }

    /// <summary>Locks the balances of the named ledger accounts, in order, for the rest of the SQL transaction.</summary>
    internal static NpgsqlBatchCommand LockCommand(IEnumerable<string> ledgerAccounts)
        => Transact.Command("select lock_ledger_accounts($1)", Transact.Value(ledgerAccounts.ToArray()));

    /// <summary>The same, and under the locks the question whether this operator may still write; none where there is no epoch.</summary>
    internal static NpgsqlBatchCommand LockCommand(IEnumerable<string> ledgerAccounts, OperatorEpoch? epoch) => epoch is null
        ? LockCommand(ledgerAccounts)
        : Transact.Command("select lock_ledger_accounts($1), check_operator_epoch($2)",
            Transact.Value(ledgerAccounts.ToArray()), Transact.Value(epoch.Number));
}
