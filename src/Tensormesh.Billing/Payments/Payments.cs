using System.Security.Cryptography;
using System.Text;

namespace Tensormesh.Billing;

/// <summary>A card as the payment company describes it.</summary>
public sealed record ProviderCard(string PaymentMethodId, string Brand, string Last4, int ExpMonth, int ExpYear);

/// <summary>A customer at the payment company.</summary>
public readonly record struct CustomerId(string Value)
{
    public override string ToString() => Value;
}

/// <summary>
/// What the payment company knows an attempt to top up by. It follows from the account and its idempotency key, and so does the key
/// under which the company charges once.
/// </summary>
public readonly record struct TopUpId(string Value)
{
    public static TopUpId Of(AccountId account, string idempotencyKey)
        => new("tu_" + Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes($"{account}\n{idempotencyKey}")))[..40]);

    public override string ToString() => Value;
}

/// <summary>Whether the holder of the card is there to be asked by the bank.</summary>
public enum ChargeMode { OnSession, OffSession }

/// <summary>A card to be charged. The same id charges once.</summary>
public sealed record Charge(
    TopUpId Id, AccountId Account, CustomerId Customer, string PaymentMethodId, Money Amount, ChargeMode Mode = ChargeMode.OnSession);

/// <summary>The outcome of an attempt to charge a card.</summary>
public abstract record PaymentOutcome
{
    private PaymentOutcome() { }
    /// <param name="ClientSecret">With which the holder's browser may look at the payment.</param>
    public sealed record Succeeded(string PaymentIntentId, string ClientSecret) : PaymentOutcome;
    /// <summary>The bank refused. <paramref name="Message"/> is for the customer.</summary>
    public sealed record Declined(string Code, string Message, string? PaymentIntentId = null) : PaymentOutcome;
    /// <summary>Nothing is charged before the holder has answered the bank, in a browser that has the secret.</summary>
    public sealed record AuthenticationRequired(string PaymentIntentId, string ClientSecret) : PaymentOutcome;
    /// <summary>The card may or may not have been charged: ask again with the same key, and never call it a decline.</summary>
    public sealed record InDoubt(string Reason) : PaymentOutcome;
}

public abstract record CardAttachment
{
    private CardAttachment() { }
    /// <param name="Card">Its id may differ from the one asked for: a test token becomes a payment method of its own.</param>
    public sealed record Attached(ProviderCard Card) : CardAttachment;
    /// <summary>The company knows no such card, or it is another customer's.</summary>
    public sealed record Unknown : CardAttachment;
    public sealed record Declined(string Code, string Message) : CardAttachment;
}

public abstract record RefundOutcome
{
    private RefundOutcome() { }
    /// <param name="Pending">The bank has not confirmed it yet.</param>
    public sealed record Refunded(string RefundId, bool Pending) : RefundOutcome;
    public sealed record Refused(string Code, string Message) : RefundOutcome;
}

/// <summary>A card that the browser is about to enter at the payment company.</summary>
public sealed record CardSetup(string SetupIntentId, string ClientSecret);

/// <summary>A payment as the company has it now.</summary>
/// <param name="Received">What was taken from the card; zero before it succeeded.</param>
/// <param name="Refunded">What was given back of it, or is disputed.</param>
/// <param name="Account">For whom we said it was when it began; null where we began none such.</param>
public sealed record ProviderPayment(
    string PaymentIntentId, CustomerId? Customer, string? PaymentMethodId, PaymentOutcome Outcome, Money Received, string Currency,
    Money Refunded, AccountId? Account, TopUpId? TopUp, ChargeMode Mode);

/// <summary>Money of a payment in the company's books.</summary>
/// <param name="Received">In full, whatever went back since; zero where it is not in dollars.</param>
public sealed record ProviderReceipt(string PaymentIntentId, Money Received);

/// <summary>Money that went back to a card, or is on its way.</summary>
public sealed record ProviderRefund(string RefundId, Money Amount);

/// <summary>What went back of one charge; refunds that came to nothing are not among it.</summary>
public sealed record ProviderRefunds(string? PaymentIntentId, string Currency, IReadOnlyList<ProviderRefund> Refunds);

/// <summary>A payment that the holder of its card disputes, as the company has it now.</summary>
/// <param name="IsTaken">The money is gone from us at this time. An inquiry takes none, and a dispute that we won has given it back.</param>
public sealed record ProviderDispute(string DisputeId, string? PaymentIntentId, Money Amount, string Currency, bool IsTaken);

/// <summary>The payment company could not be asked, or did not understand: nothing is known of what was asked.</summary>
/// <param name="isTransient">Asking again later may help. Otherwise it is a fault of ours: a wrong key, a wrong request.</param>
public sealed class PaymentProviderException(string message, bool isTransient, Exception? cause = null) : Exception(message, cause)
{
    public bool IsTransient { get; } = isTransient;
}

/// <summary>The customer was deleted over there: nothing was done, and nothing can be under it any more.</summary>
public sealed class CustomerGoneException(CustomerId customer, Exception cause)
    : Exception($"the payment company no longer knows customer {customer}", cause);

/// <summary>
/// The payment company. Two implementations: Stripe and the sandbox. Every call but <see cref="ChargeAsync"/>, which has an outcome for
/// it, throws <see cref="PaymentProviderException"/> when the company cannot be asked. What is asked of a customer that was deleted throws
/// <see cref="CustomerGoneException"/>.
/// </summary>
public interface IPaymentProvider
{
    string Name { get; }

    /// <param name="number">The how manieth customer of this account it is. The same number is the same customer.</param>
    Task<CustomerId> CreateCustomerAsync(AccountId account, int number, CancellationToken cancellation);

    /// <summary>False when it was deleted over there, or never was.</summary>
    Task<bool> HasCustomerAsync(CustomerId customer, CancellationToken cancellation);

    /// <param name="key">The same key is the same setup.</param>
    Task<CardSetup> BeginCardSetupAsync(CustomerId customer, string key, CancellationToken cancellation);

    /// <summary>Null when the company knows no such payment method.</summary>
    Task<ProviderCard?> FindCardAsync(string paymentMethodId, CancellationToken cancellation);

    /// <summary>Gives the customer a card; one that a setup has given it already is only described.</summary>
    Task<CardAttachment> AttachCardAsync(CustomerId customer, string paymentMethodId, CancellationToken cancellation);

    Task<IReadOnlyList<ProviderCard>> ListCardsAsync(CustomerId customer, CancellationToken cancellation);

    Task MakeDefaultAsync(CustomerId customer, string paymentMethodId, CancellationToken cancellation);

    /// <summary>A card that is not attached is left as it is.</summary>
    Task DetachCardAsync(string paymentMethodId, CancellationToken cancellation);

    /// <summary>False for one that is nobody's, or that the company does not know.</summary>
    Task<bool> IsAttachedAsync(string paymentMethodId, CancellationToken cancellation);

    Task<PaymentOutcome> ChargeAsync(Charge charge, CancellationToken cancellation);

    /// <summary>What came of a charge that was begun before, however long ago. Null when none arrived.</summary>
    Task<ProviderPayment?> FindChargeAsync(Charge charge, DateTimeOffset begunAt, CancellationToken cancellation);

    Task<ProviderPayment?> FindPaymentAsync(string paymentIntentId, CancellationToken cancellation);

    /// <param name="key">The same key refunds once.</param>
    Task<RefundOutcome> RefundAsync(string paymentIntentId, Money amount, string key, CancellationToken cancellation);

    /// <summary>Null when the company knows no such charge.</summary>
    Task<ProviderRefunds?> FindRefundsAsync(string chargeId, CancellationToken cancellation);

    /// <summary>Null when the company knows no such dispute.</summary>
    Task<ProviderDispute?> FindDisputeAsync(string disputeId, CancellationToken cancellation);

    /// <summary>The payments whose money arrived at <paramref name="since"/> or later, as the company's books have it.</summary>
    IAsyncEnumerable<ProviderReceipt> ListPaidAsync(DateTimeOffset since, CancellationToken cancellation);
}
