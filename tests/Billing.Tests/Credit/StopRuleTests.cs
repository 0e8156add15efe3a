using static Tensormesh.Billing.Tests.Given;

namespace Tensormesh.Billing.Tests;

public sealed class StopRuleTests
{
    private static Verdict Evaluate(DeploymentStanding standing, DateTimeOffset now, LaunchRequest? request = null)
        => BillingGate.EvaluateRunning(request ?? Request(), standing, Policy, now);

    /// <summary>Four GPUs at $2.50 since <see cref="Now"/> on this much money: $10 lasts an hour.</summary>
    private static DeploymentStanding Running(string posted, CardsOnFile? cards = null, string settledCost = "0.00")
        => Standing(posted, cards, [Interval(gpus: 4)], [Hold("10.00", gpus: 4)]).In(settledCost);

    [Fact]
    public void Goes_on_until_the_instant_at_which_the_balance_is_used_up()
    {
        Assert.Equal(
            new Verdict.Admit(Dollars("10.00"), Dollars("10.00"), Now.AddHours(1), RefusalReason.InsufficientBalance),
            Evaluate(Running("10.00"), Now));
        Assert.Equal(
            new Verdict.Admit(Dollars("10.00"), Dollars("5.00"), Now.AddHours(1), RefusalReason.InsufficientBalance),
            Evaluate(Running("10.00"), Now.AddMinutes(30)));
    }

    [Fact]
    public void Refuses_from_that_instant_on_and_says_since_when()
    {
        Assert.IsType<Verdict.Admit>(Evaluate(Running("10.00"), Now.AddHours(1).AddMicroseconds(-1)));
        var expected = new Verdict.Refuse(
            RefusalReason.InsufficientBalance,
            "account acme has used up its balance: 4 x NVIDIA-H100-80GB-HBM3 cost $10.00/h: add balance under Billing > Overview",
            Now.AddHours(1));
        Assert.Equal(expected, Evaluate(Running("10.00"), Now.AddHours(1)));
        Assert.Equal(expected, Evaluate(Running("10.00"), Now.AddDays(3)));
    }

    [Fact]
    public void An_empty_account_with_nothing_accruing_stops_now()
        => Assert.Equal(Now, Assert.IsType<Verdict.Refuse>(Evaluate(Standing("0.00", holds: [Hold("0.00", gpus: 4)]).In(), Now)).Since);

    [Fact]
    public void Money_for_less_than_the_hold_window_still_lets_it_go_on()
        => Assert.IsType<Verdict.Admit>(Evaluate(Running("0.01"), Now));

    [Fact]
    public void Without_a_card_it_goes_on_through_the_grace_period_and_then_stops()
    {
        var removed = Now.AddHours(-23);
        var standing = Running("1000.00", new CardsOnFile([], removed));
        Assert.Equal(new Verdict.Admit(Dollars("10.00"), Dollars("10.00"), Now.AddHours(1), RefusalReason.NoValidCard),
            Evaluate(standing, Now));
        Assert.Equal(
            new Verdict.Refuse(
                RefusalReason.NoValidCard,
                "account acme has no valid card on file: add one under Billing > Payment Methods, or POST "
                    + "/v1/billing/stripe/customers/payment-methods", Now.AddHours(1)),
            Evaluate(standing, Now.AddHours(1)));
    }

    [Fact]
    public void An_expired_card_has_the_accounts_own_grace_period()
    {
        var standing = Running("1000.00", Cards(Card(2026, 2)));
        var policy = standing.Account.Policy with { CardGracePeriod = TimeSpan.FromHours(12).Add(TimeSpan.FromSeconds(1)) };
        standing = standing with { Account = standing.Account with { Policy = policy } };
        Assert.Equal(RefusalReason.CardExpired, Assert.IsType<Verdict.Admit>(Evaluate(standing, Now)).StopReason);
        var refusal = Assert.IsType<Verdict.Refuse>(Evaluate(standing, Now.AddSeconds(1)));
        Assert.Equal((RefusalReason.CardExpired, Now.AddSeconds(1)), (refusal.Reason, refusal.Since));
    }

    [Fact]
    public void A_card_that_was_added_again_ends_the_grace()
        => Assert.IsType<Verdict.Admit>(Evaluate(Running("10.00", new CardsOnFile([Card()], Now.AddDays(-9))), Now));

    [Fact]
    public void Stops_at_the_instant_at_which_the_total_budget_is_spent()
    {
        var request = Request() with { MaxTotalCost = Dollars("7.00") };
        var standing = Running("100.00", settledCost: "2.00");
        Assert.Equal(new Verdict.Admit(Dollars("10.00"), Dollars("10.00"), Now.AddMinutes(30), RefusalReason.BudgetExhausted),
            Evaluate(standing, Now, request));
        Assert.Equal(
            new Verdict.Refuse(
                RefusalReason.BudgetExhausted,
                "account acme has spent spec.budget.maxTotalCost $7.00 on this deployment ($7.00): raise it to go on", Now.AddMinutes(30)),
            Evaluate(standing, Now.AddMinutes(30), request));
    }

    [Fact]
    public void A_budget_lowered_below_what_was_spent_stops_it_without_taking_back_what_is_settled()
    {
        var interval = Interval(gpus: 4, settled: Now.AddMinutes(59));
        var standing = Standing("100.00", intervals: [interval], holds: [Hold("1.00", gpus: 4)]).In("500.00");
        Assert.Equal(Now.AddMinutes(59),
            Assert.IsType<Verdict.Refuse>(Evaluate(standing, Now.AddHours(1), Request() with { MaxTotalCost = Dollars("1.00") })).Since);
    }

    [Fact]
    public void A_balance_that_is_used_up_is_named_before_a_card_and_a_card_before_the_budget()
    {
        var request = Request() with { MaxTotalCost = Dollars("1.00") };
        var (noCard, later) = (new CardsOnFile([], Now.AddDays(-2)), Now.AddHours(2));
        RefusalReason Reason(DeploymentStanding standing) => Assert.IsType<Verdict.Refuse>(Evaluate(standing, later, request)).Reason;
        Assert.Equal(RefusalReason.InsufficientBalance, Reason(Running("10.00", noCard)));
        Assert.Equal(RefusalReason.NoValidCard, Reason(Running("1000.00", noCard)));
        Assert.Equal(RefusalReason.BudgetExhausted, Reason(Running("1000.00")));
    }

    [Fact]
    public void A_withdrawn_price_stops_nothing_that_runs()
        => Assert.Equal(Dollars("10.00"),
            Assert.IsType<Verdict.Admit>(Evaluate(Running("10.00"), Now, Request(perGpuHour: null))).HourlyRate);

    [Fact]
    public void What_costs_nothing_runs_on_an_empty_account()
    {
        var free = Standing("0.00", intervals: [Interval("0.00", 4)], holds: [Hold("0.00", 4, "0.00")]).In();
        Assert.Equal(RefusalReason.NoValidCard, Assert.IsType<Verdict.Admit>(Evaluate(
            (free with { Account = free.Account with { Cards = new CardsOnFile([], Now) } }), Now, Request(perGpuHour: "0.00")))
                .StopReason);
    }
}
