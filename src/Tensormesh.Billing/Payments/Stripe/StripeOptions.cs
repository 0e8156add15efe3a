namespace Tensormesh.Billing;

/// <summary>How Stripe is reached. The version of its API is the one that Stripe.net was made for, sent with every request.</summary>
/// <param name="SecretKey">Begins with <c>sk_</c>, or <c>rk_</c> for one with fewer rights.</param>
/// <param name="ApiBase">Without a slash at the end.</param>
public sealed record StripeOptions(string SecretKey, Uri ApiBase)
{
    public static readonly Uri DefaultApiBase = new("https://api.stripe.com");

    /// <summary>For one attempt; a request is made at most <see cref="Retries"/> times more.</summary>
    public TimeSpan Timeout { get; init; } = TimeSpan.FromSeconds(20);

    /// <summary>Of requests that met no answer, a 409 or a 503: a write is repeated under its own idempotency key.</summary>
    public int Retries { get; init; } = 2;

    /// <summary>Never the key.</summary>
    public override string ToString() => $"Stripe at {ApiBase}";
}
