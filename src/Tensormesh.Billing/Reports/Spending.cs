using Npgsql;

namespace Tensormesh.Billing;

/// <summary>What an account spent on usage, corrections and credits for faulty GPUs taken off. Positive amounts.</summary>
/// <param name="Last24Hours">Rolling, by the end of each usage window; so are the other two.</param>
/// <param name="MonthToDate">Since the month began in the account's own time zone.</param>
public sealed record SpendingSummary(Money Last24Hours, Money Last7Days, Money Last30Days, Money MonthToDate);

/// <summary>Spending reports from the ledger.</summary>
public sealed class Spending(NpgsqlDataSource dataSource)
{
    private readonly NpgsqlDataSource dataSource = dataSource;

    /// <summary>Settled usage only: what accrued since the last settlement is not in it. Null when the ledger knows no such
    /// account.</summary>
    public Task<SpendingSummary?> SummaryAsync(AccountId account, DateTimeOffset now, CancellationToken cancellation)
        => Transact.UseAsync<SpendingSummary?>(dataSource, async connection =>
        {
            await using var command = new NpgsqlCommand(SqlText.SpendingSummary, connection);
            command.Parameters.Add(Transact.Value(account.Value));
            command.Parameters.Add(Transact.Value(now.ToLedgerTime()));
            await using var reader = await command.ExecuteReaderAsync(cancellation);
            if (!await reader.ReadAsync(cancellation)) return null;
            return new(new(reader.GetInt64(0)), new(reader.GetInt64(1)), new(reader.GetInt64(2)), new(reader.GetInt64(3)));
        }, cancellation);
}
