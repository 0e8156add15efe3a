using System.Globalization;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using Npgsql;
using NpgsqlTypes;

namespace Tensormesh.Billing;

/// <summary>All transactions of one type on a statement.</summary>
/// <param name="Correction">They took effect before the statement's period, and were posted after that was closed.</param>
public sealed record StatementLine(string Type, bool Correction, long Transactions, Money Amount);

/// <summary>
/// One month of an account. Each transaction is on exactly one statement: that of the month in which it took effect, or, posted after that was
/// closed, of the first that was still open.
/// </summary>
/// <param name="FromPosition">With the two after it: which transactions are on it (migration 0015 says how).</param>
/// <param name="CarriedFrom">The first that was there at the closing and belongs to a later month.</param>
/// <param name="PreviousHash">Of the statement before; empty for the first.</param>
/// <param name="Hash">SHA-256 over everything else but <paramref name="ClosedAt"/>; empty while it is open.</param>
/// <param name="ClosedAt">Null: open, and may still change.</param>
public sealed record Statement(
    AccountId Account, BillingMonth Month, string TimeZone, Period Period, long FromPosition, long OpeningPosition, long ClosingPosition,
    long? CarriedFrom, Money OpeningBalance, Money ClosingBalance, IReadOnlyList<StatementLine> Lines, string PreviousHash, string Hash,
    DateTimeOffset? ClosedAt)
{
    /// <summary>What the hash of this content is: how it is made never changes.</summary>
    public string ComputeHash()
    {
        var text = new StringBuilder("statement/1\n").Append(CultureInfo.InvariantCulture,
            $"{Account}\n{Month}\n{TimeZone}\n{Period.From.ToMicroseconds()}\n{Period.To.ToMicroseconds()}\n{FromPosition}\n{OpeningPosition}\n{ClosingPosition}\n{OpeningBalance.Nanos}\n{ClosingBalance.Nanos}\n{PreviousHash}\n");
        foreach (var line in Lines)
        {
            text.Append(CultureInfo.InvariantCulture, $"{line.Type}\n{(line.Correction ? 1 : 0)}\n{line.Transactions}\n{line.Amount.Nanos}\n");
        }

        return Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(text.ToString())));
    }
}

/// <summary>Monthly statements: closed once, a while after the month's end, and never changed.</summary>
public sealed class Statements(NpgsqlDataSource dataSource)
{
    /// <summary>From a month's end until it may be closed: by then what ran in it is settled, but for outages, whose rest is a correction.</summary>
    public static readonly TimeSpan ClosingDelay = TimeSpan.FromHours(6);

    private readonly NpgsqlDataSource dataSource = dataSource;

    /// <summary>
    /// The account's statements from its first month to that of <paramref name="now"/>, oldest first. Those whose time has come are closed by
    /// this; of the others the figures are of the moment. Null when the ledger knows no such account.
    /// </summary>
    public async Task<IReadOnlyList<Statement>?> ReadAsync(AccountId account, DateTimeOffset now, CancellationToken cancellation)
    {
        var (statements, mayClose) = await SumAsync(account, now, null, cancellation);
        if (!mayClose) return statements;
        return (await SumAsync(account, now, await NewestPositionAsync(account, cancellation), cancellation)).Statements;
    }

    /// <summary>
    /// A customer's positions are given out under the customer's lock. Whoever has had the lock for a moment knows that up to the newest position all
    /// is there to see, and that what comes has a later one; the sums are then made without the lock.
    /// </summary>
    private Task<long> NewestPositionAsync(AccountId account, CancellationToken cancellation)
        => Transact.RunAsync(dataSource, async connection =>
        {
            await using var batch = new NpgsqlBatch(connection) { BatchCommands = { Ledger.LockCommand([Movements.Customer(account)]) } };
            await batch.ExecuteNonQueryAsync(cancellation);
            await using var newest = new NpgsqlCommand(
                "select coalesce(max(t.position), 0) from ledger_account l join ledger_transaction t on t.customer = l.id where l.account = $1", connection)
            {
                Parameters = { Transact.Value(account.Value) },
            };
            return (long)(await newest.ExecuteScalarAsync(cancellation))!;
        }, cancellation);

    /// <param name="closingPosition">Null: nothing is closed, and what may be is told.</param>
    private Task<(IReadOnlyList<Statement>? Statements, bool MayClose)> SumAsync(
        AccountId account, DateTimeOffset now, long? closingPosition, CancellationToken cancellation)
        => Transact.RunAsync(dataSource, async connection =>
        {
            if (closingPosition is not null) await TakeTurnAsync(connection, account, cancellation);
            if (await FindAsync(connection, account, cancellation) is not var (customer, timeZone, first)) return (null, false);
            var calendar = AccountCalendar.Of(timeZone);
            var statements = await ListAsync(connection, account, cancellation);
            for (var month = statements.Count > 0 ? statements[^1].Month.Next : calendar.MonthOf(first); month <= calendar.MonthOf(now); month = month.Next)
            {
                var next = After(statements.LastOrDefault(), account, month, calendar);
                var mayClose = next.Period.To + ClosingDelay <= now;
                if (mayClose && closingPosition is null) return ((IReadOnlyList<Statement>?)null, true);
                if (mayClose) next = next with { ClosingPosition = Math.Max(next.OpeningPosition, closingPosition!.Value) };
                next = await SumAsync(connection, customer, next, cancellation);
                statements.Add(mayClose ? await CloseAsync(connection, next, cancellation) : next);
            }

            return (statements, false);
        }, cancellation);

    /// <summary>An empty statement, which goes on where the one before ends.</summary>
    private static Statement After(Statement? before, AccountId account, BillingMonth month, AccountCalendar calendar)
    {
        var period = calendar.MonthAt(month);
        return before is null
            ? new(account, month, calendar.TimeZone, period, 1, 0, long.MaxValue, null, Money.Zero, Money.Zero, [], "", "", null)
            : new(account, month, calendar.TimeZone, new(before.Period.To, Instants.Later(period.To, before.Period.To.AddMicroseconds(1))),
                before.ClosedAt is null ? before.FromPosition : before.CarriedFrom ?? before.ClosingPosition + 1,
                before.ClosingPosition, long.MaxValue, null, before.ClosingBalance, before.ClosingBalance, [], before.Hash, "", null);
    }

    private static async Task<(long Customer, string TimeZone, DateTimeOffset First)?> FindAsync(
        NpgsqlConnection connection, AccountId account, CancellationToken cancellation)
    {
        await using var command = new NpgsqlCommand(
            "select l.id, a.time_zone, least(a.created_at, (select min(b.bucket) from spending_bucket b where b.customer = l.id and not b.is_day)) "
                + "from account a join ledger_account l on l.account = a.id where a.id = $1", connection)
        {
            Parameters = { Transact.Value(account.Value) },
        };
        await using var reader = await command.ExecuteReaderAsync(cancellation);
        return await reader.ReadAsync(cancellation) ? (reader.GetInt64(0), reader.GetString(1), reader.GetFieldValue<DateTimeOffset>(2)) : null;
    }

    /// <summary>Two that close the same months come one after the other.</summary>
    private static async Task TakeTurnAsync(NpgsqlConnection connection, AccountId account, CancellationToken cancellation)
    {
        await using var command = new NpgsqlCommand(
            "select pg_advisory_xact_lock(hashtext('tensormesh.statement'), hashtext($1))", connection)
        {
            Parameters = { Transact.Value(account.Value) },
        };
        await command.ExecuteNonQueryAsync(cancellation);
    }

    private static async Task<Statement> SumAsync(NpgsqlConnection connection, long customer, Statement statement, CancellationToken cancellation)
    {
        await using var command = new NpgsqlCommand(SqlText.SumStatement, connection)
        {
            Parameters =
            {
                Transact.Value(customer), Transact.Value(statement.FromPosition), Transact.Value(statement.OpeningPosition),
                Transact.Value(statement.ClosingPosition), Transact.Value(statement.Period.From), Transact.Value(statement.Period.To),
            },
        };
        await using var reader = await command.ExecuteReaderAsync(cancellation);
        var lines = new List<StatementLine>();
        while (await reader.ReadAsync(cancellation))
        {
            lines.Add(new(reader.GetString(0), reader.GetBoolean(1), reader.GetInt64(2), new(decimal.ToInt64(reader.GetDecimal(3)))));
        }

        return statement with { Lines = lines, ClosingBalance = lines.Aggregate(statement.OpeningBalance, (sum, line) => sum + line.Amount) };
    }

    private static async Task<Statement> CloseAsync(NpgsqlConnection connection, Statement statement, CancellationToken cancellation)
    {
        var hash = statement.ComputeHash();
        await using var command = new NpgsqlCommand(SqlText.InsertStatement, connection)
        {
            Parameters =
            {
                Transact.Value(statement.Account.Value), Transact.Value(statement.Month.FirstDay), Transact.Value(statement.TimeZone),
                Transact.Value(statement.Period.From), Transact.Value(statement.Period.To), Transact.Value(statement.FromPosition),
                Transact.Value(statement.OpeningPosition), Transact.Value(statement.ClosingPosition),
                Transact.Value(statement.OpeningBalance.Nanos), Transact.Value(statement.ClosingBalance.Nanos),
                Transact.Value(JsonSerializer.Serialize(statement.Lines.Select(Line.From)), NpgsqlDbType.Jsonb),
                Transact.Value(statement.PreviousHash), Transact.Value(hash),
            },
        };
        await using var reader = await command.ExecuteReaderAsync(cancellation);
        await reader.ReadAsync(cancellation);
        return statement with
        {
            Hash = hash,
            CarriedFrom = reader.IsDBNull(0) ? null : reader.GetInt64(0),
            ClosedAt = reader.GetFieldValue<DateTimeOffset>(1),
        };
    }

    private static async Task<List<Statement>> ListAsync(NpgsqlConnection connection, AccountId account, CancellationToken cancellation)
    {
        await using var command = new NpgsqlCommand(SqlText.ListStatements, connection) { Parameters = { Transact.Value(account.Value) } };
        await using var reader = await command.ExecuteReaderAsync(cancellation);
        var statements = new List<Statement>();
        while (await reader.ReadAsync(cancellation))
        {
            statements.Add(new(
                account, BillingMonth.Of(reader.GetFieldValue<DateOnly>(0)), reader.GetString(1),
                new(reader.GetFieldValue<DateTimeOffset>(2), reader.GetFieldValue<DateTimeOffset>(3)), reader.GetInt64(4), reader.GetInt64(5),
                reader.GetInt64(6), reader.IsDBNull(7) ? null : reader.GetInt64(7), new(reader.GetInt64(8)), new(reader.GetInt64(9)),
                [.. JsonSerializer.Deserialize<Line[]>(reader.GetString(10))!.Select(line => line.Read())],
                reader.GetString(11), reader.GetString(12), reader.GetFieldValue<DateTimeOffset>(13)));
        }

        return statements;
    }

    /// <summary>A line as it is stored.</summary>
    private sealed record Line(string Type, bool Correction, long Transactions, long AmountNanos)
    {
        public static Line From(StatementLine line) => new(line.Type, line.Correction, line.Transactions, line.Amount.Nanos);

        public StatementLine Read() => new(Type, Correction, Transactions, new(AmountNanos));
    }
}
