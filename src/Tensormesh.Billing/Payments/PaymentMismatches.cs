using Npgsql;

namespace Tensormesh.Billing;

/// <summary>How the payment company's books and ours disagree. Each is for a person to look into; none moves money.</summary>
public enum MismatchKind
{
    /// <summary>Money arrived there that we cannot give to an account: of no customer of ours, or of no attempt that we began.</summary>
    NotOurs,
    /// <summary>The ledger has this payment with another amount or for another account.</summary>
    OtherContent,
    /// <summary>Not in dollars.</summary>
    OtherCurrency,
    /// <summary>Given back, or disputed, before we had posted it.</summary>
    RefundedUnposted,
    /// <summary>The ledger has it, and there it did not succeed or is not known.</summary>
    NotPaid,
    /// <summary>Money went back to the card, and the ledger could not post it: it was spent before, for one.</summary>
    Refunded,
    /// <summary>The card company took a payment back, and the ledger could not post it.</summary>
    Disputed,
}

/// <summary>What disagrees, until it is found to agree or a person sets <c>resolved_at</c>.</summary>
public sealed class PaymentMismatches(NpgsqlDataSource dataSource, IPaymentProvider provider, TimeProvider time)
{
    private readonly NpgsqlDataSource dataSource = dataSource;
    private readonly IPaymentProvider provider = provider;
    private readonly TimeProvider time = time;

    /// <summary>How many are open.</summary>
    public Task<long> CountAsync(CancellationToken cancellation) => Transact.UseAsync(dataSource, async connection =>
    {
        await using var count = new NpgsqlCommand(
            "select count(*) from payment_mismatch where provider = $1 and resolved_at is null", connection);
        count.Parameters.Add(Transact.Value(provider.Name));
        return (long)(await count.ExecuteScalarAsync(cancellation))!;
    }, cancellation);

    /// <summary>One that a person closed stays closed.</summary>
    internal NpgsqlBatchCommand Add(string objectId, MismatchKind kind, string detail) => Transact.Command(
        "insert into payment_mismatch (provider, object_id, kind, detail, first_seen_at) values ($1, $2, $3, $4, $5) on conflict do nothing",
        Transact.Value(provider.Name), Transact.Value(objectId), Transact.Value(kind.ToString()), Transact.Value(detail),
        Transact.Value(time.GetUtcNow().ToLedgerTime()));

    /// <summary>Goes into the SQL transaction that settles what was open.</summary>
    internal NpgsqlBatchCommand Close(string objectId, MismatchKind kind) => Transact.Command(
        "update payment_mismatch set resolved_at = $4 where provider = $1 and object_id = $2 and kind = $3 and resolved_at is null",
        Transact.Value(provider.Name), Transact.Value(objectId), Transact.Value(kind.ToString()), Transact.Value(time.GetUtcNow().ToLedgerTime()));

    /// <summary>Closes what is open about a payment that agrees now; that money went back is another matter.</summary>
    internal Task AgreeAsync(string paymentIntentId, CancellationToken cancellation) => Transact.UseAsync(dataSource, async connection =>
    {
        await using var resolve = new NpgsqlCommand(
            "update payment_mismatch set resolved_at = $3 where provider = $1 and object_id = $2 and resolved_at is null "
                + "and kind in ('NotOurs', 'OtherContent', 'NotPaid')", connection);
        resolve.Parameters.Add(Transact.Value(provider.Name));
        resolve.Parameters.Add(Transact.Value(paymentIntentId));
        resolve.Parameters.Add(Transact.Value(time.GetUtcNow().ToLedgerTime()));
        return await resolve.ExecuteNonQueryAsync(cancellation);
    }, cancellation);
}
