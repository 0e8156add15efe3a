using static Tensormesh.Billing.Tests.Given;

namespace Tensormesh.Billing.Tests;

public sealed class AutoTopUpRuleTests
{
    private static readonly AutoTopUpPlan Plan = new(Dollars("50.00"), Dollars("100.00"), Dollars("300.00"), Dollars("1000.00"));
    private static readonly AutoTopUp Quiet = new(Plan, Money.Zero, Money.Zero, IsInFlight: false);

    [Theory]
    [InlineData("50.00", null)]
    [InlineData("49.999999999", "100.00")]
    [InlineData("0.00", "100.00")]
    public void A_balance_below_the_threshold_is_topped_up(string balance, string? charged)
        => Assert.Equal(charged, Decide(Quiet, balance) is AutoTopUpVerdict.Charge charge ? charge.Amount.ToDecimalString() : null);

    [Fact]
    public void A_balance_that_will_be_below_it_in_a_minute_is_topped_up_now()
    {
        // $60 an hour is a dollar a minute.
        Assert.IsType<AutoTopUpVerdict.Charge>(AutoTopUpRule.Decide(Quiet, Standing("50.99", intervals: [Interval("60.00")]), Now));
        Assert.Equal(AutoTopUpState.Watching, Idle(AutoTopUpRule.Decide(Quiet, Standing("51.00", intervals: [Interval("60.00")]), Now)));
    }

    [Theory]
    [InlineData("200.00", "900.00", null)]
    [InlineData("200.01", "200.01", AutoTopUpState.DailyCapReached)]
    [InlineData("0.00", "900.01", AutoTopUpState.MonthlyCapReached)]
    [InlineData("300.00", "1000.00", AutoTopUpState.MonthlyCapReached)]
    public void A_cap_is_never_passed(string today, string thisMonth, AutoTopUpState? state)
        => Assert.Equal(state, Idle(Decide(Quiet with { ChargedToday = Dollars(today), ChargedThisMonth = Dollars(thisMonth) }, "0.00")));

    [Fact]
    public void Nothing_is_charged_while_it_is_off_under_way_waiting_or_disabled()
    {
        Assert.Equal(AutoTopUpState.Off, Idle(Decide(Quiet with { Plan = null }, "0.00")));
        Assert.Equal(AutoTopUpState.Charging, Idle(Decide(Quiet with { IsInFlight = true }, "0.00")));
        Assert.Equal(AutoTopUpState.Waiting, Idle(Decide(Quiet with { DeclinesInARow = 1, RetryAt = Now.AddTicks(1) }, "0.00")));
        Assert.IsType<AutoTopUpVerdict.Charge>(Decide(Quiet with { DeclinesInARow = 1, RetryAt = Now }, "0.00"));
        var disabled = Assert.IsType<AutoTopUpVerdict.Idle>(Decide(Quiet with { DeclinesInARow = 3, DisabledBecause = "three times" }, "0.00"));
        Assert.Equal((AutoTopUpState.Disabled, "three times"), (disabled.State, disabled.Why));
    }

    [Fact]
    public void The_default_card_is_charged_even_after_a_decline_and_no_other()
    {
        var standing = Standing("0.00", Cards(Card(id: "pm_1") with { IsDefault = false }, Card(id: "pm_2") with { OffSessionDeclinedAt = Now }));
        Assert.Equal("pm_2", Assert.IsType<AutoTopUpVerdict.Charge>(AutoTopUpRule.Decide(Quiet, standing, Now)).PaymentMethodId);
        Assert.Equal(AutoTopUpState.CardMissing, Idle(AutoTopUpRule.Decide(Quiet, standing with { Cards = Cards() }, Now)));
        var expired = standing with { Cards = Cards(Card(2026, 2)) };
        Assert.Contains("has expired", Assert.IsType<AutoTopUpVerdict.Idle>(AutoTopUpRule.Decide(Quiet, expired, Now)).Why, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("50.00", "100.00", "300.00", "1000.00", null)]
    [InlineData("100.00", "100.00", "100.00", "100.00", null)]
    [InlineData("50.00", "0.99", "300.00", "1000.00", "amount")]
    [InlineData("50.00", "100000.01", "300000.00", "1000000.00", "amount")]
    [InlineData("50.00", "100.001", "300.00", "1000.00", "amount")]
    [InlineData("0.00", "100.00", "300.00", "1000.00", "threshold")]
    [InlineData("100.01", "100.00", "300.00", "1000.00", "threshold")]
    [InlineData("50.00", "100.00", "99.99", "1000.00", "dailyCap")]
    [InlineData("50.00", "100.00", "300.00", "299.99", "monthlyCap")]
    public void A_plan_that_could_run_away_or_never_run_is_refused(string threshold, string amount, string daily, string monthly, string? field)
        => Assert.Equal(field, AutoTopUpRule.Refuse(new(Dollars(threshold), Dollars(amount), Dollars(daily), Dollars(monthly)))?.Field);

    /// <summary>Bug class 5: a rule that charged each time it looked would charge thousands of times.</summary>
    [Fact]
    public void For_thirty_days_of_any_spending_the_caps_hold()
    {
        foreach (var perHour in (string[])["0.50", "5.00", "50.00", "5000.00"])
        {
            var (charged, balance) = (new List<DateTimeOffset>(), Money.Zero);
            for (var now = new DateTimeOffset(2026, 3, 1, 0, 0, 0, TimeSpan.Zero); now < new DateTimeOffset(2026, 3, 31, 0, 0, 0, TimeSpan.Zero); now += TimeSpan.FromMinutes(5))
            {
                balance = Money.Max(Money.Zero, balance - new Money(Dollars(perHour).Nanos / 12));
                var auto = Quiet with { ChargedToday = Plan.Amount * charged.Count(at => at.Date == now.Date), ChargedThisMonth = Plan.Amount * charged.Count };
                if (AutoTopUpRule.Decide(auto, Standing(balance.ToDecimalString()), now) is not AutoTopUpVerdict.Charge charge) continue;
                charged.Add(now);
                balance += charge.Amount;
            }

            Assert.All(charged.GroupBy(at => at.Date), day => Assert.InRange(day.Count(), 1, 3));
            Assert.InRange(charged.Count, perHour == "0.50" ? 4 : 10, perHour == "0.50" ? 5 : 10);
        }
    }

    private static AutoTopUpState? Idle(AutoTopUpVerdict verdict) => (verdict as AutoTopUpVerdict.Idle)?.State;

    private static AutoTopUpVerdict Decide(AutoTopUp auto, string balance) => AutoTopUpRule.Decide(auto, Standing(balance), Now);
}
