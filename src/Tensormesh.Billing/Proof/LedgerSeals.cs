using Npgsql;

namespace Tensormesh.Billing;

/// <summary>What a call sealed, and where the chain ends now.</summary>
/// <param name="Hash">Of the last transaction that is sealed, in hexadecimal; empty where none is. Written down elsewhere, it proves all before it.</param>
public sealed record SealResult(int Transactions, long Position, string Hash);

/// <summary>
/// Seals transactions after they are posted: chains their hashes, in the order of their positions, into rows of ledger_seal. No post
/// waits for it, and it waits for posts: a position that a running SQL transaction may still fill is not passed.
/// </summary>
public sealed class LedgerSeals(NpgsqlDataSource dataSource, TimeProvider time)
{
    /// <summary>Transactions of one seal at most, as the table has it.</summary>
    public const int MaxTransactions = 1_000;

    /// <summary>How long a call waits for writers that began before it: then it seals nothing, and the next call tries again.</summary>
    public static readonly TimeSpan Patience = TimeSpan.FromSeconds(10);

    private static readonly TimeSpan Poll = TimeSpan.FromMilliseconds(20);

    /// <summary>What comes before the first transaction.</summary>
    internal static readonly byte[] Genesis = new byte[32];

    private readonly NpgsqlDataSource dataSource = dataSource;
    private readonly TimeProvider time = time;

    /// <summary>Seals everything that was posted before this call. Where another process seals, it leaves that to it.</summary>
    /// <returns>Null while a writer that began before takes longer than <see cref="Patience"/>, or another process seals.</returns>
    public async Task<SealResult?> SealAsync(CancellationToken cancellation)
    {
        if (await FinalPositionAsync(cancellation) is not { } final) return null;
        var sealedNow = 0;
        while (true)
        {
            var (transactions, last) = await SealNextAsync(final, cancellation);
            if (last is null) return null;
            sealedNow += transactions;
            if (transactions < MaxTransactions) return new(sealedNow, last.ToPosition, last.ToPosition == 0 ? "" : Convert.ToHexStringLower(last.Hash));
        }
    }

    /// <summary>
    /// The position up to which every row is there that will ever be. Positions are given out before the commit, so a lower one may come
    /// later than a higher one; and before the SQL transaction has an id, so that no snapshot tells of it. But whoever writes to the table
    /// has its lock from before it gets a position until after its commit is seen: once all are gone that had it after the position
    /// was read, nothing can come at or below it.
    /// </summary>
    private async Task<long?> FinalPositionAsync(CancellationToken cancellation)
    {
        var final = await Transact.UseAsync(dataSource, async connection =>
        {
            await using var command = new NpgsqlCommand(
                "select coalesce(pg_sequence_last_value(pg_get_serial_sequence('ledger_transaction', 'position')::regclass), 0)", connection);
            return (long)(await command.ExecuteScalarAsync(cancellation))!;
        }, cancellation);
        var began = time.GetTimestamp();
        var waiting = await WritersAsync(cancellation);
        while (waiting.Count > 0)
        {
            if (time.GetElapsedTime(began) > Patience) return null;
            await Task.Delay(Poll, time, cancellation);
            waiting.IntersectWith(await WritersAsync(cancellation));
        }

        return final;
    }

    /// <summary>SQL transactions that may be writing transactions now.</summary>
    private Task<HashSet<string>> WritersAsync(CancellationToken cancellation) => Transact.UseAsync(dataSource, async connection =>
    {
        await using var command = new NpgsqlCommand(
            """
            select distinct virtualtransaction from pg_locks
            where locktype = 'relation' and relation = 'ledger_transaction'::regclass and granted
              and database = (select oid from pg_database where datname = current_database())
              and mode in ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
            """, connection);
        await using var reader = await command.ExecuteReaderAsync(cancellation);
        var writers = new HashSet<string>(StringComparer.Ordinal);
        while (await reader.ReadAsync(cancellation)) writers.Add(reader.GetString(0));
        return writers;
    }, cancellation);

    /// <summary>One seal, in an SQL transaction of its own. One prover at a time; a second one that came between would not fit the chain.</summary>
    private Task<(int Transactions, Seal? Last)> SealNextAsync(long final, CancellationToken cancellation)
        => Transact.RunAsync<(int, Seal?)>(dataSource, async connection =>
        {
            await using (var mutex = new NpgsqlCommand(
                "select pg_try_advisory_xact_lock(hashtext('tensormesh.seal'), hashtext(current_schema()))", connection))
            {
                if (!(bool)(await mutex.ExecuteScalarAsync(cancellation))!) return (0, null);
            }

            var last = await Seal.ReadLastAsync(connection, cancellation) ?? Seal.BeforeAll;
            var rows = await ReadAsync(connection, last.ToPosition, final, cancellation);
            if (rows.Count == 0) return (0, last);
            var names = await LedgerAccounts.ReadAsync(connection, [.. rows.SelectMany(row => row.Accounts).Distinct()], cancellation);
            var hashes = new List<byte[]>();
            foreach (var row in rows) hashes.Add(row.Hash(hashes.Count == 0 ? last.Hash : hashes[^1], names.Name));
            var next = new Seal(last.ToPosition + 1, rows[^1].Position, [.. rows.Select(row => row.Position)], [.. hashes.SelectMany(hash => hash)], last.Hash);
            await next.InsertAsync(connection, cancellation);
            return (rows.Count, next);
        }, cancellation);

    private static async Task<List<TransactionRow>> ReadAsync(NpgsqlConnection connection, long after, long final, CancellationToken cancellation)
    {
        await using var command = new NpgsqlCommand(
            $"select {TransactionRow.Columns} from ledger_transaction where position > $1 and position <= $2 order by position limit $3", connection)
        {
            Parameters = { Transact.Value(after), Transact.Value(final), Transact.Value(MaxTransactions) },
        };
        await using var reader = await command.ExecuteReaderAsync(cancellation);
        var rows = new List<TransactionRow>();
        while (await reader.ReadAsync(cancellation)) rows.Add(TransactionRow.Read(reader));
        return rows;
    }
}
