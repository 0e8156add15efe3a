using Tensormesh.Billing;

namespace Tensormesh.Operator.Reconciling;

/// <summary>What is to be said of an account's cards, from the least urgent on.</summary>
internal enum CardNotice
{
    Valid,
    ExpiresInAMonth,
    ExpiresInAWeek,
    ExpiresInADay,
    Declined,
    Expired,
    Missing,
}

/// <summary>When an account's cards are worth an Event: a month, a week and a day before the last valid one expires, and when there is none.</summary>
internal static class CardNotices
{
    private static readonly (TimeSpan Left, CardNotice Notice)[] Steps =
    [
        (TimeSpan.FromDays(1), CardNotice.ExpiresInADay), (TimeSpan.FromDays(7), CardNotice.ExpiresInAWeek), (TimeSpan.FromDays(30), CardNotice.ExpiresInAMonth),
    ];

    public static CardNotice Of(CardsOnFile cards, DateTimeOffset now) => cards.StateAt(now) switch
    {
        CardState.Missing => CardNotice.Missing,
        CardState.Expired => CardNotice.Expired,
        CardState.Declined => CardNotice.Declined,
        CardState.Valid => Steps.FirstOrDefault(step => cards.InvalidFrom - now <= step.Left).Notice,
    };

    /// <summary>Whether a change from one to the other is to be told. What was before is unknown after a start: then a card that never was is no news.</summary>
    public static bool IsNews(CardNotice? before, CardNotice now) => before switch
    {
        null => now is not (CardNotice.Valid or CardNotice.Missing),
        _ => now > before || (now == CardNotice.Valid && before >= CardNotice.Declined),
    };
}
