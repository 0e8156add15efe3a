using System.Data;
using System.Globalization;
using Npgsql;

namespace Tensormesh.Billing;

/// <summary>What was looked at, and the first thing that is wrong; null: nothing is.</summary>
/// <param name="SealedPosition">Of the last transaction that a seal covers.</param>
/// <param name="Unsealed">Transactions after it: their sums and balances are looked at, a change of them is not found.</param>
public sealed record VerifyReport(long Transactions, long Seals, long SealedPosition, long Unsealed, long Accounts, long Runs, LedgerDifference? Difference);

/// <summary>
/// Proves the whole ledger from what is stored, in one snapshot, and writes nothing. Rows are streamed: it takes as much memory as there
/// are ledger accounts.
/// </summary>
public sealed class LedgerVerifier(NpgsqlDataSource dataSource)
{
    /// <summary>Seals that are held in memory at once, with up to 1,000 hashes each.</summary>
    private const int SealsAtOnce = 20;

    private const int RunsPerReport = 10_000;

    private readonly NpgsqlDataSource dataSource = dataSource;

    /// <param name="progress">Is told now and then how far it is.</param>
    public Task<VerifyReport> VerifyAsync(Action<string> progress, CancellationToken cancellation) => Transact.UseAsync(dataSource, async connection =>
    {
        await using var snapshot = await OpenSnapshotAsync(connection, cancellation);
        var accounts = await LedgerAccounts.ReadAsync(connection, null, cancellation);
        var walk = new ChainWalk();
        var (difference, atEnd) = (default(LedgerDifference), false);
        while (difference is null && !atEnd)
        {
            (difference, atEnd) = await walk.SealsAsync(connection, accounts, SealsAtOnce, cancellation);
            if (!atEnd) progress($"{walk.Sealed} transactions in {walk.Seals} seals are as they were sealed");
        }

        difference ??= await walk.RestAsync(connection, accounts, cancellation);
        if (difference is null) progress($"{walk.Sealed + walk.Unsealed} transactions balance, and give the balances of {accounts.Rows.Count} ledger accounts");
        difference ??= await SpendingAsync(connection, cancellation);
        if (difference is null) progress("what reports add up is what was posted");
        difference ??= await TokensAsync(connection, cancellation);
        if (difference is null) progress("tokens were charged what they cost");
        var runs = 0L;
        if (difference is null) (difference, runs) = await RunsAsync(connection, progress, cancellation);
        return new VerifyReport(walk.Sealed + walk.Unsealed, walk.Seals, walk.Position, walk.Unsealed, accounts.Rows.Count, runs, difference);
    }, cancellation);

    internal static async Task<NpgsqlTransaction> OpenSnapshotAsync(NpgsqlConnection connection, CancellationToken cancellation)
    {
        var snapshot = await connection.BeginTransactionAsync(IsolationLevel.RepeatableRead, cancellation);
        await using var command = new NpgsqlCommand("set transaction read only", connection);
        await command.ExecuteNonQueryAsync(cancellation);
        return snapshot;
    }

    private static async Task<LedgerDifference?> SpendingAsync(NpgsqlConnection connection, CancellationToken cancellation)
    {
        await using var command = new NpgsqlCommand(SqlText.CompareSpending, connection) { CommandTimeout = 0 };
        await using var reader = await command.ExecuteReaderAsync(cancellation);
        if (!await reader.ReadAsync(cancellation)) return null;
        var (account, bucket, type) = (reader.GetString(0), reader.GetFieldValue<DateTimeOffset>(1), reader.GetString(2));
        return new(
            $"spending of {account} by {type} in the {(reader.GetBoolean(5) ? "day" : "quarter of an hour")} after {bucket:O}", Nanos(reader.GetDecimal(3)),
            reader.IsDBNull(4) ? "none" : Nanos(reader.GetInt64(4)));
    }

    private static async Task<LedgerDifference?> TokensAsync(NpgsqlConnection connection, CancellationToken cancellation)
    {
        await using var command = new NpgsqlCommand(SqlText.CompareTokens, connection) { CommandTimeout = 0 };
        await using var reader = await command.ExecuteReaderAsync(cancellation);
        if (!await reader.ReadAsync(cancellation)) return null;
        string Text(int ordinal) => reader.IsDBNull(ordinal) ? "none" : reader.GetString(ordinal);
        return new($"{reader.GetString(0)} of {reader.GetString(1)}", Text(2), Text(3));
    }

    private static async Task<(LedgerDifference? Difference, long Runs)> RunsAsync(
        NpgsqlConnection connection, Action<string> progress, CancellationToken cancellation)
    {
        // Nothing comes back before all charges are added up.
        await using var command = new NpgsqlCommand(SqlText.ListRunsWithCharges, connection) { CommandTimeout = 0 };
        await using var reader = await command.ExecuteReaderAsync(cancellation);
        var runs = 0L;
        while (await reader.ReadAsync(cancellation))
        {
            if (Compare(reader) is { } difference) return (difference, runs);
            if (++runs % RunsPerReport == 0) progress($"{runs} runs were charged what they cost");
        }

        return (null, runs);
    }

    private static LedgerDifference? Compare(NpgsqlDataReader row)
    {
        var pod = row.GetString(0);
        var posted = row.GetDecimal(6);
        if (!row.GetBoolean(1)) return new($"charges for pod {pod}", "a run interval", $"none, and {Nanos(posted)} posted");
        if (row.IsDBNull(7)) return new($"prices of the run of pod {pod}", "one or more", "none");
        var (gpus, product, settledUntil, total) = (row.GetInt32(2), row.GetString(3), row.GetFieldValue<DateTimeOffset>(4), row.GetInt64(5));
        var (from, versions) = (row.GetFieldValue<DateTimeOffset[]>(7), row.GetFieldValue<long[]>(8));
        var (rated, items, priced) = (row.GetFieldValue<long[]>(9), row.GetFieldValue<string?[]>(10), row.GetFieldValue<long[]>(11));
        for (var i = 0; i < versions.Length; i++)
        {
            if (rated[i] != priced[i] || items[i] != product) return new(
                $"price version {versions[i]} of the run of pod {pod}", $"{Nanos(priced[i])} per GPU-hour of {items[i] ?? "nothing"}", $"{Nanos(rated[i])} of {product}");
        }

        var totals = from.Select((at, i) => new RunRating(at, new(versions[i]), new(rated[i]))).ToList();
        var due = RatingHistory.At(totals, gpus, settledUntil).Total.Nanos;
        if (posted != due) return new($"what was posted for the run of pod {pod}", $"{Nanos(due)} for its time until {settledUntil:O}", Nanos(posted));
        return total == due ? null : new($"total of the run of pod {pod} in run_interval", Nanos(due), Nanos(total));
    }

    private static string Nanos(decimal nanos) => $"{nanos.ToString("0", CultureInfo.InvariantCulture)} nanos";
}
