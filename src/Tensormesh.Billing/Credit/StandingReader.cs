using Npgsql;
using NpgsqlTypes;

namespace Tensormesh.Billing;

/// <summary>Reads a standing from the one row of read_standing.sql.</summary>
internal static class StandingReader
{
    public static NpgsqlBatchCommand Command(AccountId account, DeploymentId? deployment)
        => Transact.Command(SqlText.ReadStanding, Transact.Value(account.Value), Transact.Value(deployment?.Value, NpgsqlDbType.Uuid));

    /// <summary>Null when the ledger knows no such account.</summary>
    public static async Task<DeploymentStanding?> ReadAsync(
        NpgsqlDataReader reader, AccountId account, DeploymentId deployment, CancellationToken cancellation)
    {
        if (!await reader.ReadAsync(cancellation)) return null;
        var holds = Holds(reader, account);
        var standing = new Standing
        {
            Account = account,
            Policy = new AccountPolicy(
                reader.GetString(0),
                reader.IsDBNull(1) ? null : new Money(reader.GetInt64(1)),
                reader.IsDBNull(2) ? null : TimeSpan.FromSeconds(reader.GetInt64(2)),
                reader.GetString(3)),
            Posted = new Money(reader.GetInt64(4)),
            Tokens = new TokensDue(new(reader.GetInt64(29)), reader.IsDBNull(30) ? null : reader.GetFieldValue<DateTimeOffset>(30)),
            Intervals = Intervals(reader),
            Holds = holds,
            Cards = new CardsOnFile(Cards(reader), reader.IsDBNull(26) ? null : reader.GetFieldValue<DateTimeOffset>(26)),
        };
        return new DeploymentStanding(
            standing, deployment, holds.FirstOrDefault(hold => hold.Deployment == deployment), new Money(reader.GetInt64(27)));
    }

    private static AccruingInterval[] Intervals(NpgsqlDataReader reader)
    {
        if (reader.IsDBNull(5)) return [];
        var (pods, deployments, products, gpus) = (
            Column<Guid>(reader, 5), Column<Guid>(reader, 6), Column<string>(reader, 7), Column<int>(reader, 8));
        var (rates, ratedFrom, rated, settled) = (
            Column<long>(reader, 9), Column<DateTime>(reader, 10), Column<long>(reader, 11), Column<DateTime>(reader, 12));
        var intervals = new AccruingInterval[pods.Length];
        for (var i = 0; i < pods.Length; i++)
        {
            intervals[i] = new(
                new(pods[i]), new(deployments[i]), new(products[i]), gpus[i], new(rates[i]), new(ratedFrom[i]), new(rated[i]),
                new(settled[i]));
        }

        return intervals;
    }

    private static CreditHold[] Holds(NpgsqlDataReader reader, AccountId account)
    {
        if (reader.IsDBNull(13)) return [];
        var (deployments, products, gpus) = (Column<Guid>(reader, 13), Column<string>(reader, 14), Column<int>(reader, 15));
        var (rates, remaining, placed) = (Column<long>(reader, 16), Column<long>(reader, 17), Column<DateTime>(reader, 18));
        return [.. deployments.Select((deployment, i) =>
            new CreditHold(new(deployment), account, new(products[i]), gpus[i], new(rates[i]), new(remaining[i]), new(placed[i])))];
    }

    private static Card[] Cards(NpgsqlDataReader reader)
    {
        if (reader.IsDBNull(19)) return [];
        var (ids, brands, last4) = (Column<string>(reader, 19), Column<string>(reader, 20), Column<string>(reader, 21));
        var (months, years, defaults, attached) = (
            Column<int>(reader, 22), Column<int>(reader, 23), Column<bool>(reader, 24), Column<DateTime>(reader, 25));
        var declined = Column<DateTime?>(reader, 28);
        return
        [
            .. ids.Select((id, i) => new Card(
                id, brands[i], last4[i], months[i], years[i], defaults[i], new(attached[i]),
                declined[i] is { } at ? new DateTimeOffset(at) : null)),
        ];
    }

    private static T[] Column<T>(NpgsqlDataReader reader, int ordinal) => reader.GetFieldValue<T[]>(ordinal);
}
