using Tensormesh.Billing;
using Tensormesh.Operator.Reconciling;

namespace Tensormesh.Operator.Tests;

public sealed class CardNoticeTests
{
    private static readonly DateTimeOffset End = new(2027, 1, 1, 0, 0, 0, TimeSpan.Zero);
    private static readonly Card Card = new("pm_1", "Visa", "4242", 12, 2026, IsDefault: true, A.Noon);

    [Theory]
    [InlineData(-30.001, nameof(CardNotice.Valid))]
    [InlineData(-30, nameof(CardNotice.ExpiresInAMonth))]
    [InlineData(-7, nameof(CardNotice.ExpiresInAWeek))]
    [InlineData(-1, nameof(CardNotice.ExpiresInADay))]
    [InlineData(0, nameof(CardNotice.Expired))]
    public void A_last_card_is_told_of_a_month_a_week_and_a_day_before_it_expires(double days, string notice)
        => Assert.Equal(notice, CardNotices.Of(new CardsOnFile([Card], null), End.AddDays(days)).ToString());

    [Fact]
    public void A_card_that_is_valid_for_longer_makes_the_other_no_matter()
    {
        var later = Card with { PaymentMethodId = "pm_2", ExpYear = 2030 };
        Assert.Equal(CardNotice.Valid, CardNotices.Of(new CardsOnFile([Card, later], null), End));
        Assert.Equal(CardNotice.ExpiresInADay, CardNotices.Of(new CardsOnFile([Card, later with { OffSessionDeclinedAt = A.Noon }], null), End.AddHours(-1)));
        Assert.Equal(CardNotice.Declined, CardNotices.Of(new CardsOnFile([later with { OffSessionDeclinedAt = A.Noon }], null), End));
        Assert.Equal(CardNotice.Missing, CardNotices.Of(new CardsOnFile([], null), End));
    }

    [Fact]
    public void What_is_told_is_what_got_worse_and_that_it_is_well_again()
    {
        Assert.True(CardNotices.IsNews(null, CardNotice.Expired));
        Assert.True(CardNotices.IsNews(CardNotice.ExpiresInAMonth, CardNotice.ExpiresInAWeek));
        Assert.True(CardNotices.IsNews(CardNotice.Declined, CardNotice.Valid));
        Assert.False(CardNotices.IsNews(null, CardNotice.Missing));
        Assert.False(CardNotices.IsNews(CardNotice.ExpiresInAWeek, CardNotice.ExpiresInAWeek));
        Assert.False(CardNotices.IsNews(CardNotice.ExpiresInAWeek, CardNotice.Valid));
        Assert.False(CardNotices.IsNews(null, CardNotice.Valid));
    }
}
