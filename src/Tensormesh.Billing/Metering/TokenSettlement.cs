using Npgsql;
using NpgsqlTypes;

namespace Tensormesh.Billing;

/// <summary>What one model's tokens cost that are settled together.</summary>
internal sealed record ModelCharge(string Model, PriceVersionId Version, TokenTotals Tokens, Money Amount);

/// <summary>What tokens of one day of the account's calendar cost that are settled together: one ledger transaction.</summary>
/// <param name="LastAt">When the last of them were used.</param>
internal sealed record TokenCharge(DateOnly Day, DateTimeOffset LastAt, IReadOnlyList<ModelCharge> Models, Money Amount);

/// <summary>What the ledger is not told of one quarter of an hour, one model and one price.</summary>
internal sealed record UnsettledTokens(
    DateTimeOffset Bucket, string Model, PriceVersionId Version, DateOnly Day, DateTimeOffset LastAt, TokenTotals Tokens, Money Amount);

/// <summary>What an account owes for tokens, under the lock that whoever changes it takes.</summary>
internal sealed record LockedTokens(
    long Customer, Money Settled, DateTimeOffset? UnsettledFrom, TokensDue Due, string? Traceparent)
{
    public static async Task<LockedTokens?> LockAsync(NpgsqlConnection connection, AccountId account, CancellationToken cancellation)
    {
        await using var command = new NpgsqlCommand(SqlText.LockTokens, connection) { Parameters = { Transact.Value(account.Value) } };
        await using var reader = await command.ExecuteReaderAsync(cancellation);
        if (!await reader.ReadAsync(cancellation)) return null;
        var (rated, settled) = (new Money(reader.GetInt64(1)), new Money(reader.GetInt64(2)));
        DateTimeOffset? Instant(int ordinal) => reader.IsDBNull(ordinal) ? null : reader.GetFieldValue<DateTimeOffset>(ordinal);
        return new(
            reader.GetInt64(0), settled, Instant(3), new TokensDue(rated - settled, Instant(4)), reader.IsDBNull(5) ? null : reader.GetString(5));
    }

    public async Task<IReadOnlyList<UnsettledTokens>> ReadUnsettledAsync(NpgsqlConnection connection, CancellationToken cancellation)
    {
        if (UnsettledFrom is not { } from) return [];
        await using var command = new NpgsqlCommand(SqlText.ReadUnsettledTokens, connection) { Parameters = { Transact.Value(Customer), Transact.Value(from) } };
        await using var reader = await command.ExecuteReaderAsync(cancellation);
        var rows = new List<UnsettledTokens>();
        while (await reader.ReadAsync(cancellation))
        {
            rows.Add(new(
                reader.GetFieldValue<DateTimeOffset>(0), reader.GetString(1), new(reader.GetInt64(2)), reader.GetFieldValue<DateOnly>(3),
                reader.GetFieldValue<DateTimeOffset>(4), new(reader.GetInt64(5), reader.GetInt64(6), reader.GetInt64(7)), new(reader.GetInt64(8))));
        }

        return rows;
    }
}

/// <summary>How far money goes towards what is owed for tokens: the oldest first.</summary>
/// <param name="Drawn">The rows of which the ledger is told, each with what of its amount that is. Its tokens are told of with the first part.</param>
/// <param name="UnsettledFrom">The first bucket of which something is left; null: none.</param>
internal sealed record TokenSettlement(
    IReadOnlyList<(UnsettledTokens Row, Money Amount)> Drawn, IReadOnlyList<TokenCharge> Charges, DateTimeOffset? UnsettledFrom)
{
    public static TokenSettlement Of(IReadOnlyList<UnsettledTokens> rows, Money money)
    {
        var drawn = new List<(UnsettledTokens Row, Money Amount)>();
        DateTimeOffset? left = null;
        foreach (var row in rows)
        {
            var amount = Money.Min(row.Amount, money);
            if (amount < row.Amount) left ??= row.Bucket;
            if (amount == Money.Zero && row.Amount > Money.Zero) continue;
            drawn.Add((row, amount));
            money -= amount;
        }

        return new(drawn, [.. drawn.GroupBy(one => one.Row.Day).Select(Charge).Where(charge => charge.Amount > Money.Zero)], left);
    }

    private static TokenCharge Charge(IGrouping<DateOnly, (UnsettledTokens Row, Money Amount)> day)
    {
        var models = day.GroupBy(one => (one.Row.Model, one.Row.Version)).Select(model => new ModelCharge(
            model.Key.Model, model.Key.Version, model.Aggregate(default(TokenTotals), (sum, one) => sum + one.Row.Tokens),
            model.Aggregate(Money.Zero, (sum, one) => sum + one.Amount))).ToArray();
        return new(day.Key, day.Max(one => one.Row.LastAt), models, models.Aggregate(Money.Zero, (sum, one) => sum + one.Amount));
    }

    public NpgsqlBatchCommand Note(long customer) => Transact.Command(
        SqlText.SettleTokens, Transact.Value(customer), Column(one => one.Row.Bucket), Column(one => one.Row.Model), Column(one => one.Row.Version.Value),
        Column(one => one.Row.Tokens.Input), Column(one => one.Row.Tokens.Cached), Column(one => one.Row.Tokens.Output), Column(one => one.Amount.Nanos),
        Transact.Value(UnsettledFrom, NpgsqlDbType.TimestampTz));

    /// <summary>After the movement is posted.</summary>
    public static NpgsqlBatchCommand AddToMonth(long customer, TokenCharge charge, string key)
    {
        NpgsqlParameter Of<T>(Func<ModelCharge, T> value) => Transact.Value(charge.Models.Select(value).ToArray());
        return Transact.Command(
            SqlText.AddToServerlessMonth, Transact.Value(customer), Transact.Value(BillingMonth.Of(charge.Day).FirstDay), Transact.Value(key),
            Of(one => one.Model), Of(one => one.Tokens.Input), Of(one => one.Tokens.Cached), Of(one => one.Tokens.Output), Of(one => one.Amount.Nanos));
    }

    private NpgsqlParameter Column<T>(Func<(UnsettledTokens Row, Money Amount), T> value) => Transact.Value(Drawn.Select(value).ToArray());
}
