using Tensormesh.Billing;
using Tensormesh.TestKit;

namespace Tensormesh.Integration.Tests.Billing;

public sealed class PaymentReconciliationTests(PostgresFixture postgres) : StripeTest(postgres)
{
    [Fact]
    public async Task A_payment_that_no_event_told_of_is_credited_by_the_comparison_once()
    {
        var card = await OpenWithCardAsync(Acme, "pm_card_authenticationRequired");
        var asked = Assert.IsType<TopUpResult.AuthenticationRequired>(await TopUpAsync(card));
        Time.Advance(TimeSpan.FromHours(30));
        Stripe.Books.Authenticate(asked.PaymentIntentId, agrees: true);

        Assert.Equal(new PaymentComparison(1, 1, 0), await Reconciliation.CompareAsync(Cancellation));
        Assert.Equal(Money.Parse("20.00"), await PostedAsync());
        Assert.Equal(new PaymentComparison(1, 0, 0), await Reconciliation.CompareAsync(Cancellation));
        Assert.Equal(PaymentEffect.Credited, await Events.HandleAsync(Told("payment_intent.succeeded"), Cancellation));
        Assert.Equal(PaymentEffect.Repeated, await Events.HandleAsync(Told("payment_intent.succeeded"), Cancellation));
        Assert.Equal(Money.Parse("20.00"), await PostedAsync());
    }

    [Fact]
    public async Task Two_comparisons_at_once_are_one()
    {
        await OpenWithCardAsync(Acme);
        // A list that hangs for as long as the client waits: the other meets the lock.
        Stripe.Next(FakeStripeFault.HangBefore, "/v1/balance_transactions");
        var slow = Reconciliation.CompareAsync(Cancellation);
        while (Stripe.Requests == 0 || await ScalarAsync<long>("select count(*) from pg_locks where locktype = 'advisory'") == 0)
        {
            await Task.Delay(20, Cancellation);
        }

        Assert.Null(await Reconciliation.CompareAsync(Cancellation));
        Assert.NotNull(await slow);
        Assert.NotNull(await Reconciliation.CompareAsync(Cancellation));
    }

    [Fact]
    public async Task More_payments_than_a_page_are_all_compared_and_the_next_comparison_looks_at_the_new_ones()
    {
        var card = await OpenWithCardAsync(Acme);
        await Task.WhenAll(Enumerable.Range(0, 210).Select(i => TopUpAsync(card, "1.00", $"key-{i}")));
        Time.Advance(TimeSpan.FromHours(3));
        Assert.Equal(new PaymentComparison(210, 0, 0), await Reconciliation.CompareAsync(Cancellation));
        Assert.Equal(0, (await Reconciliation.CompareAsync(Cancellation))!.Compared);
        Assert.Equal(Money.Parse("210.00"), await PostedAsync());
    }

    [Fact]
    public async Task Money_that_we_cannot_give_to_an_account_is_a_mismatch_and_is_credited_to_nobody()
    {
        await OpenWithCardAsync(Acme);
        var customer = (await Customers.OpenAsync(Acme, Cancellation)).Value;
        Stripe.Books.PayByHand(customer, 500);
        Stripe.Books.PayByHand(customer, 500, new Dictionary<string, string> { ["tensormesh_account"] = "beta", ["tensormesh_top_up"] = "tu_x" });
        Assert.Equal(2, (await Reconciliation.CompareAsync(Cancellation))!.Mismatches);
        Assert.Equal(2, (await Reconciliation.CompareAsync(Cancellation))!.Mismatches);
        Assert.Equal(Money.Zero, await PostedAsync());
        await ExecuteAsync("update payment_mismatch set resolved_at = now()");
        Assert.Equal(0, (await Reconciliation.CompareAsync(Cancellation))!.Mismatches);
    }

    [Fact]
    public async Task What_was_credited_and_never_paid_is_a_mismatch()
    {
        await OpenWithCardAsync(Acme);
        Assert.IsType<PostResult.Posted>(await Ledger.PostAsync(
            Movements.TopUp(Acme, Money.Parse("7.00"), "stripe", "pi_of_nobody", "pm_x"), Cancellation));
        Assert.Equal(1, (await Reconciliation.CompareAsync(Cancellation))!.Mismatches);
        Assert.Equal("NotPaid", await ScalarAsync<string>("select kind from payment_mismatch"));
    }

    [Fact]
    public async Task What_was_credited_with_another_amount_is_a_mismatch()
    {
        var card = await OpenWithCardAsync(Acme, "pm_card_authenticationRequired");
        var asked = Assert.IsType<TopUpResult.AuthenticationRequired>(await TopUpAsync(card));
        await Ledger.PostAsync(Movements.TopUp(Acme, Money.Parse("200.00"), "stripe", asked.PaymentIntentId, card), Cancellation);
        Stripe.Books.Authenticate(asked.PaymentIntentId, agrees: true);
        Assert.Equal(1, (await Reconciliation.CompareAsync(Cancellation))!.Mismatches);
        Assert.Equal("OtherContent", await ScalarAsync<string>("select kind from payment_mismatch"));
    }

    [Fact]
    public async Task What_was_refunded_before_it_was_credited_is_not_credited()
    {
        var card = await OpenWithCardAsync(Acme, "pm_card_authenticationRequired");
        var asked = Assert.IsType<TopUpResult.AuthenticationRequired>(await TopUpAsync(card));
        Stripe.Books.Authenticate(asked.PaymentIntentId, agrees: true);
        await Provider.RefundAsync(asked.PaymentIntentId, Money.Parse("20.00"), "support", Cancellation);
        Assert.Equal(1, (await Reconciliation.CompareAsync(Cancellation))!.Mismatches);
        Assert.Equal("RefundedUnposted", await ScalarAsync<string>("select kind from payment_mismatch"));
        Assert.Equal(Money.Zero, await PostedAsync());
    }

    [Fact]
    public async Task A_comparison_that_fails_leaves_the_next_to_begin_where_it_did()
    {
        var card = await OpenWithCardAsync(Acme, "pm_card_authenticationRequired");
        var asked = Assert.IsType<TopUpResult.AuthenticationRequired>(await TopUpAsync(card));
        Stripe.Books.Authenticate(asked.PaymentIntentId, agrees: true);
        Stripe.Next(FakeStripeFault.Unavailable, "/v1/balance_transactions", times: 2);
        Assert.True((await Assert.ThrowsAsync<PaymentProviderException>(() => Reconciliation.CompareAsync(Cancellation))).IsTransient);
        Assert.Equal(0L, await ScalarAsync<long>("select count(*) from payment_watermark"));
        Assert.Equal(1, (await Reconciliation.CompareAsync(Cancellation))!.Credited);
    }
}
