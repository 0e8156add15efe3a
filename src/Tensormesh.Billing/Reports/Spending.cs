using System.Data;
using Npgsql;

namespace Tensormesh.Billing;

/// <summary>What an account spent on usage, corrections and credits for faulty GPUs taken off. Positive amounts.</summary>
/// <param name="Last24Hours">Rolling, by the end of each usage window; so are the other two.</param>
public sealed record SpendingSummary(Money Last24Hours, Money Last7Days, Money Last30Days);

/// <summary>The calendar of an account: days and months of its own time zone, whatever their length. Settled usage, and in today and this month
/// all tokens.</summary>
/// <param name="Today">Since today began.</param>
/// <param name="LastWeek">The seven days before today.</param>
/// <param name="LastMonth">The month before this one, from its first day to its last.</param>
/// <param name="NextBillingAt">The first instant of the next month.</param>
public sealed record CalendarSpending(Money Today, Money LastWeek, Money LastMonth, Money MonthToDate, DateTimeOffset NextBillingAt);

/// <summary>
/// An account at one instant, all of it from one snapshot of the ledger. With another <paramref name="At"/> it says what it will be, as things run now.
/// </summary>
/// <param name="Spending">Without what accrued since the last settlement.</param>
public sealed record AccountOverview(Standing Standing, CalendarSpending Spending, DateTimeOffset At)
{
    public Money Accrued => Standing.Accrued(At);

    public Money Balance => Standing.Remaining(At);

    public Money Held => Standing.Held(At);

    /// <summary>What a new deployment may claim; never below zero.</summary>
    public Money Available => Money.Max(Money.Zero, Standing.Available(At));

    public Money MonthToDate => Spending.MonthToDate + Charged;

    public Money Today => Spending.Today + Charged;

    /// <summary>Of what accrued, what there is money for: no more is ever charged.</summary>
    private Money Charged => Money.Min(Accrued, Money.Max(Standing.Funds, Money.Zero));
}

/// <summary>One day in the account's time zone.</summary>
/// <param name="StartsAt">Its first instant.</param>
/// <param name="Saved">What a lower price for cached tokens saved.</param>
public sealed record SpendingDay(DateTimeOffset StartsAt, Money Gpu, Money Serverless, Money Saved)
{
    public Money Total => Gpu + Serverless;
}

/// <summary>Spending reports, from sums that are kept in the SQL transaction of each post: as exact as the ledger, at every instant.</summary>
public sealed class Spending(NpgsqlDataSource dataSource)
{
    private readonly NpgsqlDataSource dataSource = dataSource;

    /// <summary>Settled usage only: what accrued since the last settlement is not in it. Null when the ledger knows no such
    /// account.</summary>
    public Task<SpendingSummary?> SummaryAsync(AccountId account, DateTimeOffset now, CancellationToken cancellation)
        => Transact.UseAsync<SpendingSummary?>(dataSource, async connection =>
        {
            await using var batch = new NpgsqlBatch(connection) { BatchCommands = { At(SqlText.SpendingSummary, account, now) } };
            await using var reader = await batch.ExecuteReaderAsync(cancellation);
            return await reader.ReadAsync(cancellation)
                ? new SpendingSummary(new(reader.GetInt64(0)), new(reader.GetInt64(1)), new(reader.GetInt64(2)))
                : null;
        }, cancellation);

    /// <summary>Null when the ledger knows no such account.</summary>
    public Task<AccountOverview?> OverviewAsync(AccountId account, DateTimeOffset now, CancellationToken cancellation)
        => Transact.UseAsync<AccountOverview?>(dataSource, async connection =>
        {
            // A settlement between the two statements would be counted twice, or not at all.
            await using var snapshot = await connection.BeginTransactionAsync(IsolationLevel.RepeatableRead, cancellation);
            await using var batch = new NpgsqlBatch(connection) { BatchCommands = { At(SqlText.SpendingCalendar, account, now), StandingReader.Command(account, null) } };
            await using var reader = await batch.ExecuteReaderAsync(cancellation);
            if (!await reader.ReadAsync(cancellation)) return null;
            var (today, monthBeforeToday) = (new Money(reader.GetInt64(0)), new Money(reader.GetInt64(3)));
            var (tokensToday, tokensBefore) = (new Money(reader.GetInt64(5)), new Money(reader.GetInt64(6)));
            var spending = new CalendarSpending(
                today + tokensToday, new(reader.GetInt64(1)), new(reader.GetInt64(2)), monthBeforeToday + tokensBefore + today + tokensToday,
                reader.GetFieldValue<DateTimeOffset>(4));
            await reader.NextResultAsync(cancellation);
            return await StandingReader.ReadAsync(reader, account, default, cancellation) is { Account: var standing }
                ? new AccountOverview(standing, spending, now)
                : null;
        }, cancellation);

    /// <summary>Each of the account's last days, today last; days without spending too. Settled usage only.</summary>
    /// <param name="days">1 to 366.</param>
    /// <returns>Null when the ledger knows no such account.</returns>
    public Task<IReadOnlyList<SpendingDay>?> HistoryAsync(AccountId account, DateTimeOffset now, int days, CancellationToken cancellation)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(days, 1);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(days, 366);
        return Transact.UseAsync<IReadOnlyList<SpendingDay>?>(dataSource, async connection =>
        {
            await using var command = new NpgsqlCommand(SqlText.SpendingHistory, connection)
            {
                Parameters = { Transact.Value(account.Value), Transact.Value(now.ToLedgerTime()), Transact.Value(days) },
            };
            await using var reader = await command.ExecuteReaderAsync(cancellation);
            var history = new List<SpendingDay>();
            while (await reader.ReadAsync(cancellation))
            {
                history.Add(new(reader.GetFieldValue<DateTimeOffset>(0), new(reader.GetInt64(1)), new(reader.GetInt64(2)), new(reader.GetInt64(3))));
            }

            return history.Count == 0 ? null : history;
        }, cancellation);
    }

    private static NpgsqlBatchCommand At(string query, AccountId account, DateTimeOffset now)
        => Transact.Command(query, Transact.Value(account.Value), Transact.Value(now.ToLedgerTime()));
}
