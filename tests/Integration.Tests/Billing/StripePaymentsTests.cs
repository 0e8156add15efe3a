using Tensormesh.Billing;
using Tensormesh.TestKit;

namespace Tensormesh.Integration.Tests.Billing;

public sealed class StripePaymentsTests(PostgresFixture postgres) : StripeTest(postgres)
{
    private static readonly AccountId Beta = new("beta");

    [Fact]
    public async Task An_account_has_one_customer_however_many_ask_at_once()
    {
        await DeclareAsync(Acme);
        await DeclareAsync(Beta);
        var ids = await Task.WhenAll(Enumerable.Range(0, 20).Select(_ => Task.Run(() => Customers.OpenAsync(Acme, Cancellation))));
        Assert.Single(ids.Distinct());
        Assert.Equal(Acme, await Customers.FindAccountAsync(ids[0], Cancellation));
        Assert.NotEqual(ids[0], await Customers.OpenAsync(Beta, Cancellation));
        Assert.Null(await Customers.FindAccountAsync(new("cus_of_somebody"), Cancellation));
    }

    [Fact]
    public async Task A_card_that_a_browser_entered_is_attached_listed_made_the_default_and_detached()
    {
        var visa = await OpenWithCardAsync(Acme);
        var amex = await EnterCardAsync(Acme, "pm_card_amex");
        Assert.Equal(AttachResult.AlreadyAttached, await Cards.AttachAsync(Acme, visa, Cancellation));
        Assert.Equal([(visa, "Visa", "4242", true), (amex, "American Express", "8431", false)],
            (await Cards.ListAsync(Acme, Cancellation))!.Select(card => (card.PaymentMethodId, card.Brand, card.Last4, card.IsDefault)));
        Assert.True(await Cards.MakeDefaultAsync(Acme, amex, Cancellation));
        Assert.True(await Cards.MakeDefaultAsync(Acme, visa, Cancellation));
        Assert.True(await Cards.MakeDefaultAsync(Acme, amex, Cancellation));
        var customer = await Customers.OpenAsync(Acme, Cancellation);
        Assert.Equal(2, (await Provider.ListCardsAsync(customer, Cancellation)).Count);

        Assert.Equal(DetachResult.Detached, await Cards.DetachAsync(Acme, amex, Cancellation));
        Assert.Equal(DetachResult.NotAttached, await Cards.DetachAsync(Acme, amex, Cancellation));
        Assert.Equal(visa, Assert.Single(await Provider.ListCardsAsync(customer, Cancellation)).PaymentMethodId);
        Assert.True(Assert.Single((await Cards.ListAsync(Acme, Cancellation))!).IsDefault);
    }

    [Fact]
    public async Task Refuses_a_card_that_is_unknown_expired_declined_or_anothers()
    {
        await DeclareAsync(Acme);
        Assert.Equal(AttachResult.UnknownPaymentMethod, await Cards.AttachAsync(Acme, "pm_none", Cancellation));
        Assert.Equal(AttachResult.CardExpired, await Cards.AttachAsync(Acme, "pm_card_expired", Cancellation));
        Assert.Equal(AttachResult.CardDeclined, await Cards.AttachAsync(Acme, "pm_card_chargeDeclined", Cancellation));
        var theirs = await OpenWithCardAsync(Beta);
        Assert.Equal(AttachResult.UnknownPaymentMethod, await Cards.AttachAsync(Acme, theirs, Cancellation));
        Assert.Empty((await Cards.ListAsync(Acme, Cancellation))!);
    }

    [Fact]
    public async Task A_customer_that_was_deleted_at_Stripe_without_our_hearing_of_it_is_replaced_when_it_is_next_needed()
    {
        var card = await OpenWithCardAsync(Acme);
        var first = await Customers.OpenAsync(Acme, Cancellation);
        Stripe.Books.DeleteCustomer(first.Value);
        // No event came. The card went with the customer, and nobody is charged.
        Assert.Equal("card_gone", Assert.IsType<TopUpResult.Declined>(await TopUpAsync(card)).Code);
        Assert.Equal((Money.Zero, 0), (await PostedAsync(), Stripe.Books.SucceededPayments));
        Assert.Empty((await Cards.ListAsync(Acme, Cancellation))!);

        var other = await EnterCardAsync(Acme, "pm_card_visa");
        var second = await Customers.OpenAsync(Acme, Cancellation);
        Assert.NotEqual(first, second);
        Assert.IsType<TopUpResult.Credited>(await TopUpAsync(other, key: "again"));
        Stripe.Books.DeleteCustomer(second.Value);
        Assert.False(await Cards.MakeDefaultAsync(Acme, other, Cancellation));
        Assert.Empty((await Cards.ListAsync(Acme, Cancellation))!);

        await Customers.OpenAsync(Acme, Cancellation);
        Stripe.Books.DeleteCustomer((await Customers.OpenAsync(Acme, Cancellation)).Value);
        Assert.Equal(AttachResult.Attached, await Cards.AttachAsync(Acme, "pm_card_amex", Cancellation));
        Stripe.Books.DeleteCustomer((await Customers.OpenAsync(Acme, Cancellation)).Value);
        Assert.NotNull(await Cards.BeginSetupAsync(Acme, "after", Cancellation));
        // Told of at last, it changes nothing any more.
        Assert.Equal(PaymentEffect.CustomerDeleted, await Events.HandleAsync(new("stripe", "evt_1", "customer.deleted", first.Value), Cancellation));
        Assert.Equal(5L, await ScalarAsync<long>("select count(*) from payment_customer"));
    }

    [Fact]
    public async Task Cards_of_the_sandbox_are_no_longer_on_file_once_payments_go_to_Stripe()
    {
        await DeclareAsync(Acme);
        var sandbox = new PaymentMethods(Database, new SandboxPaymentProvider(), Time);
        Assert.Equal(AttachResult.Attached, await sandbox.AttachAsync(Acme, "pm_card_visa", Cancellation));
        var card = await OpenWithCardAsync(Beta);
        Assert.Equal(1, await Cards.RetireOthersAsync(Cancellation));
        Assert.Equal(0, await Cards.RetireOthersAsync(Cancellation));
        Assert.Equal(CardState.Missing, (await StandingAsync()).Cards.StateAt(Time.GetUtcNow()));
        Assert.Equal(card, Assert.Single((await Cards.ListAsync(Beta, Cancellation))!).PaymentMethodId);
    }

    [Fact]
    public async Task A_setup_asked_for_twice_with_one_key_is_one()
    {
        await DeclareAsync(Acme);
        var setup = await Cards.BeginSetupAsync(Acme, "one", Cancellation);
        Assert.Equal(setup, await Cards.BeginSetupAsync(Acme, "one", Cancellation));
        Assert.NotEqual(setup, await Cards.BeginSetupAsync(Acme, "two", Cancellation));
        Assert.Null(await Cards.BeginSetupAsync(new("nobody"), "one", Cancellation));
    }

    [Fact]
    public async Task Fifty_top_ups_with_one_key_at_once_charge_and_credit_once()
    {
        var card = await OpenWithCardAsync(Acme);
        var results = await Task.WhenAll(Enumerable.Range(0, 50).Select(_ => Task.Run(() => TopUpAsync(card))));
        Assert.Single(results.OfType<TopUpResult.Credited>());
        Assert.All(results, result => Assert.True(result is TopUpResult.Credited or TopUpResult.AlreadyCredited or TopUpResult.InDoubt, $"{result}"));
        Assert.IsType<TopUpResult.AlreadyCredited>(await TopUpAsync(card));
        Assert.Equal((Money.Parse("20.00"), 1, 2000L), (await PostedAsync(), Stripe.Books.SucceededPayments, Stripe.Books.NetCents));
        Assert.Equal(TopUpRefusal.KeyReusedWithOtherContent, Assert.IsType<TopUpResult.Refused>(await TopUpAsync(card, "21.00")).Reason);
    }

    [Theory]
    [InlineData("1.00", 100)]
    [InlineData("19.99", 1999)]
    [InlineData("100000.00", 10_000_000)]
    public async Task Dollars_are_charged_to_the_cent(string dollars, long cents)
    {
        var card = await OpenWithCardAsync(Acme);
        Assert.IsType<TopUpResult.Credited>(await TopUpAsync(card, dollars));
        Assert.Equal((Money.Parse(dollars), cents), (await PostedAsync(), Stripe.Books.NetCents));
    }

    [Fact]
    public async Task An_amount_of_no_whole_cents_is_charged_nobody()
    {
        var card = await OpenWithCardAsync(Acme);
        Assert.Equal(TopUpRefusal.AmountOutOfRange, Assert.IsType<TopUpResult.Refused>(await TopUpAsync(card, "5.001")).Reason);
        Assert.Throws<ArgumentOutOfRangeException>(() => StripeAmounts.ToCents(Money.Parse("5.000000001")));
        Assert.Throws<ArgumentOutOfRangeException>(() => StripeAmounts.ToCents(Money.Zero));
        Assert.Equal(0, Stripe.Books.SucceededPayments);
    }

    [Fact]
    public async Task A_decline_has_the_banks_reason_and_its_key_stays_declined()
    {
        var card = await OpenWithCardAsync(Acme, "pm_card_chargeCustomerFailInsufficientFunds");
        for (var i = 0; i < 2; i++)
        {
            Assert.Equal(new TopUpResult.Declined("insufficient_funds", "Your card has insufficient funds."), await TopUpAsync(card));
        }

        Assert.Equal(PaymentEffect.Declined, await Events.HandleAsync(Told("payment_intent.payment_failed"), Cancellation));
        Assert.Equal("declined", await ScalarAsync<string>("select state from top_up"));
        // Its holder was there, so that it says nothing of charges without one.
        Assert.Equal(CardState.Valid, (await StandingAsync()).Cards.StateAt(T0));
        Assert.Equal(Money.Zero, await PostedAsync());
    }

    [Fact]
    public async Task A_bank_that_asks_the_holder_is_answered_in_the_browser_and_the_event_credits()
    {
        var card = await OpenWithCardAsync(Acme, "pm_card_authenticationRequired");
        var asked = Assert.IsType<TopUpResult.AuthenticationRequired>(await TopUpAsync(card));
        Assert.StartsWith($"{asked.PaymentIntentId}_secret_", asked.ClientSecret, StringComparison.Ordinal);
        Assert.Equal(asked, await TopUpAsync(card));
        Assert.Equal(Money.Zero, await PostedAsync());

        Stripe.Books.Authenticate(asked.PaymentIntentId, agrees: true);
        Assert.Equal(PaymentEffect.Credited, await Events.HandleAsync(Told("payment_intent.succeeded"), Cancellation));
        Assert.IsType<TopUpResult.AlreadyCredited>(await TopUpAsync(card));
        Assert.Equal((Money.Parse("20.00"), "credited"), (await PostedAsync(), await ScalarAsync<string>("select state from top_up")));
    }

    [Theory]
    [InlineData("ledger_transaction")]
    [InlineData("ledger_balance")]
    [InlineData("top_up")]
    [InlineData("payment_method")]
    [InlineData("payment_event")]
    public async Task An_event_that_fails_at_any_statement_has_neither_its_effect_nor_its_record_and_comes_again(string table)
    {
        var card = await OpenWithCardAsync(Acme, "pm_card_authenticationRequired");
        var asked = Assert.IsType<TopUpResult.AuthenticationRequired>(await TopUpAsync(card));
        Stripe.Books.Authenticate(asked.PaymentIntentId, agrees: true);
        await ExecuteAsync(
            $"""
            create function fail() returns trigger language plpgsql as 'begin raise exception ''ended here''; end';
            create trigger fails after insert or update on {table} for each statement execute function fail();
            """);
        await Assert.ThrowsAsync<Npgsql.PostgresException>(() => Events.HandleAsync(Told("payment_intent.succeeded"), Cancellation));
        Assert.Equal((Money.Zero, 0L, "started"), (
            await PostedAsync(), await ScalarAsync<long>("select count(*) from payment_event"), await ScalarAsync<string>("select state from top_up")));

        await ExecuteAsync($"drop trigger fails on {table}");
        Assert.Equal(PaymentEffect.Credited, await Events.HandleAsync(Told("payment_intent.succeeded"), Cancellation));
        Assert.Equal(PaymentEffect.Repeated, await Events.HandleAsync(Told("payment_intent.succeeded"), Cancellation));
        Assert.Equal(Money.Parse("20.00"), await PostedAsync());
    }

    [Fact]
    public async Task A_holder_who_does_not_agree_is_a_decline()
    {
        var card = await OpenWithCardAsync(Acme, "pm_card_authenticationRequired");
        var asked = Assert.IsType<TopUpResult.AuthenticationRequired>(await TopUpAsync(card));
        Stripe.Books.Authenticate(asked.PaymentIntentId, agrees: false);
        Assert.Equal("payment_intent_authentication_failure", Assert.IsType<TopUpResult.Declined>(await TopUpAsync(card)).Code);
    }

    [Fact]
    public async Task A_card_refused_off_session_is_no_valid_card_until_a_payment_with_it_succeeds()
    {
        var card = await OpenWithCardAsync(Acme);
        Stripe.Books.Decline(card, "insufficient_funds");
        Time.Advance(TimeSpan.FromHours(1));
        Assert.IsType<TopUpResult.Declined>(await TopUpAsync(card, key: "unattended", mode: ChargeMode.OffSession));
        var cards = (await StandingAsync()).Cards;
        Assert.Equal((CardState.Valid, CardState.Declined, (DateTimeOffset?)T0.AddHours(1)),
            (cards.StateAt(T0), cards.StateAt(T0.AddHours(1)), cards.InvalidFrom));
        var refused = Assert.IsType<Verdict.Refuse>(await Holds.PlaceAsync(Ask(NewDeployment(), 1), Policy, T0.AddHours(1), Cancellation));
        Assert.Equal(RefusalReason.NoValidCard, refused.Reason);
        Assert.Contains("declined", refused.Message, StringComparison.Ordinal);

        Stripe.Books.Decline(card, null);
        Assert.IsType<TopUpResult.Credited>(await TopUpAsync(card, key: "again"));
        // The event of the decline comes late.
        Assert.Equal(PaymentEffect.Declined, await Events.HandleAsync(Told("payment_intent.payment_failed"), Cancellation));
        Assert.Equal(CardState.Valid, (await StandingAsync()).Cards.StateAt(T0.AddHours(1)));
    }

    [Fact]
    public async Task A_bank_that_asks_the_holder_who_is_not_there_has_an_outcome_of_its_own()
    {
        var card = await OpenWithCardAsync(Acme, "pm_card_authenticationRequired");
        var asked = Assert.IsType<TopUpResult.AuthenticationRequired>(await TopUpAsync(card, mode: ChargeMode.OffSession));
        Assert.Equal(CardState.Declined, (await StandingAsync()).Cards.StateAt(T0));
        Stripe.Books.Authenticate(asked.PaymentIntentId, agrees: true);
        Assert.IsType<TopUpResult.Credited>(await TopUpAsync(card, mode: ChargeMode.OffSession));
        Assert.Equal(CardState.Valid, (await StandingAsync()).Cards.StateAt(T0));
    }

    [Theory]
    [InlineData(FakeStripeFault.Unavailable)]
    [InlineData(FakeStripeFault.ErrorAfter)]
    [InlineData(FakeStripeFault.HangBefore)]
    [InlineData(FakeStripeFault.HangAfter)]
    [InlineData(FakeStripeFault.ResetAfter)]
    [InlineData(FakeStripeFault.Garbage)]
    public async Task Whatever_becomes_of_the_answer_the_same_key_charges_and_credits_once(FakeStripeFault fault)
    {
        var card = await OpenWithCardAsync(Acme);
        // Also the client's own second attempt fails.
        Stripe.Next(fault, "/v1/payment_intents", times: 2);
        var first = await TopUpAsync(card);
        Assert.True(first is TopUpResult.InDoubt, $"{first}");
        Assert.Equal("started", await ScalarAsync<string>("select state from top_up"));
        var again = await TopUpAsync(card);
        if (again is TopUpResult.InDoubt) again = await TopUpAsync(card);
        Assert.IsType<TopUpResult.Credited>(again);
        Assert.Equal((Money.Parse("20.00"), 1, 2000L), (await PostedAsync(), Stripe.Books.SucceededPayments, Stripe.Books.NetCents));
    }

    [Fact]
    public async Task An_attempt_of_days_ago_is_found_and_not_charged_again()
    {
        var card = await OpenWithCardAsync(Acme);
        Stripe.Next(FakeStripeFault.ErrorAfter, "/v1/payment_intents");
        Assert.IsType<TopUpResult.InDoubt>(await TopUpAsync(card));
        Time.Advance(TimeSpan.FromDays(3));
        Stripe.ForgetKeys();
        Assert.IsType<TopUpResult.Credited>(await TopUpAsync(card));
        Assert.Equal(1, Stripe.Books.SucceededPayments);
    }

    [Fact]
    public async Task A_wrong_key_of_ours_is_neither_a_decline_nor_a_doubt()
    {
        var card = await OpenWithCardAsync(Acme);
        using var stranger = new StripePaymentProvider(new StripeOptions("sk_test_wrong", Stripe.Address) { Retries = 0 });
        var wrong = await Assert.ThrowsAsync<PaymentProviderException>(() =>
            new TopUps(Database, stranger, Time).ChargeAsync(Acme, Money.Parse("5.00"), card, "key", Cancellation));
        Assert.False(wrong.IsTransient);
        Assert.DoesNotContain("sk_test_wrong", wrong.ToString(), StringComparison.Ordinal);
        Assert.IsType<TopUpResult.Credited>(await TopUpAsync(card, "5.00"));
    }

    [Fact]
    public async Task A_refund_is_made_once_for_its_key_and_never_of_more_than_there_is()
    {
        var card = await OpenWithCardAsync(Acme);
        var paid = Assert.IsType<TopUpResult.Credited>(await TopUpAsync(card));
        var refund = await Provider.RefundAsync(paid.PaymentIntentId, Money.Parse("5.00"), "one", Cancellation);
        Assert.False(Assert.IsType<RefundOutcome.Refunded>(refund).Pending);
        Assert.Equal(refund, await Provider.RefundAsync(paid.PaymentIntentId, Money.Parse("5.00"), "one", Cancellation));
        Assert.IsType<RefundOutcome.Refused>(await Provider.RefundAsync(paid.PaymentIntentId, Money.Parse("15.01"), "two", Cancellation));
        Assert.Equal(1500L, Stripe.Books.NetCents);
        Assert.Equal(Money.Parse("5.00"), (await Provider.FindPaymentAsync(paid.PaymentIntentId, Cancellation))!.Refunded);
    }
}
