using Tensormesh.Billing;

namespace Tensormesh.Web;

/// <summary>Charges a card on file and credits the account with it.</summary>
internal sealed partial class TopUps(IPaymentProvider provider, Ledger ledger, WebMetrics metrics, ILogger<TopUps> logger)
{
    private readonly IPaymentProvider provider = provider;
    private readonly Ledger ledger = ledger;
    private readonly WebMetrics metrics = metrics;
    private readonly ILogger<TopUps> logger = logger;

    public async Task<IResult> ChargeAndCreditAsync(AccountId account, string paymentMethodId, Money amount, IdempotencyKey key, CancellationToken cancellation)
    {
        switch (await provider.ChargeAsync(account, paymentMethodId, amount, key.Value, cancellation))
        {
            case PaymentOutcome.Declined declined:
                metrics.CountPayment(succeeded: false);
                LogDeclined(account, declined.Code);
                return new Problem(402, "payment-declined", "The payment was declined",
                    $"{declined.Message.TrimEnd('.')}. Nothing was charged and nothing was credited. Use another card, or ask the bank that issued this one.")
                { Extra = new Dictionary<string, string> { ["declineCode"] = declined.Code } };

            case PaymentOutcome.Succeeded succeeded:
                return await CreditAsync(account, paymentMethodId, amount, succeeded.PaymentIntentId, cancellation);

            case var other:
                throw new InvalidOperationException($"a payment can only succeed or be declined, not {other}");
        }
    }

    /// <summary>The card is charged by now: the credit is not abandoned when the caller hangs up.</summary>
    private async Task<IResult> CreditAsync(AccountId account, string paymentMethodId, Money amount, string paymentIntentId, CancellationToken cancellation)
    {
        cancellation.ThrowIfCancellationRequested();
        var movement = Movements.TopUp(account, amount, provider.Name, paymentIntentId, paymentMethodId);
        var posted = await ledger.PostAsync(movement, CancellationToken.None);
        if (posted is PostResult.Refused refused)
        {
            if (refused.Reason == LedgerRefusal.KeyReusedWithOtherContent) metrics.KeyConflicts.Inc();
            return LedgerRefusals.Describe(refused, account);
        }

        if (posted is PostResult.Posted entry)
        {
            metrics.CountPayment(succeeded: true);
            LogToppedUp(account, amount, entry.TransactionId, paymentIntentId);
        }

        return TypedResults.Ok(new PaymentIntentAnswer(paymentIntentId, $"{paymentIntentId}_secret_{provider.Name}"));
    }

    [LoggerMessage(Level = LogLevel.Information, Message = "Top-up of {Amount} for {Account}: transaction {Transaction}, payment {Payment}")]
    private partial void LogToppedUp(AccountId account, Money amount, string transaction, string payment);

    [LoggerMessage(Level = LogLevel.Information, Message = "Payment for {Account} declined: {Code}")]
    private partial void LogDeclined(AccountId account, string code);
}

/// <summary>The ledger's refusals as answers.</summary>
internal static class LedgerRefusals
{
    public static Problem Describe(PostResult.Refused refused, AccountId account) => refused.Reason switch
    {
        LedgerRefusal.KeyReusedWithOtherContent => Problem.KeyReused("This Idempotency-Key was used before with another body."),
        LedgerRefusal.AccountUnknown => Problem.AccountUnknown(account),
        LedgerRefusal.AmountOverflow => Problem.Invalid("amount", "With this amount the balance would not fit the ledger any more: use a smaller one."),
        LedgerRefusal.CurrencyMismatch or LedgerRefusal.NotBalanced or LedgerRefusal.InsufficientBalance =>
            throw new InvalidOperationException($"adding money was refused as {refused.Reason}: {refused.Message}"),
    };
}
