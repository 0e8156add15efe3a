using System.Globalization;
using System.Text;
using Npgsql;

namespace Tensormesh.Billing;

/// <summary>
/// CSV files of any size in constant memory: Postgres makes the text (COPY TO STDOUT), and it is passed on in pieces as the receiver takes them.
/// </summary>
public sealed class Exports(NpgsqlDataSource dataSource) : IDisposable
{
    /// <summary>Characters that are in memory at once.</summary>
    private const int PieceLength = 32 * 1024;

    /// <summary>Exports that run at once: each keeps a connection of the pool for as long as its receiver takes.</summary>
    private const int MostAtOnce = 4;

    private readonly NpgsqlDataSource dataSource = dataSource;
    private readonly SemaphoreSlim turns = new(MostAtOnce);

    public void Dispose() => turns.Dispose();

    /// <summary>Every transaction that took effect in the period, oldest first, under a line of column names. False, and nothing written, when the
    /// ledger knows no such account.</summary>
    public Task<bool> TransactionsAsync(AccountId account, Period period, Stream destination, CancellationToken cancellation)
        => WriteAsync(account, customer => Fill(SqlText.ExportTransactions, ("customer", customer), ("from", Stamp(period.From)), ("to", Stamp(period.To))),
            destination, cancellation);

    /// <summary>The charges on a statement in the columns of FOCUS 1.2. Their sum is that of the statement's lines of usage.</summary>
    public Task<bool> FocusAsync(Statement statement, Stream destination, CancellationToken cancellation)
        => WriteAsync(statement.Account, customer => Fill(SqlText.ExportFocus, ("customer", customer), ("account", Quote(statement.Account.Value)),
            ("periodStart", Stamp(statement.Period.From)), ("periodEnd", Stamp(statement.Period.To)),
            ("fromPosition", Number(statement.FromPosition)), ("openingPosition", Number(statement.OpeningPosition)),
            ("closingPosition", Number(statement.ClosingPosition))), destination, cancellation);

    private async Task<bool> WriteAsync(AccountId account, Func<string, string> query, Stream destination, CancellationToken cancellation)
    {
        await turns.WaitAsync(cancellation);
        try
        {
            return await CopyAsync(account, query, destination, cancellation);
        }
        finally
        {
            turns.Release();
        }
    }

    private Task<bool> CopyAsync(AccountId account, Func<string, string> query, Stream destination, CancellationToken cancellation)
        => Transact.UseAsync(dataSource, async connection =>
        {
            await using var find = new NpgsqlCommand("select id from ledger_account where account = $1", connection)
            {
                Parameters = { Transact.Value(account.Value) },
            };
            if (await find.ExecuteScalarAsync(cancellation) is not long customer) return false;
            using var rows = await connection.BeginTextExportAsync(
                $"copy ({query(Number(customer))}) to stdout with (format csv, header)", cancellation);
            await using var text = new StreamWriter(destination, new UTF8Encoding(false), PieceLength, leaveOpen: true);
            var piece = new char[PieceLength];
            for (int read; (read = await rows.ReadAsync(piece, cancellation)) > 0;) await text.WriteAsync(piece.AsMemory(0, read), cancellation);
            await text.FlushAsync(cancellation);
            return true;
        }, cancellation);

    /// <summary>COPY takes no parameters. What is put in is made of numbers and instants, and one quoted name.</summary>
    private static string Fill(string sql, params (string Name, string Value)[] values)
        => values.Aggregate(sql, (text, one) => text.Replace($"{{{one.Name}}}", one.Value, StringComparison.Ordinal));

    private static string Quote(string text) => text.Replace("'", "''", StringComparison.Ordinal);

    private static string Number(long number) => number.ToString(CultureInfo.InvariantCulture);

    private static string Stamp(DateTimeOffset time) => time.UtcDateTime.ToString("yyyy-MM-dd'T'HH:mm:ss.ffffff'Z'", CultureInfo.InvariantCulture);
}
