using Npgsql;

namespace Tensormesh.Billing;

/// <summary>
/// Brings what went back of a payment into the ledger, as the payment company has it now: refunds, and what a dispute takes and may give
/// back. Each by its own id, so that it is posted once whoever tells it and however often. What the ledger refuses is for a person.
/// </summary>
internal sealed class PaymentReturns(NpgsqlDataSource dataSource, IPaymentProvider provider, TimeProvider time)
{
    private readonly NpgsqlDataSource dataSource = dataSource;
    private readonly IPaymentProvider provider = provider;
    private readonly TimeProvider time = time;
    private readonly Corrections corrections = new(dataSource);
    private readonly PaymentMismatches mismatches = new(dataSource, provider, time);

    /// <param name="told">About a charge.</param>
    public async Task<PaymentEffect> RefundAsync(PaymentEvent told, CancellationToken cancellation)
    {
        if (await provider.FindRefundsAsync(told.ObjectId, cancellation) is not { PaymentIntentId: { } payment } found)
        {
            return await DisagreeAsync(told, MismatchKind.Refunded, "the payment company knows no such charge", cancellation);
        }

        if (await FindTopUpAsync(payment, cancellation) is not var (topUp, account))
        {
            return await DisagreeAsync(told, MismatchKind.RefundedUnposted, $"{payment} is not in the ledger", cancellation);
        }

        if (found.Currency != StripeAmounts.Currency) return await DisagreeAsync(told, MismatchKind.OtherCurrency, found.Currency, cancellation);
        if (found.Refunds.Count == 0) return await RecordAsync(told, PaymentEffect.Outdated, null, cancellation);
        // The event is recorded with the last of them: before that it has not had its effect, and comes again.
        for (var i = 0; i < found.Refunds.Count; i++)
        {
            var (refund, isLast) = (found.Refunds[i], i == found.Refunds.Count - 1);
            var result = await corrections.RefundAsync(
                account, refund.Amount, provider.Name, refund.RefundId, topUp, time.GetUtcNow(), cancellation,
                isLast ? () => Done(told, MismatchKind.Refunded, PaymentEffect.Refunded) : null);
            if (result is PostResult.Refused refused)
            {
                return await DisagreeAsync(told, MismatchKind.Refunded, $"{refund.RefundId} of {refund.Amount}: {refused.Message}", cancellation);
            }
        }

        return PaymentEffect.Refunded;
    }

    /// <param name="told">About a dispute.</param>
    public async Task<PaymentEffect> DisputeAsync(PaymentEvent told, CancellationToken cancellation)
    {
        if (await provider.FindDisputeAsync(told.ObjectId, cancellation) is not { PaymentIntentId: { } payment } dispute)
        {
            return await DisagreeAsync(told, MismatchKind.Disputed, "the payment company knows no such dispute", cancellation);
        }

        var posted = await FindAsync($"dispute/{provider.Name}/{dispute.DisputeId}", cancellation);
        if (!dispute.IsTaken)
        {
            // An inquiry, which takes nothing, or one that is over before it was heard of.
            if (posted is not var (taken, _)) return await RecordAsync(told, PaymentEffect.Outdated, null, cancellation);
            return await corrections.ReverseDisputeAsync(taken, cancellation, () => Done(told, MismatchKind.Disputed, PaymentEffect.DisputeReversed))
                is PostResult.Refused refused
                ? await DisagreeAsync(told, MismatchKind.Disputed, refused.Message, cancellation)
                : PaymentEffect.DisputeReversed;
        }

        if (await FindTopUpAsync(payment, cancellation) is not var (topUp, account))
        {
            return await DisagreeAsync(told, MismatchKind.RefundedUnposted, $"{payment} is not in the ledger", cancellation);
        }

        if (dispute.Currency != StripeAmounts.Currency) return await DisagreeAsync(told, MismatchKind.OtherCurrency, dispute.Currency, cancellation);
        if (posted is var (before, _) && await FindAsync($"dispute-reversal/{before}", cancellation) is not null)
        {
            return await DisagreeAsync(told, MismatchKind.Disputed, "taken again after it had been given back", cancellation);
        }

        return await corrections.DisputeAsync(
            account, dispute.Amount, provider.Name, dispute.DisputeId, topUp, time.GetUtcNow(), cancellation,
            () => Done(told, MismatchKind.Disputed, PaymentEffect.Disputed)) is PostResult.Refused wrong
            ? await DisagreeAsync(told, MismatchKind.Disputed, wrong.Message, cancellation)
            : PaymentEffect.Disputed;
    }

    /// <summary>What goes into the SQL transaction of an effect: the event, and that what was open about its object is not any more.</summary>
    private NpgsqlBatchCommand[] Done(PaymentEvent told, MismatchKind kind, PaymentEffect effect)
        => [mismatches.Close(told.ObjectId, kind), told.Record(effect, time)];

    private Task<PaymentEffect> DisagreeAsync(PaymentEvent told, MismatchKind kind, string detail, CancellationToken cancellation)
        => RecordAsync(told, PaymentEffect.Mismatch, () => mismatches.Add(told.ObjectId, kind, detail), cancellation);

    private Task<PaymentEffect> RecordAsync(
        PaymentEvent told, PaymentEffect effect, Func<NpgsqlBatchCommand>? work, CancellationToken cancellation)
        => Transact.RunAsync(dataSource, async connection =>
        {
            await using var batch = new NpgsqlBatch(connection);
            if (work is not null) batch.BatchCommands.Add(work());
            batch.BatchCommands.Add(told.Record(effect, time));
            await batch.ExecuteNonQueryAsync(cancellation);
            return effect;
        }, cancellation);

    private Task<(string Id, AccountId Account)?> FindTopUpAsync(string paymentIntentId, CancellationToken cancellation)
        => FindAsync($"topup/{provider.Name}/{paymentIntentId}", cancellation);

    private Task<(string Id, AccountId Account)?> FindAsync(string key, CancellationToken cancellation)
        => Transact.UseAsync<(string, AccountId)?>(dataSource, async connection =>
        {
            // A dispute of money that was all spent moves nothing of the customer's, and tells whose it was.
            await using var find = new NpgsqlCommand(
                "select t.id, coalesce(a.account, t.details ->> 'account') from ledger_transaction t left join ledger_account a on a.id = t.customer "
                    + "where t.idempotency_key = $1", connection)
            { Parameters = { Transact.Value(key) } };
            await using var reader = await find.ExecuteReaderAsync(cancellation);
            return await reader.ReadAsync(cancellation) ? (reader.GetString(0), new AccountId(reader.IsDBNull(1) ? "" : reader.GetString(1))) : null;
        }, cancellation);
}
