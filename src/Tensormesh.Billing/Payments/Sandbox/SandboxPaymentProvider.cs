using System.Security.Cryptography;
using System.Text;

namespace Tensormesh.Billing;

/// <summary>
/// A payment company for development and tests. It knows fixed test tokens and never sees a card number. It keeps no state: the
/// same account and idempotency key always name the same payment intent, so a charge repeats as safely as at a real company, even after a
/// restart. For the same reason it can tell nothing of what was paid, and its cards belong to nobody: who has which is kept by us.
/// </summary>
public sealed class SandboxPaymentProvider : IPaymentProvider
{
    private const int FarYear = 2040;

    private static readonly (ProviderCard Card, PaymentOutcome.Declined? Decline, string Behaviour)[] Cards =
    [
        (new("pm_card_visa", "Visa", "4242", 12, FarYear), null, "Every charge succeeds."),
        (new("pm_card_mastercard", "Mastercard", "4444", 12, FarYear), null, "Every charge succeeds."),
        (new("pm_card_amex", "American Express", "8431", 12, FarYear), null, "Every charge succeeds."),
        (new("pm_card_expired", "Visa", "0069", 1, 2020), new("expired_card", "The card has expired."), "Has expired, and is not accepted."),
        (new("pm_card_chargeDeclined", "Visa", "0002", 12, FarYear), new("card_declined", "The card was declined."), "Can be added; every charge is declined."),
        (new("pm_card_chargeDeclinedInsufficientFunds", "Visa", "9995", 12, FarYear), new("insufficient_funds", "The card has insufficient funds."),
            "Can be added; every charge is declined for want of money."),
        // There is no browser with which its holder could answer the bank.
        (new("pm_card_authenticationRequired", "Visa", "3184", 12, FarYear),
            new("authentication_required", "The bank asks the holder to authenticate this payment."), "Can be added; the bank asks its holder, who cannot answer here."),
    ];

    private static readonly Dictionary<string, (ProviderCard Card, PaymentOutcome.Declined? Decline)> Tokens = Cards.ToDictionary(
        each => each.Card.PaymentMethodId, each => (each.Card, each.Decline), StringComparer.Ordinal);

    /// <summary>The test cards, for people to choose from.</summary>
    public static IReadOnlyList<TestCard> TestCards { get; } =
        [.. Cards.Select(each => new TestCard(each.Card.PaymentMethodId, each.Card.Brand, each.Card.Last4, each.Behaviour))];

    public string Name => "sandbox";

    public Task<CustomerId> CreateCustomerAsync(AccountId account, int number, CancellationToken cancellation)
        => Task.FromResult(new CustomerId("cus_" + Hash(number == 1 ? $"{Name}/{account}" : $"{Name}/{account}/{number}")));

    public Task<bool> HasCustomerAsync(CustomerId customer, CancellationToken cancellation) => Task.FromResult(true);

    public Task<CardSetup> BeginCardSetupAsync(CustomerId customer, string key, CancellationToken cancellation)
    {
        var id = "seti_" + Hash($"{customer}\n{key}");
        return Task.FromResult(new CardSetup(id, $"{id}_secret_{Name}"));
    }

    public Task<ProviderCard?> FindCardAsync(string paymentMethodId, CancellationToken cancellation)
        => Task.FromResult(Tokens.TryGetValue(paymentMethodId, out var token) ? token.Card : null);

    public Task<CardAttachment> AttachCardAsync(CustomerId customer, string paymentMethodId, CancellationToken cancellation)
        => Task.FromResult<CardAttachment>(
            Tokens.TryGetValue(paymentMethodId, out var token) ? new CardAttachment.Attached(token.Card) : new CardAttachment.Unknown());

    public Task<IReadOnlyList<ProviderCard>> ListCardsAsync(CustomerId customer, CancellationToken cancellation)
        => Task.FromResult<IReadOnlyList<ProviderCard>>([]);

    public Task MakeDefaultAsync(CustomerId customer, string paymentMethodId, CancellationToken cancellation) => Task.CompletedTask;

    public Task DetachCardAsync(string paymentMethodId, CancellationToken cancellation) => Task.CompletedTask;

    public Task<bool> IsAttachedAsync(string paymentMethodId, CancellationToken cancellation)
        => Task.FromResult(Tokens.ContainsKey(paymentMethodId));

    public Task<PaymentOutcome> ChargeAsync(Charge charge, CancellationToken cancellation)
    {
        if (!Tokens.TryGetValue(charge.PaymentMethodId, out var token))
        {
            return Task.FromResult<PaymentOutcome>(
                new PaymentOutcome.Declined("resource_missing", $"No such payment method: {charge.PaymentMethodId}"));
        }

        var id = "pi_" + Hash(charge.Id.Value);
        return Task.FromResult(token.Decline ?? (PaymentOutcome)new PaymentOutcome.Succeeded(id, $"{id}_secret_{Name}"));
    }

    public Task<ProviderPayment?> FindChargeAsync(Charge charge, DateTimeOffset begunAt, CancellationToken cancellation)
        => Task.FromResult<ProviderPayment?>(null);

    public Task<ProviderPayment?> FindPaymentAsync(string paymentIntentId, CancellationToken cancellation)
        => Task.FromResult<ProviderPayment?>(null);

    public Task<RefundOutcome> RefundAsync(string paymentIntentId, Money amount, string key, CancellationToken cancellation)
        => Task.FromResult<RefundOutcome>(new RefundOutcome.Refunded("re_" + Hash($"{paymentIntentId}\n{key}"), Pending: false));

    public Task<ProviderRefunds?> FindRefundsAsync(string chargeId, CancellationToken cancellation) => Task.FromResult<ProviderRefunds?>(null);

    public Task<ProviderDispute?> FindDisputeAsync(string disputeId, CancellationToken cancellation) => Task.FromResult<ProviderDispute?>(null);

    public async IAsyncEnumerable<ProviderReceipt> ListPaidAsync(
        DateTimeOffset since, [System.Runtime.CompilerServices.EnumeratorCancellation] CancellationToken cancellation)
    {
        await Task.CompletedTask;
        yield break;
    }

    private static string Hash(string text) => Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(text)))[..24];
}

/// <summary>A card of no bank.</summary>
/// <param name="Id">The payment method to attach.</param>
/// <param name="Behaviour">What comes of it, in words.</param>
public sealed record TestCard(string Id, string Brand, string Last4, string Behaviour);
