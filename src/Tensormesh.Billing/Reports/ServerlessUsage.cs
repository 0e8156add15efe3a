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
            if (await ReadZoneAsync(connection, account, cancellation) is not { } zone) return null;
            var calendar = AccountCalendar.Of(zone);
            var period = month is { } one ? calendar.MonthAt(one) : new Period(DateTimeOffset.MinValue.AddYears(1), DateTimeOffset.MaxValue.AddYears(-1));
            await using var command = new NpgsqlCommand(SqlText.ServerlessUsage, connection)
            {
                Parameters =
                {
                    Transact.Value(account.Value), Transact.Value(period.From.ToLedgerTime()), Transact.Value(period.To.ToLedgerTime()),
                    Transact.Value(calendar.TimeZone),
                },
            };
            await using var reader = await command.ExecuteReaderAsync(cancellation);
            var (models, days, settled) = (new List<ModelUsage>(), new List<UsageDay>(), Money.Zero);
            while (await reader.ReadAsync(cancellation))
            {
                var tokens = new TokenTotals(reader.GetInt64(3), reader.GetInt64(4), reader.GetInt64(5));
                if (!reader.IsDBNull(0))
                {
                    days.Add(new(reader.GetFieldValue<DateOnly>(0), tokens, new(reader.GetInt64(6))));
                    continue;
                }

                settled += new Money(reader.GetInt64(7));
                var row = ReadModel(reader, tokens);
                if (models.Count > 0 && models[^1].Model == row.Model) models[^1] = Add(models[^1], row);
                else models.Add(row);
            }

            return new UsageReport(calendar.TimeZone, models, days, settled);
        }, cancellation);

    private static async Task<string?> ReadZoneAsync(NpgsqlConnection connection, AccountId account, CancellationToken cancellation)
    {
        await using var command = new NpgsqlCommand("select time_zone from account where id = $1", connection)
        {
            Parameters = { Transact.Value(account.Value) },
        };
        return (string?)await command.ExecuteScalarAsync(cancellation);
    }

    /// <summary>Of one price; without rates it has none.</summary>
    private static ModelUsage ReadModel(NpgsqlDataReader reader, TokenTotals tokens)
    {
        var (model, events, cost) = (reader.GetString(1), reader.GetInt64(2), new Money(reader.GetInt64(6)));
        if (reader.IsDBNull(8)) return new(model, events, tokens, cost, Money.Zero, tokens, events);
        var price = new TokenPrice(model, new(reader.GetInt64(8)), new(reader.GetInt64(9)), new(reader.GetInt64(10)));
        return new(model, events, tokens, cost, TokenRating.Saved(tokens.Cached, price), default, 0);
    }

    private static ModelUsage Add(ModelUsage one, ModelUsage other) => new(
        one.Model, one.Events + other.Events, one.Tokens + other.Tokens, one.Cost + other.Cost, one.Saved + other.Saved, one.Unpriced + other.Unpriced,
        one.UnpricedEvents + other.UnpricedEvents);
}
