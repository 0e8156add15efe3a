namespace Tensormesh.Billing;

/// <summary>A card on file. No card number ever reaches us: the id is the payment company's.</summary>
/// <param name="ExpMonth">1 to 12; the card is valid to the last instant of this month, UTC.</param>
public sealed record Card(
    string PaymentMethodId, string Brand, string Last4, int ExpMonth, int ExpYear, bool IsDefault, DateTimeOffset AttachedAt)
{
    /// <summary>The first instant at which the card is no longer valid.</summary>
    public DateTimeOffset ExpiresAt => new DateTimeOffset(ExpYear, ExpMonth, 1, 0, 0, 0, TimeSpan.Zero).AddMonths(1);
}

public enum CardState
{
    /// <summary>At least one attached card has not expired.</summary>
    Valid,
    /// <summary>Cards are attached; every one has expired.</summary>
    Expired,
    /// <summary>No card is attached.</summary>
    Missing,
}

/// <summary>The one rule for "a valid card": attached, and not expired at the instant asked.</summary>
/// <param name="Cards">Attached cards only.</param>
/// <param name="LastDetachedAt">When the last card that is no longer attached was removed; null when none ever was.</param>
public sealed record CardsOnFile(IReadOnlyList<Card> Cards, DateTimeOffset? LastDetachedAt)
{
    public CardState StateAt(DateTimeOffset t) => Cards.Count == 0 ? CardState.Missing
        : Cards.Any(card => t < card.ExpiresAt) ? CardState.Valid
        : CardState.Expired;

    /// <summary>The last card to expire: the one to name when the account has none that is valid.</summary>
    public Card? LastToExpire => Cards.MaxBy(card => card.ExpiresAt);

    /// <summary>
    /// Since when the account has been (or from when it will be) without a valid card: the last expiry of those attached, or the
    /// last removal. Null when it never had a card.
    /// </summary>
    public DateTimeOffset? InvalidFrom => LastToExpire is { } card
        ? (LastDetachedAt is { } detached && detached > card.ExpiresAt ? detached : card.ExpiresAt)
        : LastDetachedAt;
}
