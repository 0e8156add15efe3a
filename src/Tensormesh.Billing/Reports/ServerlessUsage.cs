using System.Data;
using Npgsql;

namespace Tensormesh.Billing;

/// <summary>What was used of one model.</summary>
/// <param name="Cost">Of all its prices in the period.</param>
/// <param name="Saved">What a lower price for cached tokens saved.</param>
/// <param name="Unpriced">Tokens that wait for a price: in <paramref name="Tokens"/>, and in no cost.</param>
public sealed record ModelUsage(string Model, long Events, TokenTotals Tokens, Money Cost, Money Saved, TokenTotals Unpriced, long UnpricedEvents);

/// <summary>What was used on one day of the account's calendar.</summary>
public sealed record UsageDay(DateOnly Day, TokenTotals Tokens, Money Cost);

/// <summary>Serverless usage of an account in a period, all of it of one instant.</summary>
/// <param name="Settled">What of the cost the ledger has: the rest follows within minutes, or is owed.</param>
public sealed record UsageReport(string TimeZone, IReadOnlyList<ModelUsage> Models, IReadOnlyList<UsageDay> Days, Money Settled)
{
    public TokenTotals Tokens => Models.Aggregate(default(TokenTotals), (sum, one) => sum + one.Tokens);
    public Money Cost => Models.Aggregate(Money.Zero, (sum, one) => sum + one.Cost);
    public Money Saved => Models.Aggregate(Money.Zero, (sum, one) => sum + one.Saved);
}

/// <summary>Reports of serverless usage, from sums by quarters of an hour that are kept in the SQL transaction that takes an event.</summary>
public sealed class ServerlessUsage(NpgsqlDataSource dataSource)
{
    private readonly NpgsqlDataSource dataSource = dataSource;

    /// <param name="month">In the account's calendar; null: all time.</param>
    /// <returns>Null when the ledger knows no such account.</returns>
    public Task<UsageReport?> ReadAsync(AccountId account, BillingMonth? month, CancellationToken cancellation)
        => Transact.UseAsync<UsageReport?>(dataSource, async connection =>
        {
            // Two queries of one instant.
            await using var snapshot = await connection.BeginTransactionAsync(IsolationLevel.RepeatableRead, cancellation);
            if (await ReadZoneAsync(connection, account, cancellation) is not { } zone) return null;
            var calendar = AccountCalendar.Of(zone);
            var period = month is { } one ? calendar.MonthAt(one) : new Period(DateTimeOffset.MinValue.AddYears(1), DateTimeOffset.MaxValue.AddYears(-1));
            var bounds = (NpgsqlParameter[])[Transact.Value(account.Value), Transact.Value(period.From.ToLedgerTime()), Transact.Value(period.To.ToLedgerTime())];
            await using var batch = new NpgsqlBatch(connection)
            {
                BatchCommands =
                {
                    Transact.Command(SqlText.ServerlessUsage, bounds),
                    Transact.Command(SqlText.ServerlessUsageByDay, [.. bounds.Select(bound => bound.Clone()), Transact.Value(calendar.TimeZone)]),
                },
            };
            await using var reader = await batch.ExecuteReaderAsync(cancellation);
            var (models, settled) = await ReadModelsAsync(reader, cancellation);
            await reader.NextResultAsync(cancellation);
            return new UsageReport(calendar.TimeZone, models, await ReadDaysAsync(reader, cancellation), settled);
        }, cancellation);

    private static async Task<string?> ReadZoneAsync(NpgsqlConnection connection, AccountId account, CancellationToken cancellation)
    {
        await using var command = new NpgsqlCommand("select time_zone from account where id = $1", connection)
        {
            Parameters = { Transact.Value(account.Value) },
        };
        return (string?)await command.ExecuteScalarAsync(cancellation);
    }

    private static async Task<(IReadOnlyList<ModelUsage> Models, Money Settled)> ReadModelsAsync(NpgsqlDataReader reader, CancellationToken cancellation)
    {
        var (models, settled) = (new List<ModelUsage>(), Money.Zero);
        while (await reader.ReadAsync(cancellation))
        {
            var model = reader.GetString(0);
            var (events, tokens) = (reader.GetInt64(2), new TokenTotals(reader.GetInt64(3), reader.GetInt64(4), reader.GetInt64(5)));
            settled += new Money(reader.GetInt64(7));
            var (saved, unpriced, unpricedEvents) = (Money.Zero, tokens, events);
            if (!reader.IsDBNull(8))
            {
                saved = TokenRating.Saved(tokens.Cached, new(model, new(reader.GetInt64(8)), new(reader.GetInt64(9)), new(reader.GetInt64(10))));
                (unpriced, unpricedEvents) = (default, 0);
            }

            var row = new ModelUsage(model, events, tokens, new(reader.GetInt64(6)), saved, unpriced, unpricedEvents);
            if (models.Count > 0 && models[^1].Model == model) models[^1] = Add(models[^1], row);
            else models.Add(row);
        }

        return (models, settled);
    }

    private static ModelUsage Add(ModelUsage one, ModelUsage other) => new(
        one.Model, one.Events + other.Events, one.Tokens + other.Tokens, one.Cost + other.Cost, one.Saved + other.Saved, one.Unpriced + other.Unpriced,
        one.UnpricedEvents + other.UnpricedEvents);

    private static async Task<IReadOnlyList<UsageDay>> ReadDaysAsync(NpgsqlDataReader reader, CancellationToken cancellation)
    {
        var days = new List<UsageDay>();
        while (await reader.ReadAsync(cancellation))
        {
            days.Add(new(
                reader.GetFieldValue<DateOnly>(0), new(reader.GetInt64(1), reader.GetInt64(2), reader.GetInt64(3)), new(reader.GetInt64(4))));
        }

        return days;
    }
}
