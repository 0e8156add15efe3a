using static Tensormesh.Billing.Tests.Given;

namespace Tensormesh.Billing.Tests;

public sealed class StartRuleTests
{
    private const string AddCard = "add one under Billing > Payment Methods, or POST /v1/billing/stripe/customers/payment-methods";

    private static Verdict Evaluate(
        LaunchRequest request, DeploymentStanding? standing, CreditPolicy? policy = null, DateTimeOffset? now = null)
        => BillingGate.EvaluateStart(request, standing, policy ?? Policy, now ?? Now);

    private static void Refuses(
        RefusalReason reason, string message, LaunchRequest request, DeploymentStanding? standing, CreditPolicy? policy = null,
        DateTimeOffset? now = null)
        => Assert.Equal(new Verdict.Refuse(reason, message), Evaluate(request, standing, policy, now));

    [Fact]
    public void Admits_when_card_price_budget_and_balance_are_in_order()
        => Assert.Equal(new Verdict.Admit(Dollars("10.00"), Dollars("10.00")), Evaluate(Request(), Standing("10.00").In()));

    [Fact]
    public void Refuses_a_namespace_without_the_account_label() => Refuses(
        RefusalReason.AccountMissing,
        "namespace team-a has no label tensormesh.ai/account: ask your platform team to name the paying account",
        Request() with { Account = null }, null);

    [Fact]
    public void Refuses_an_account_that_the_ledger_does_not_know() => Refuses(
        RefusalReason.AccountMissing,
        "account acme, which namespace team-a names in its label tensormesh.ai/account, does not exist: ask your platform team to "
            + "create its BillingAccount",
        Request(), null);

    [Fact]
    public void Refuses_without_a_card() => Refuses(
        RefusalReason.NoValidCard, $"account acme has no valid card on file: {AddCard}", Request(), Standing("10.00", Cards()).In());

    [Fact]
    public void Refuses_with_expired_cards_only_and_names_the_one_that_expired_last() => Refuses(
        RefusalReason.CardExpired,
        $"account acme has no valid card on file, Visa ending 4242 expired at the end of 2026-02: {AddCard}",
        Request(), Standing("10.00", Cards(Card(2026, 2), Card(2025, 12, "pm_old"))).In());

    [Fact]
    public void Admits_on_the_last_microsecond_of_a_card_and_refuses_on_the_next()
    {
        var standing = Standing("10.00", Cards(Card(2026, 3))).In();
        var expires = new DateTimeOffset(2026, 4, 1, 0, 0, 0, TimeSpan.Zero);
        Assert.IsType<Verdict.Admit>(Evaluate(Request(), standing, now: expires.AddMicroseconds(-1)));
        Assert.Equal(RefusalReason.CardExpired, Assert.IsType<Verdict.Refuse>(Evaluate(Request(), standing, now: expires)).Reason);
    }

    [Fact]
    public void Refuses_what_no_node_can_give() => Refuses(
        RefusalReason.NoMatchingGpu,
        "account acme cannot be given 16 GPUs of product NVIDIA-H100-80GB-HBM3 on one node: the cluster has 8 x "
            + "NVIDIA-H100-80GB-HBM3, 4 x NVIDIA-L40S: "
        + "change spec.gpu to what there is",
        Request() with { Product = null }, Standing("10.00").In());

    [Fact]
    public void Refuses_a_product_without_a_price() => Refuses(
        RefusalReason.PriceMissing,
        "account acme cannot be charged for NVIDIA-H100-80GB-HBM3: no PriceBook names a price for it: ask your platform team to add "
            + "one, or choose another product",
        Request(perGpuHour: null), Standing("10.00").In());

    [Fact]
    public void Refuses_an_hourly_rate_above_the_customers_limit_and_admits_one_that_equals_it()
    {
        Refuses(
            RefusalReason.HourlyRateAboveBudget,
            "account acme would pay $10.00/h for 4 x NVIDIA-H100-80GB-HBM3 at $2.50 per GPU-hour, above spec.budget.maxHourlyRate $9.99: "
            + "lower replicas or gpu.count, or raise the budget",
            Request() with { MaxHourlyRate = Dollars("9.99") }, Standing("10.00").In());
        Assert.IsType<Verdict.Admit>(Evaluate(Request() with { MaxHourlyRate = Dollars("10.00") }, Standing("10.00").In()));
    }

    [Fact]
    public void Refuses_when_the_total_budget_does_not_cover_the_minimum_run()
    {
        Refuses(
            RefusalReason.BudgetExhausted,
            "account acme has spent $4.90 of spec.budget.maxTotalCost $5.00 on this deployment: the $0.10 left do not cover 1 minute "
                + "at $10.00/h: raise the budget",
            Request() with { MaxTotalCost = Dollars("5.00") }, Standing("10.00").In("4.90"));
        Assert.IsType<Verdict.Admit>(Evaluate(Request() with { MaxTotalCost = Dollars("5.00") }, Standing("10.00").In("4.80")));
    }

    [Fact]
    public void Refuses_when_the_only_card_was_declined_off_session_and_says_which() => Refuses(
        RefusalReason.NoValidCard,
        "account acme has no valid card on file, Visa ending 4242 was declined when it was last charged: add one under Billing > Payment "
            + "Methods, or POST /v1/billing/stripe/customers/payment-methods",
        Request(), Standing("100.00", Cards(Card() with { OffSessionDeclinedAt = Now })).In());

    [Fact]
    public void Counts_what_has_accrued_since_the_last_settlement_towards_the_total_budget()
    {
        var standing = Standing("100.00", intervals: [Interval(from: Now.AddHours(-1))]).In("2.45");
        Assert.Equal(
            RefusalReason.BudgetExhausted,
            Assert.IsType<Verdict.Refuse>(Evaluate(Request() with { MaxTotalCost = Dollars("5.00") }, standing)).Reason);
    }

    [Fact]
    public void Refuses_when_the_balance_does_not_cover_the_hold_and_says_how_much_is_missing() => Refuses(
        RefusalReason.InsufficientBalance,
        "account acme is short by $7.50: 4 x NVIDIA-H100-80GB-HBM3 at $2.50 per GPU-hour need $10.00 available (60 minutes at $10.00/h), "
        + "$2.50 is available (balance $2.50, held $0.00): add balance under Billing > Overview",
        Request(), Standing("2.50").In());

    [Fact]
    public void Refuses_when_the_money_is_held_for_another_deployment()
    {
        var other = new DeploymentId(Guid.NewGuid());
        Refuses(
            RefusalReason.InsufficientBalance,
            "account acme is short by $2.00: 4 x NVIDIA-H100-80GB-HBM3 at $2.50 per GPU-hour need $10.00 available (60 minutes at "
                + "$10.00/h), "
            + "$8.00 is available (balance $20.00, held $12.00): add balance under Billing > Overview",
            Request(), Standing("20.00", holds: [Hold("12.00", deployment: other)]).In());
    }

    [Fact]
    public void The_amount_that_is_short_is_rounded_up_so_that_adding_it_suffices()
    {
        var standing = Standing("9.994999999");
        var refusal = Assert.IsType<Verdict.Refuse>(Evaluate(Request(), standing.In()));
        Assert.StartsWith("account acme is short by $0.01: ", refusal.Message, StringComparison.Ordinal);
        Assert.IsType<Verdict.Admit>(Evaluate(Request(), (standing with { Posted = standing.Posted + Dollars("0.01") }).In()));
    }

    [Fact]
    public void Says_seconds_where_the_hold_window_is_not_whole_minutes()
    {
        var policy = Policy with { HoldWindow = TimeSpan.FromSeconds(20) };
        Refuses(
            RefusalReason.InsufficientBalance,
            "account acme is short by $0.06: 4 x NVIDIA-H100-80GB-HBM3 at $2.50 per GPU-hour need $0.0555 available (20 seconds at "
                + "$10.00/h), "
            + "$0.00 is available (balance $0.00, held $0.00): add balance under Billing > Overview",
            Request(), Standing("0.00").In(), policy);
    }

    [Fact]
    public void A_deployment_that_has_a_hold_needs_money_only_for_the_GPUs_it_adds()
    {
        var held = Standing("11.00", holds: [Hold("5.00", gpus: 2)]);
        Assert.Equal(new Verdict.Admit(Dollars("10.00"), Dollars("10.00")), Evaluate(Request(), held.In()));
        Refuses(
            RefusalReason.InsufficientBalance,
            "account acme is short by $1.00: 2 more x NVIDIA-H100-80GB-HBM3 at $2.50 per GPU-hour need $5.00 available (60 minutes at "
                + "$5.00/h), "
            + "$4.00 is available (balance $9.00, held $5.00): add balance under Billing > Overview",
            Request(), (held with { Posted = Dollars("9.00") }).In());
    }

    [Fact]
    public void A_deployment_that_asks_for_what_it_holds_or_less_needs_no_more_money()
    {
        var held = Standing("0.50", holds: [Hold("10.00", gpus: 4)]);
        Assert.IsType<Verdict.Admit>(Evaluate(Request(4), held.In()));
        Assert.IsType<Verdict.Admit>(Evaluate(Request(1), held.In()));
    }

    [Fact]
    public void A_hold_for_another_product_is_exchanged_and_counts_towards_the_new_one()
    {
        var other = new CreditHold(Deployment, Acme, new GpuProduct("NVIDIA-L40S"), 4, Dollars("1.00"), Dollars("4.00"), Now);
        Assert.IsType<Verdict.Admit>(Evaluate(Request(), Standing("10.00", holds: [other]).In()));
        Assert.Equal(
            RefusalReason.InsufficientBalance,
            Assert.IsType<Verdict.Refuse>(Evaluate(Request(), Standing("9.99", holds: [other]).In())).Reason);
    }

    [Fact]
    public void Zero_GPUs_are_admitted_for_nothing_once_the_account_is_known()
    {
        Assert.Equal(new Verdict.Admit(Money.Zero, Money.Zero),
            Evaluate(Request(0) with { Product = null, PerGpuHour = null }, Standing("0.00", Cards()).In()));
        Assert.Equal(RefusalReason.AccountMissing, Assert.IsType<Verdict.Refuse>(Evaluate(Request(0), null)).Reason);
    }

    [Fact]
    public void A_product_that_costs_nothing_starts_without_money()
        => Assert.Equal(new Verdict.Admit(Money.Zero, Money.Zero), Evaluate(Request(perGpuHour: "0.00"), Standing("0.00").In()));

    [Fact]
    public void An_empty_account_starts_nothing_even_when_no_money_need_be_held()
    {
        var refusal = Assert.IsType<Verdict.Refuse>(Evaluate(Request(), Standing("0.00").In(), Policy with { HoldWindow = TimeSpan.Zero }));
        Assert.Equal(RefusalReason.InsufficientBalance, refusal.Reason);
        Assert.StartsWith("account acme is short by $0.01: ", refusal.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void The_rules_are_asked_in_the_order_in_which_a_person_would_fix_them()
    {
        // A request with everything wrong, put right one thing at a time.
        var request = Request(
            perGpuHour: null) with
        { Account = null, Product = null, MaxHourlyRate = Dollars("1.00"), MaxTotalCost = Dollars("1.00") };
        var standing = Standing("0.00", Cards());
        var reasons = new List<RefusalReason>();
        void Ask(bool known = true)
            => reasons.Add(Assert.IsType<Verdict.Refuse>(Evaluate(request, known ? standing.In("1.00") : null)).Reason);

        Ask(known: false);
        request = request with { Account = Acme };
        Ask(known: false);
        Ask();
        standing = standing with { Cards = Cards(Card(2020)) };
        Ask();
        standing = standing with { Cards = Cards(Card()) };
        Ask();
        request = request with { Product = H100 };
        Ask();
        request = request with { PerGpuHour = Dollars("2.50") };
        Ask();
        request = request with { MaxHourlyRate = null };
        Ask();
        request = request with { MaxTotalCost = null };
        Ask();

        Assert.Equal(
            [
                RefusalReason.AccountMissing, RefusalReason.AccountMissing, RefusalReason.NoValidCard, RefusalReason.CardExpired,
                RefusalReason.NoMatchingGpu,
                RefusalReason.PriceMissing, RefusalReason.HourlyRateAboveBudget, RefusalReason.BudgetExhausted,
                RefusalReason.InsufficientBalance,
            ],
            reasons);
    }
}
