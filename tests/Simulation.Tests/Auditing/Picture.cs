using Npgsql;
using Tensormesh.Billing;

namespace Tensormesh.Simulation.Tests;

internal sealed record PostedTransaction(long Position, string Type, string Key, long[] Accounts, long[] Amounts, Guid? Pod);

internal sealed record RunRow(
    Guid Pod, Guid Deployment, string Account, string Product, int Gpus, DateTimeOffset StartedAt, DateTimeOffset SettledUntil,
    DateTimeOffset? EndedAt, DateTimeOffset? ChargeUntil, long Total)
{
    public bool Accrues => EndedAt is null && ChargeUntil is null;
}

internal sealed record HoldRow(string Account, string Product, int Gpus, long Remaining);

internal sealed record SuspensionRow(long Id, string Account, DateTimeOffset At, DateTimeOffset DecidedAt, long Uncollected);

/// <summary>What the database has of a story's accounts at one instant, in one round trip; transactions and suspensions since the picture before.</summary>
internal sealed record Picture(
    IReadOnlyList<PostedTransaction> Posted, IReadOnlyDictionary<Guid, RunRow> Runs, IReadOnlyDictionary<string, long> Balances,
    IReadOnlyDictionary<Guid, HoldRow> Holds, IReadOnlyList<SuspensionRow> Suspensions, long LastPosition, long LastSuspension)
{
    public static readonly Picture Empty = new([], new Dictionary<Guid, RunRow>(), new Dictionary<string, long>(), new Dictionary<Guid, HoldRow>(), [], 0, 0);

    private static readonly string NewTransactions = Resource("new_transactions.sql"), RunsOfAccounts = Resource("runs_of_accounts.sql");

    /// <summary>The same rows, and nothing posted in between.</summary>
    public bool SameAs(Picture before) => Posted.Count == 0 && Suspensions.Count == 0 && Same(Runs, before.Runs) && Same(Holds, before.Holds) && Same(Balances, before.Balances);

    public static async Task<Picture> TakeAsync(NpgsqlDataSource database, string[] accounts, Picture before, CancellationToken cancellation)
    {
        await using var batch = database.CreateBatch();
        Add(batch, NewTransactions, before.LastPosition);
        Add(batch, RunsOfAccounts, accounts);
        Add(batch, "select a.account, b.amount_nanos from ledger_balance b join ledger_account a on a.id = b.ledger_account where a.account = any ($1)", accounts);
        Add(batch, "select deployment, account, product, gpus, remaining_nanos from credit_hold where account = any ($1)", accounts);
        Add(batch, "select id, account, at, decided_at, uncollected_nanos from suspension where id > $1 order by id", before.LastSuspension);
        await using var reader = await batch.ExecuteReaderAsync(cancellation);
        var posted = new List<PostedTransaction>();
        while (await reader.ReadAsync(cancellation))
        {
            posted.Add(new(
                reader.GetInt64(0), reader.GetString(1), reader.GetString(2), reader.GetFieldValue<long[]>(3), reader.GetFieldValue<long[]>(4),
                reader.IsDBNull(5) ? null : Guid.Parse(reader.GetString(5))));
        }

        await reader.NextResultAsync(cancellation);
        var runs = new Dictionary<Guid, RunRow>();
        while (await reader.ReadAsync(cancellation))
        {
            runs[reader.GetGuid(0)] = new(
                reader.GetGuid(0), reader.GetGuid(1), reader.GetString(2), reader.GetString(3), reader.GetInt32(4), Instant(5)!.Value, Instant(6)!.Value, Instant(7), Instant(8),
                reader.GetInt64(9));
        }

        await reader.NextResultAsync(cancellation);
        var balances = new Dictionary<string, long>(StringComparer.Ordinal);
        while (await reader.ReadAsync(cancellation)) balances[reader.GetString(0)] = reader.GetInt64(1);
        await reader.NextResultAsync(cancellation);
        var holds = new Dictionary<Guid, HoldRow>();
        while (await reader.ReadAsync(cancellation)) holds[reader.GetGuid(0)] = new(reader.GetString(1), reader.GetString(2), reader.GetInt32(3), reader.GetInt64(4));
        await reader.NextResultAsync(cancellation);
        var suspensions = new List<SuspensionRow>();
        while (await reader.ReadAsync(cancellation)) suspensions.Add(new(reader.GetInt64(0), reader.GetString(1), Instant(2)!.Value, Instant(3)!.Value, reader.GetInt64(4)));
        return new(
            posted, runs, balances, holds, suspensions, posted.Count > 0 ? posted[^1].Position : before.LastPosition,
            suspensions.Count > 0 ? suspensions[^1].Id : before.LastSuspension);

        DateTimeOffset? Instant(int ordinal) => reader.IsDBNull(ordinal) ? null : reader.GetFieldValue<DateTimeOffset>(ordinal);
    }

    private static void Add<T>(NpgsqlBatch batch, string sql, T value)
        => batch.BatchCommands.Add(new NpgsqlBatchCommand(sql) { Parameters = { new NpgsqlParameter<T> { TypedValue = value } } });

    private static bool Same<TKey, TValue>(IReadOnlyDictionary<TKey, TValue> left, IReadOnlyDictionary<TKey, TValue> right)
        where TKey : notnull
        => left.Count == right.Count && left.All(pair => right.TryGetValue(pair.Key, out var other) && EqualityComparer<TValue>.Default.Equals(pair.Value, other));

    private static string Resource(string name)
    {
        using var stream = typeof(Picture).Assembly.GetManifestResourceStream(name) ?? throw new InvalidOperationException($"{name} is not embedded");
        using var reader = new StreamReader(stream);
        return reader.ReadToEnd();
    }
}
