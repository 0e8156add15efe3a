namespace Tensormesh.Billing;

/// <summary>One way that money moves: a type, an idempotency key that is its meaning, and entries that sum to zero.</summary>
public sealed record Movement;

/// <summary>Every way that money moves. Nothing posts outside this set.</summary>
public static class Movements
{
    /// <summary>Money in from a payment; the key is <c>topup/{provider}/{paymentIntentId}</c>.</summary>
    public static Movement TopUp(AccountId account, Money amount, string provider, string paymentIntentId, string paymentMethodId) => throw new NotImplementedException();

    /// <summary>Credit that a platform operator adds; <paramref name="by"/> and <paramref name="reason"/> are kept with it.</summary>
    public static Movement CreditGrant(AccountId account, Money amount, string key, string by, string reason) => throw new NotImplementedException();
}
