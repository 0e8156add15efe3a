using CsCheck;
using static Tensormesh.Billing.Tests.Given;

namespace Tensormesh.Billing.Tests;

public sealed class CardTests
{
    [Fact]
    public void A_card_is_valid_to_the_last_instant_of_its_month()
    {
        var cards = Cards(Card(2026, 12));
        var end = new DateTimeOffset(2027, 1, 1, 0, 0, 0, TimeSpan.Zero);
        Assert.Equal((CardState.Valid, CardState.Expired), (cards.StateAt(end.AddTicks(-1)), cards.StateAt(end)));
        Assert.Equal(CardState.Missing, Cards().StateAt(Now));
    }

    [Fact]
    public void A_card_that_was_declined_off_session_is_not_valid_from_then_on()
    {
        var declined = Card(2026, 12) with { OffSessionDeclinedAt = Now };
        Assert.Equal((CardState.Valid, CardState.Declined), (Cards(declined).StateAt(Now.AddTicks(-1)), Cards(declined).StateAt(Now)));
        Assert.Equal(CardState.Expired, Cards(declined).StateAt(declined.ExpiresAt));
        Assert.Equal(Now, Cards(declined).InvalidFrom);

        var other = Card(2026, 6, "pm_card_mastercard");
        Assert.Equal(CardState.Valid, Cards(declined, other).StateAt(Now));
        Assert.Equal(other.ExpiresAt, Cards(declined, other).InvalidFrom);
        Assert.Equal(CardState.Declined, Cards(declined, other).StateAt(other.ExpiresAt));

        // Declined after it had expired: it had stopped being valid before.
        var late = Card(2026, 2) with { OffSessionDeclinedAt = Now };
        Assert.Equal((CardState.Expired, (DateTimeOffset?)late.ExpiresAt), (Cards(late).StateAt(Now), Cards(late).InvalidFrom));
    }

    [Fact]
    public void Every_amount_of_whole_cents_survives_the_way_to_Stripe_and_back_and_no_other_sets_out()
        => Gen.Long[1, 1_000_000_000].Sample(nanos =>
        {
            var cents = nanos / 10_000_000 + 1;
            Assert.Equal(cents, StripeAmounts.ToCents(StripeAmounts.FromCents(cents)));
            if (nanos % 10_000_000 != 0) Assert.Throws<ArgumentOutOfRangeException>(() => StripeAmounts.ToCents(new Money(nanos)));
        });

    [Fact]
    public void An_attempt_has_one_id_and_attempts_of_two_accounts_never_share_one()
    {
        Assert.Equal(TopUpId.Of(new("acme"), "k"), TopUpId.Of(new("acme"), "k"));
        Assert.NotEqual(TopUpId.Of(new("acme"), "k"), TopUpId.Of(new("acme"), "k2"));
        Assert.NotEqual(TopUpId.Of(new("a"), "b/c"), TopUpId.Of(new("a/b"), "c"));
    }

    [Fact]
    public async Task The_sandbox_knows_its_tokens_and_nothing_else()
    {
        var sandbox = new SandboxPaymentProvider();
        Assert.Equal(new ProviderCard("pm_card_visa", "Visa", "4242", 12, 2040),
            await sandbox.FindCardAsync("pm_card_visa", TestContext.Current.CancellationToken));
        Assert.Equal("4444", (await sandbox.FindCardAsync("pm_card_mastercard", TestContext.Current.CancellationToken))!.Last4);
        Assert.Null(await sandbox.FindCardAsync("4242424242424242", TestContext.Current.CancellationToken));
    }

    [Fact]
    public async Task The_sandbox_charges_a_key_once_and_keys_of_two_accounts_apart()
    {
        var sandbox = new SandboxPaymentProvider();
        Task<PaymentOutcome> Charge(string account, string key, string card = "pm_card_visa")
            => sandbox.ChargeAsync(
                new(TopUpId.Of(new(account), key), new(account), new("cus_x"), card, Dollars("5.00")), TestContext.Current.CancellationToken);
        var first = await Charge("acme", "k");
        Assert.Equal(first, await Charge("acme", "k"));
        Assert.NotEqual(first, await Charge("acme", "k2"));
        Assert.NotEqual(first, await Charge("beta", "k"));
        Assert.Equal("card_declined", Assert.IsType<PaymentOutcome.Declined>(await Charge("acme", "k", "pm_card_chargeDeclined")).Code);
        Assert.Equal("authentication_required",
            Assert.IsType<PaymentOutcome.Declined>(await Charge("acme", "k", "pm_card_authenticationRequired")).Code);
    }
}
