using System.Text.Json.Nodes;
using Npgsql;

namespace Tensormesh.Billing;

/// <summary>A transaction as the ledger has it.</summary>
internal sealed record PostedTransaction(string Id, string Type, AccountId? Account, IReadOnlyList<Entry> Entries)
{
    public IReadOnlyList<Entry> Mirror() => [.. Entries.Select(entry => entry with { Amount = -entry.Amount })];
}

/// <summary>
/// Takes back what was posted: refunds, disputes and reversals. What has run is settled first, so that nobody gets back what is already
/// used; how much is left is decided under the account's lock. That nothing is taken back twice, or more than there was, the database
/// itself refuses.
/// </summary>
public sealed class Corrections(NpgsqlDataSource dataSource)
{
    private readonly NpgsqlDataSource dataSource = dataSource;
    private readonly StandingHints hints = StandingHints.Of(dataSource);

    /// <summary>
    /// Records that a top-up, or part of it, went back to the card. Never more than is left of that top-up, of the balance, or of the paid
    /// money in it: credit that we granted is not paid out. Idempotent by refund.
    /// </summary>
    /// <param name="topUp">The top-up's transaction id.</param>
    /// <param name="now">What has run is settled up to here.</param>
    /// <param name="along">Done in the SQL transaction that has posted it, now or before; not where it is refused.</param>
    public Task<PostResult> RefundAsync(
        AccountId account, Money amount, string provider, string refundId, string topUp, DateTimeOffset now, CancellationToken cancellation,
        Func<IReadOnlyList<NpgsqlBatchCommand>>? along = null)
    {
        var refund = Movements.Refund(account, amount, provider, refundId, topUp);
        return UnderLockAsync(account, refund.Key, now, async (connection, _) =>
        {
            var paid = (await MoneyLeft.ReadAsync(connection, account, cancellation)).Paid;
            return amount <= paid ? refund : new PostResult.Refused(
                LedgerRefusal.InsufficientBalance, $"account {account} has {paid.ToDecimalString()} of paid money left, not {amount.ToDecimalString()}");
        }, _ => refund, along, cancellation);
    }

    /// <summary>
    /// Records that the card company took a top-up back, whole or in part. The balance pays as far as it goes, and never goes below zero;
    /// the rest is what the customer owes us (<c>receivable:disputes</c>). Idempotent by dispute.
    /// </summary>
    /// <inheritdoc cref="RefundAsync" path="/param"/>
    public Task<PostResult> DisputeAsync(
        AccountId account, Money amount, string provider, string disputeId, string topUp, DateTimeOffset now, CancellationToken cancellation,
        Func<IReadOnlyList<NpgsqlBatchCommand>>? along = null)
    {
        Movement Take(Money fromBalance) => Movements.Dispute(account, amount, fromBalance, provider, disputeId, topUp);
        return UnderLockAsync(account, Take(Money.Zero).Key, now,
            (_, balance) => Task.FromResult<MovementOrRefusal>(Take(Money.Min(balance, amount))),
            // What the balance covered then is not what it covers now.
            posted => Take(Money.Min(amount, -posted.Entries.Where(entry => entry.LedgerAccount == Movements.Customer(account))
                .Aggregate(Money.Zero, (sum, entry) => sum + entry.Amount))), along, cancellation);
    }

    /// <summary>A dispute that was decided for us: the exact mirror, once.</summary>
    /// <param name="dispute">The dispute's transaction id.</param>
    /// <inheritdoc cref="RefundAsync" path="/param"/>
    public Task<PostResult> ReverseDisputeAsync(string dispute, CancellationToken cancellation, Func<IReadOnlyList<NpgsqlBatchCommand>>? along = null)
        => MirrorAsync(dispute, Movements.DisputeReversal, along, cancellation);

    /// <summary>Posts the exact mirror of a transaction, once. Of a reversal, and of what a run was charged, there is none.</summary>
    /// <param name="by">Who asked for it, which is noted with it.</param>
    public Task<PostResult> ReverseAsync(string transaction, Actor by, string reason, CancellationToken cancellation)
    {
        ArgumentException.ThrowIfNullOrWhiteSpace(by.Subject, nameof(by));
        ArgumentException.ThrowIfNullOrWhiteSpace(reason);
        return MirrorAsync(transaction, of => Movements.Reversal(of, by.Subject, reason), null, cancellation, (by, reason));
    }

    /// <summary>A movement to post, or why there is none.</summary>
    private readonly record struct MovementOrRefusal(Movement? Movement, PostResult.Refused? Refused)
    {
        public static implicit operator MovementOrRefusal(Movement movement) => new(movement, null);
        public static implicit operator MovementOrRefusal(PostResult.Refused refused) => new(null, refused);
    }

    private async Task<PostResult> UnderLockAsync(
        AccountId account, string key, DateTimeOffset now, Func<NpgsqlConnection, Money, Task<MovementOrRefusal>> decide,
        Func<PostedTransaction, Movement> again, Func<IReadOnlyList<NpgsqlBatchCommand>>? along, CancellationToken cancellation)
    {
        var result = await Transact.RunAsync<PostResult>(dataSource, async connection =>
        {
            if (await LockedAccount.LockAsync(connection, null, account, [], cancellation) is not { } locked)
            {
                return new PostResult.Refused(LedgerRefusal.AccountUnknown, $"the ledger has no account {account}");
            }

            if (await FindAsync(connection, "idempotency_key", key, cancellation) is { } posted)
            {
                return await PostAsync(connection, again(posted), along, cancellation);
            }

            locked.SettleAll(now.ToLedgerTime());
            await locked.SettleTokensAsync(cancellation);
            await locked.WriteAsync(cancellation);
            var (movement, refused) = await decide(connection, locked.Posted);
            return movement is null ? refused! : await PostAsync(connection, movement, along, cancellation);
        }, cancellation);
        if (result is PostResult.Posted) hints.Tell(account);
        return result;
    }

    private static async Task<PostResult> PostAsync(
        NpgsqlConnection connection, Movement movement, Func<IReadOnlyList<NpgsqlBatchCommand>>? along, CancellationToken cancellation)
    {
        var result = await Ledger.TryAsync(connection, movement, cancellation);
        if (along is null || result is PostResult.Refused) return result;
        await using var batch = new NpgsqlBatch(connection);
        foreach (var command in along()) batch.BatchCommands.Add(command);
        await batch.ExecuteNonQueryAsync(cancellation);
        return result;
    }

    private async Task<PostResult> MirrorAsync(
        string transaction, Func<PostedTransaction, Movement> mirror, Func<IReadOnlyList<NpgsqlBatchCommand>>? along, CancellationToken cancellation,
        (Actor By, string Reason)? asked = null)
    {
        var (result, account) = await Transact.RunAsync(dataSource, async connection =>
        {
            if (await FindAsync(connection, "id", transaction, cancellation) is not { } of)
            {
                return (new PostResult.Refused(LedgerRefusal.CorrectionUnsound, $"the ledger has no transaction {transaction}"), null);
            }

            var tried = await PostAsync(connection, mirror(of), along, cancellation);
            if (asked is var (by, reason) && tried is PostResult.Posted && of.Account is { } about)
            {
                var details = new JsonObject { ["transaction"] = transaction, ["reason"] = reason };
                await AuditLog.NoteAsync(connection, by, AuditAction.TransactionReversed, about, ((PostResult.Posted)tried).TransactionId, details, cancellation);
            }

            return (tried, of.Account);
        }, cancellation);
        if (result is PostResult.Posted && account is { } whose) hints.Tell(whose);
        return result;
    }

    private static async Task<PostedTransaction?> FindAsync(
        NpgsqlConnection connection, string column, string value, CancellationToken cancellation)
    {
        await using var command = new NpgsqlCommand(
            $"""
            select t.id, t.type, (select a.account from ledger_account a where a.id = t.customer), t.amounts, t.currency,
              (select array_agg(a.name order by e.place) from unnest(t.accounts) with ordinality as e(account, place) join ledger_account a on a.id = e.account)
            from ledger_transaction t where t.{column} = $1
            """, connection)
        { Parameters = { Transact.Value(value) } };
        await using var reader = await command.ExecuteReaderAsync(cancellation);
        if (!await reader.ReadAsync(cancellation)) return null;
        var (amounts, currency, names) = (reader.GetFieldValue<long[]>(3), reader.GetString(4), reader.GetFieldValue<string[]>(5));
        return new(
            reader.GetString(0), reader.GetString(1), reader.IsDBNull(2) ? null : new AccountId(reader.GetString(2)),
            [.. names.Zip(amounts, (name, amount) => new Entry(name, new(amount), currency))]);
    }
}
