namespace Tensormesh.Billing;

/// <summary>A card as the payment company describes it.</summary>
public sealed record ProviderCard(string PaymentMethodId, string Brand, string Last4, int ExpMonth, int ExpYear);

/// <summary>The outcome of an attempt to charge a card.</summary>
public abstract record PaymentOutcome
{
    private PaymentOutcome() { }
    public sealed record Succeeded(string PaymentIntentId) : PaymentOutcome;
    public sealed record Declined(string Code, string Message) : PaymentOutcome;
}

/// <summary>The payment company. Two implementations: Stripe (a later issue) and the sandbox.</summary>
public interface IPaymentProvider
{
    string Name { get; }
    /// <summary>Null when the company knows no such payment method.</summary>
    Task<ProviderCard?> FindCardAsync(string paymentMethodId, CancellationToken cancellation);
    /// <param name="idempotencyKey">The same key charges once.</param>
    Task<PaymentOutcome> ChargeAsync(
        AccountId account, string paymentMethodId, Money amount, string idempotencyKey, CancellationToken cancellation);
}
