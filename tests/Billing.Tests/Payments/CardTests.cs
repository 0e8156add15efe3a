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
            => sandbox.ChargeAsync(new(account), card, Dollars("5.00"), key, TestContext.Current.CancellationToken);
        var first = await Charge("acme", "k");
        Assert.Equal(first, await Charge("acme", "k"));
        Assert.NotEqual(first, await Charge("acme", "k2"));
        Assert.NotEqual(first, await Charge("beta", "k"));
        Assert.Equal("card_declined", Assert.IsType<PaymentOutcome.Declined>(await Charge("acme", "k", "pm_card_chargeDeclined")).Code);
        Assert.Equal("authentication_required",
            Assert.IsType<PaymentOutcome.Declined>(await Charge("acme", "k", "pm_card_authenticationRequired")).Code);
    }
}
