using Tensormesh.Billing;

namespace Tensormesh.Web;

/// <summary>Where people pay, through the API and the console alike: done, counted and logged in one place.</summary>
internal sealed class Till(TopUps topUps, AutoTopUps autoTopUps, WebMetrics metrics, MoneyLog log)
{
    private readonly TopUps topUps = topUps;
    private readonly AutoTopUps autoTopUps = autoTopUps;
    private readonly WebMetrics metrics = metrics;
    private readonly MoneyLog log = log;

    /// <summary>
    /// Charges and credits at once. The caller hanging up does not stop it: from the first byte sent to the payment company the card may be
    /// charged, and what is charged must be credited.
    /// </summary>
    /// <param name="key">The same key is the same payment.</param>
    public async Task<TopUpResult> TopUpAsync(AccountId account, Money amount, string paymentMethodId, string key, Caller by)
    {
        var result = await topUps.ChargeAsync(account, amount, paymentMethodId, key, CancellationToken.None, by: by.AsActor());
        switch (result)
        {
            case TopUpResult.Credited credited:
                metrics.CountPayment(PaymentCount.Succeeded);
                log.ToppedUp(amount, account, credited.TransactionId, credited.PaymentIntentId);
                break;
            case TopUpResult.AuthenticationRequired:
                metrics.CountPayment(PaymentCount.AuthenticationRequired);
                break;
            case TopUpResult.InDoubt unknown:
                metrics.CountPayment(PaymentCount.InDoubt);
                log.InDoubt(account, unknown.Reason);
                break;
            case TopUpResult.Declined declined:
                metrics.CountPayment(PaymentCount.Declined);
                log.Declined(account, declined.Code);
                break;
            case TopUpResult.Refused { Reason: TopUpRefusal.KeyReusedWithOtherContent }:
                metrics.KeyConflicts.Inc();
                break;
        }

        return result;
    }

    /// <summary>False when there is no such account.</summary>
    /// <inheritdoc cref="AutoTopUps.SaveAsync"/>
    public async Task<bool> SaveAutoTopUpAsync(AccountId account, AutoTopUpPlan plan, Caller by, CancellationToken cancellation)
    {
        if (!await autoTopUps.SaveAsync(account, plan, cancellation, by.AsActor())) return false;
        log.AutoTopUpSaved(account, plan.Amount, plan.Threshold, by.Subject);
        return true;
    }

    public async Task RemoveAutoTopUpAsync(AccountId account, Caller by, CancellationToken cancellation)
    {
        await autoTopUps.RemoveAsync(account, cancellation, by.AsActor());
        log.AutoTopUpRemoved(account, by.Subject);
    }
}
