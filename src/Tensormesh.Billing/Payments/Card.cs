namespace Tensormesh.Billing;

/// <summary>A card on file. No card number ever reaches us: the id is the payment company's.</summary>
/// <param name="ExpMonth">1 to 12; the card is valid to the last instant of this month, UTC.</param>
/// <param name="OffSessionDeclinedAt">When the bank refused it with nobody there to ask, if that was its last attempt of that kind and no
/// payment has succeeded since.</param>
public sealed record Card(
    string PaymentMethodId, string Brand, string Last4, int ExpMonth, int ExpYear, bool IsDefault, DateTimeOffset AttachedAt,
    DateTimeOffset? OffSessionDeclinedAt = null)
{
    /// <summary>The first instant at which the card is no longer valid.</summary>
    public DateTimeOffset ExpiresAt => new DateTimeOffset(ExpYear, ExpMonth, 1, 0, 0, 0, TimeSpan.Zero).AddMonths(1);

    /// <summary>The first instant at which it is no valid card: it expired, or was refused before that.</summary>
    public DateTimeOffset InvalidFrom => OffSessionDeclinedAt is { } declined && declined < ExpiresAt ? declined : ExpiresAt;
}

public enum CardState
{
    /// <summary>At least one attached card has neither expired nor been refused.</summary>
    Valid,
    /// <summary>Cards are attached; every one has expired.</summary>
    Expired,
    /// <summary>Of the attached cards that have not expired the bank refused every one when it was last charged without its holder.</summary>
    Declined,
    /// <summary>No card is attached.</summary>
    Missing,
}

/// <summary>
/// The one rule for "a valid card": attached, not expired at the instant asked, and not refused by then in its last off-session attempt.
/// </summary>
/// <param name="Cards">Attached cards only.</param>
/// <param name="LastDetachedAt">When the last card that is no longer attached was removed; null when none ever was.</param>
public sealed record CardsOnFile(IReadOnlyList<Card> Cards, DateTimeOffset? LastDetachedAt)
{
    public CardState StateAt(DateTimeOffset t) => Cards.Count == 0 ? CardState.Missing
        : Cards.Any(card => t < card.InvalidFrom) ? CardState.Valid
        : Cards.Any(card => t < card.ExpiresAt) ? CardState.Declined
        : CardState.Expired;

    /// <summary>The last card to expire: the one to name when the account has none that is valid.</summary>
    public Card? LastToExpire => Cards.MaxBy(card => card.ExpiresAt);

    /// <summary>
    /// Since when the account has been (or from when it will be) without a valid card: when the last of those attached expires or was
    /// refused, or the last removal. Null when it never had a card.
    /// </summary>
    public DateTimeOffset? InvalidFrom => Cards.Count == 0
        ? LastDetachedAt
        : Cards.Max(card => card.InvalidFrom) is var last && LastDetachedAt > last ? LastDetachedAt : last;
}
