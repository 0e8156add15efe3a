using Npgsql;

namespace Tensormesh.Billing;

/// <summary>
/// Brings one payment into our books as the payment company has it now, whoever noticed it: an event, the reconciliation, or both at once.
/// The ledger's key for it is the same as for the customer's own request, so that it is credited once.
/// </summary>
internal sealed class PaymentSettlement(NpgsqlDataSource dataSource, IPaymentProvider provider, TimeProvider time)
{
    private readonly NpgsqlDataSource dataSource = dataSource;
    private readonly IPaymentProvider provider = provider;
    private readonly TimeProvider time = time;
    private readonly Customers customers = new(dataSource, provider, time);
    private readonly TopUps topUps = new(dataSource, provider, time);
    private readonly PaymentMismatches mismatches = new(dataSource, provider, time);

    /// <param name="told">Recorded with the effect, in its SQL transaction; null when no event told.</param>
    /// <returns>Credited also when it had been before.</returns>
    public async Task<PaymentEffect> SettleAsync(string paymentIntentId, PaymentEvent? told, CancellationToken cancellation)
    {
        if (await provider.FindPaymentAsync(paymentIntentId, cancellation) is not { } payment)
        {
            return await DisagreeAsync(paymentIntentId, MismatchKind.NotPaid, "the payment company knows no such payment", told, cancellation);
        }

        var owner = payment.Customer is { } customer ? await customers.FindAccountAsync(customer, cancellation) : null;
        switch (payment.Outcome)
        {
            case PaymentOutcome.Succeeded:
                return await CreditAsync(payment, owner, told, cancellation);
            case PaymentOutcome.Declined or PaymentOutcome.AuthenticationRequired when owner is { } account && payment.TopUp is { } topUp:
                await topUps.RecordRefusalAsync(topUp, account, null, payment.Outcome, payment.Mode, cancellation, told);
                return PaymentEffect.Declined;
            default:
                await RecordAsync(told, PaymentEffect.Outdated, null, cancellation);
                return PaymentEffect.Outdated;
        }
    }

    private async Task<PaymentEffect> CreditAsync(ProviderPayment payment, AccountId? owner, PaymentEvent? told, CancellationToken cancellation)
    {
        var id = payment.PaymentIntentId;
        if (owner is not { } account || payment.Account != account || payment.TopUp is not { } topUp)
        {
            return await DisagreeAsync(
                id, MismatchKind.NotOurs, $"{payment.Received} of customer '{payment.Customer}' (account '{owner}'), labelled '{payment.Account}' "
                    + $"and '{payment.TopUp}'", told, cancellation);
        }

        if (payment.Currency != StripeAmounts.Currency)
        {
            return await DisagreeAsync(id, MismatchKind.OtherCurrency, payment.Currency, told, cancellation);
        }

        // What went back before it was ever credited must not become credit now.
        if (payment.Refunded > Money.Zero && !await IsPostedAsync(id, cancellation))
        {
            return await DisagreeAsync(
                id, MismatchKind.RefundedUnposted, $"{payment.Refunded} of {payment.Received} went back, or is disputed", told, cancellation);
        }

        var credit = new TopUps.Credit(account, payment.Received, id, payment.PaymentMethodId ?? "", topUp);
        if (await topUps.CreditAsync(credit, told, cancellation) is PostResult.Refused refused)
        {
            return await DisagreeAsync(id, MismatchKind.OtherContent, refused.Message, told, cancellation);
        }

        await mismatches.AgreeAsync(id, cancellation);
        return PaymentEffect.Credited;
    }

    private async Task<PaymentEffect> DisagreeAsync(
        string paymentIntentId, MismatchKind kind, string detail, PaymentEvent? told, CancellationToken cancellation)
    {
        await RecordAsync(told, PaymentEffect.Mismatch, () => mismatches.Add(paymentIntentId, kind, detail), cancellation);
        return PaymentEffect.Mismatch;
    }

    private async Task RecordAsync(
        PaymentEvent? told, PaymentEffect effect, Func<NpgsqlBatchCommand>? work, CancellationToken cancellation)
    {
        if (told is null && work is null) return;
        await Transact.RunAsync(dataSource, async connection =>
        {
            await using var batch = new NpgsqlBatch(connection);
            if (work is not null) batch.BatchCommands.Add(work());
            if (told is not null) batch.BatchCommands.Add(told.Record(effect, time));
            return await batch.ExecuteNonQueryAsync(cancellation);
        }, cancellation);
    }

    private Task<bool> IsPostedAsync(string paymentIntentId, CancellationToken cancellation) => Transact.UseAsync(dataSource, async connection =>
    {
        await using var find = new NpgsqlCommand("select from ledger_transaction where idempotency_key = $1", connection);
        find.Parameters.Add(Transact.Value($"topup/{provider.Name}/{paymentIntentId}"));
        await using var reader = await find.ExecuteReaderAsync(cancellation);
        return await reader.ReadAsync(cancellation);
    }, cancellation);
}
