using Npgsql;

namespace Tensormesh.Billing;

/// <summary>Grants that expire: what is left of each goes back when its time is over.</summary>
public sealed class CreditGrants(NpgsqlDataSource dataSource, OperatorEpoch? epoch = null)
{
    /// <summary>Grants that one call ends; the next call ends the next.</summary>
    private const int MostAtOnce = 200;

    private readonly NpgsqlDataSource dataSource = dataSource;
    private readonly StandingHints hints = StandingHints.Of(dataSource);
    private readonly OperatorEpoch? epoch = epoch;

    /// <summary>
    /// Posts what is left of every grant that has expired, each in an SQL transaction of its own. What ran until then is settled first, for
    /// the grant pays for that. Idempotent.
    /// </summary>
    /// <returns>The accounts of which money went back.</returns>
    public async Task<IReadOnlyList<AccountId>> ExpireAsync(DateTimeOffset now, CancellationToken cancellation)
    {
        var changed = new List<AccountId>();
        foreach (var due in await FindAsync(now.ToLedgerTime(), cancellation))
        {
            if (!await ExpireAsync(due, cancellation)) continue;
            hints.Tell(due.Account);
            changed.Add(due.Account);
        }

        return changed;
    }

    private Task<bool> ExpireAsync(Due due, CancellationToken cancellation) => Transact.RunAsync(dataSource, async connection =>
    {
        if (await LockedAccount.LockAsync(connection, epoch, due.Account, [], cancellation) is not { } locked) return false;
        locked.SettleAll(due.ExpiresAt);
        await locked.WriteAsync(cancellation);
        var money = await MoneyLeft.ReadAsync(connection, due.Account, cancellation);
        var left = money.Grants.FirstOrDefault(grant => grant.Position == due.Position)?.Left ?? Money.Zero;
        await using var batch = new NpgsqlBatch(connection);
        batch.BatchCommands.Add(Transact.Command(
            "insert into expired_grant (grant_position, expired_nanos) values ($1, $2) on conflict do nothing",
            Transact.Value(due.Position), Transact.Value(left.Nanos)));
        if (left > Money.Zero) batch.BatchCommands.Add(Ledger.Command(Movements.CreditExpiry(due.Account, due.Grant, left, due.ExpiresAt)));
        return await batch.ExecuteNonQueryAsync(cancellation) > 0 && left > Money.Zero;
    }, cancellation);

    private Task<List<Due>> FindAsync(DateTimeOffset now, CancellationToken cancellation) => Transact.UseAsync(dataSource, async connection =>
    {
        await using var command = new NpgsqlCommand(SqlText.FindDueGrants, connection)
        {
            Parameters = { Transact.Value(now), Transact.Value(MostAtOnce) },
        };
        await using var reader = await command.ExecuteReaderAsync(cancellation);
        var due = new List<Due>();
        while (await reader.ReadAsync(cancellation)) due.Add(new(
            new(reader.GetString(0)), reader.GetString(1), reader.GetInt64(2), reader.GetFieldValue<DateTimeOffset>(3)));
        return due;
    }, cancellation);

    private sealed record Due(AccountId Account, string Grant, long Position, DateTimeOffset ExpiresAt);
}
