using Tensormesh.Billing;
using Tensormesh.TestKit;

namespace Tensormesh.Integration.Tests.Billing;

/// <summary>What Stripe tells of money that went back.</summary>
public sealed class PaymentReturnsTests(PostgresFixture postgres) : StripeTest(postgres)
{
    private string card = "";

    [Fact]
    public async Task A_refund_is_posted_once_however_often_and_in_whatever_order_it_is_told()
    {
        var payment = await PayAsync("20.00");
        Assert.IsType<RefundOutcome.Refunded>(await Provider.RefundAsync(payment, Money.Parse("5.00"), "one", Cancellation));
        var first = Told("charge.refunded");
        Assert.IsType<RefundOutcome.Refunded>(await Provider.RefundAsync(payment, Money.Parse("6.00"), "two", Cancellation));
        var second = Told("charge.refunded");
        Assert.NotEqual(first.EventId, second.EventId);

        // The younger first: it finds both.
        Assert.Equal(PaymentEffect.Refunded, await Events.HandleAsync(second, Cancellation));
        Assert.Equal(Money.Parse("9.00"), await PostedAsync());
        var again = await Task.WhenAll(Enumerable.Range(0, 10).Select(i => Task.Run(() => Events.HandleAsync(i % 2 == 0 ? first : second, Cancellation))));
        Assert.All(again, effect => Assert.True(effect is PaymentEffect.Refunded or PaymentEffect.Repeated, $"{effect}"));
        Assert.Equal((Money.Parse("9.00"), Money.Parse("-11.00"), 0L), (await PostedAsync(), await SumAsync(MovementType.Refund), await Mismatches.CountAsync(Cancellation)));
        Assert.Equal(Stripe.Books.NetCents, (await PostedAsync()).Nanos / 10_000_000);
        Assert.Equal(2L, await ScalarAsync<long>("select count(*) from payment_event where effect = 'Refunded'"));
    }

    [Fact]
    public async Task A_refund_of_money_that_is_spent_is_for_a_person_and_moves_nothing()
    {
        var payment = await PayAsync("20.00");
        Assert.IsType<PostResult.Posted>(await Ledger.PostAsync(Movements.Adjustment(Acme, -Money.Parse("18.00"), "spent", "tests", "spent"), Cancellation));
        await Provider.RefundAsync(payment, Money.Parse("5.00"), "one", Cancellation);
        Assert.Equal(PaymentEffect.Mismatch, await Events.HandleAsync(Told("charge.refunded"), Cancellation));
        Assert.Equal((Money.Parse("2.00"), Money.Zero), (await PostedAsync(), await SumAsync(MovementType.Refund)));
        Assert.Contains("2.00 of paid money left, not 5.00", await ScalarAsync<string>("select detail from payment_mismatch where kind = 'Refunded' and resolved_at is null"), StringComparison.Ordinal);

        // Told of again once there is enough, it is posted, and nothing is left open.
        await PayAsync("20.00", "more");
        Assert.Equal(PaymentEffect.Refunded, await Events.HandleAsync(Told("charge.refunded") with { EventId = "evt_later" }, Cancellation));
        Assert.Equal((Money.Parse("17.00"), 0L), (await PostedAsync(), await Mismatches.CountAsync(Cancellation)));
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task A_dispute_takes_what_is_there_owes_the_rest_and_gives_it_back_when_we_win(bool isWon)
    {
        var payment = await PayAsync("20.00");
        Assert.IsType<PostResult.Posted>(await Ledger.PostAsync(Movements.Adjustment(Acme, -Money.Parse("15.00"), "spent", "tests", "spent"), Cancellation));
        var dispute = Stripe.Books.Dispute(payment);
        var created = Told("charge.dispute.created");
        Assert.Equal(PaymentEffect.Disputed, await Events.HandleAsync(created, Cancellation));
        Assert.Equal(PaymentEffect.Repeated, await Events.HandleAsync(created, Cancellation));
        Assert.Equal(PaymentEffect.Disputed, await Events.HandleAsync(created with { EventId = "evt_other", Type = "charge.dispute.funds_withdrawn" }, Cancellation));
        Assert.Equal((Money.Zero, Money.Parse("-15.00")), (await PostedAsync(), await SumAsync(MovementType.Dispute, "receivable:disputes")));

        Stripe.Books.DecideDispute(dispute, isWon);
        Assert.Equal(isWon ? PaymentEffect.DisputeReversed : PaymentEffect.Disputed, await Events.HandleAsync(Told("charge.dispute.closed"), Cancellation));
        if (isWon) Assert.Equal(PaymentEffect.DisputeReversed, await Events.HandleAsync(Told("charge.dispute.funds_reinstated"), Cancellation));
        // What was told first comes last.
        await Events.HandleAsync(created with { EventId = "evt_late" }, Cancellation);
        Assert.Equal(isWon ? Money.Parse("5.00") : Money.Zero, await PostedAsync());
        Assert.Equal(isWon ? Money.Parse("15.00") : Money.Zero, await SumAsync(MovementType.DisputeReversal, "receivable:disputes"));
        Assert.Equal(0L, await Mismatches.CountAsync(Cancellation));
    }

    [Fact]
    public async Task A_dispute_that_takes_nothing_or_is_over_before_it_is_heard_of_moves_nothing()
    {
        var payment = await PayAsync("20.00");
        Stripe.Books.Dispute(payment, isInquiry: true);
        Assert.Equal(PaymentEffect.Outdated, await Events.HandleAsync(Told("charge.dispute.created"), Cancellation));
        var other = await PayAsync("30.00", "other");
        Stripe.Books.DecideDispute(Stripe.Books.Dispute(other), isWon: true);
        foreach (var type in (string[])["charge.dispute.closed", "charge.dispute.created", "charge.dispute.funds_reinstated"])
        {
            Assert.Equal(PaymentEffect.Outdated, await Events.HandleAsync(Told(type), Cancellation));
        }

        Assert.Equal((Money.Parse("50.00"), 0L), (await PostedAsync(), await Mismatches.CountAsync(Cancellation)));
    }

    [Fact]
    public async Task What_went_back_of_a_payment_that_the_ledger_has_not_is_for_a_person()
    {
        await OpenWithCardAsync(Acme);
        var byHand = Stripe.Books.PayByHand((await Customers.OpenAsync(Acme, Cancellation)).Value, 5000);
        await Provider.RefundAsync(byHand, Money.Parse("1.00"), "one", Cancellation);
        Assert.Equal(PaymentEffect.Mismatch, await Events.HandleAsync(Told("charge.refunded"), Cancellation));
        Stripe.Books.Dispute(byHand);
        Assert.Equal(PaymentEffect.Mismatch, await Events.HandleAsync(Told("charge.dispute.created"), Cancellation));
        Assert.Equal(PaymentEffect.Mismatch, await Events.HandleAsync(new("stripe", "evt_1", "charge.refunded", "ch_none"), Cancellation));
        Assert.Equal(PaymentEffect.Mismatch, await Events.HandleAsync(new("stripe", "evt_2", "charge.dispute.closed", "dp_none"), Cancellation));
        Assert.Equal(PaymentEffect.Mismatch, await Events.HandleAsync(new("stripe", "evt_3", "refund.failed", "re_1"), Cancellation));
        Assert.Equal((Money.Zero, 5L), (await PostedAsync(), await Mismatches.CountAsync(Cancellation)));
    }

    [Fact]
    public async Task An_event_is_not_recorded_while_Stripe_cannot_be_asked_and_comes_again()
    {
        var payment = await PayAsync("20.00");
        await Provider.RefundAsync(payment, Money.Parse("5.00"), "one", Cancellation);
        Stripe.Next(FakeStripeFault.Unavailable, "/v1/refunds", times: 2);
        await Assert.ThrowsAsync<PaymentProviderException>(() => Events.HandleAsync(Told("charge.refunded"), Cancellation));
        Assert.Equal(0L, await ScalarAsync<long>("select count(*) from payment_event"));
        Assert.Equal(PaymentEffect.Refunded, await Events.HandleAsync(Told("charge.refunded"), Cancellation));
        Assert.Equal(Money.Parse("15.00"), await PostedAsync());
    }

    /// <summary>Returns the payment's id.</summary>
    private async Task<string> PayAsync(string dollars, string key = "key")
    {
        if (card.Length == 0) card = await OpenWithCardAsync(Acme);
        return Assert.IsType<TopUpResult.Credited>(await TopUpAsync(card, dollars, key)).PaymentIntentId;
    }
}
