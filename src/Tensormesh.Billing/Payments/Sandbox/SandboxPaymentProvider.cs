using System.Security.Cryptography;
using System.Text;

namespace Tensormesh.Billing;

/// <summary>
/// A payment company for development and tests. It knows fixed test tokens and never sees a card number. It keeps no state: the
/// same account and idempotency key always name the same payment intent, so a charge repeats as safely as at a real company, even after a
/// restart.
/// </summary>
public sealed class SandboxPaymentProvider : IPaymentProvider
{
    private const int FarYear = 2040;

    private static readonly Dictionary<string, (ProviderCard Card, PaymentOutcome.Declined? Decline)> Tokens =
        new (string Id, string Brand, string Last4, int Month, int Year, PaymentOutcome.Declined? Decline)[]
        {
            ("pm_card_visa", "Visa", "4242", 12, FarYear, null),
            ("pm_card_mastercard", "Mastercard", "4444", 12, FarYear, null),
            ("pm_card_amex", "American Express", "8431", 12, FarYear, null),
            ("pm_card_expired", "Visa", "0069", 1, 2020, new("expired_card", "The card has expired.")),
            ("pm_card_chargeDeclined", "Visa", "0002", 12, FarYear, new("card_declined", "The card was declined.")),
            ("pm_card_chargeDeclinedInsufficientFunds", "Visa", "9995", 12, FarYear,
                new("insufficient_funds", "The card has insufficient funds.")),
            ("pm_card_authenticationRequired", "Visa", "3184", 12, FarYear,
                new("authentication_required", "The bank asks the holder to authenticate this payment.")),
        }.ToDictionary(
            token => token.Id,
            token => (new ProviderCard(token.Id, token.Brand, token.Last4, token.Month, token.Year), token.Decline),
            StringComparer.Ordinal);

    public string Name => "sandbox";

    public Task<ProviderCard?> FindCardAsync(string paymentMethodId, CancellationToken cancellation)
        => Task.FromResult(Tokens.TryGetValue(paymentMethodId, out var token) ? token.Card : null);

    public Task<PaymentOutcome> ChargeAsync(
        AccountId account, string paymentMethodId, Money amount, string idempotencyKey, CancellationToken cancellation)
    {
        PaymentOutcome outcome = !Tokens.TryGetValue(paymentMethodId, out var token)
            ? new PaymentOutcome.Declined("resource_missing", $"No such payment method: {paymentMethodId}")
            : token.Decline ?? (PaymentOutcome)new PaymentOutcome.Succeeded(
                "pi_" + Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes($"{account}\n{idempotencyKey}")))[..24]);
        return Task.FromResult(outcome);
    }
}
