using Tensormesh.Billing;

namespace Tensormesh.Integration.Tests.Billing;

public sealed class PaymentsTests(PostgresFixture postgres) : BillingTest(postgres)
{
    [Fact]
    public async Task The_first_card_is_the_default_and_attaching_it_again_changes_nothing()
    {
        await DeclareAsync(Acme);
        Assert.Equal(AttachResult.Attached, await Cards.AttachAsync(Acme, "pm_card_visa", Cancellation));
        Assert.Equal(AttachResult.AlreadyAttached, await Cards.AttachAsync(Acme, "pm_card_visa", Cancellation));
        Assert.Equal(AttachResult.Attached, await Cards.AttachAsync(Acme, "pm_card_mastercard", Cancellation));
        Assert.Equal([("pm_card_visa", true), ("pm_card_mastercard", false)],
            (await Cards.ListAsync(Acme, Cancellation))!.Select(card => (card.PaymentMethodId, card.IsDefault)));
    }

    [Fact]
    public async Task Refuses_what_cannot_be_attached()
    {
        Assert.Equal(AttachResult.AccountMissing, await Cards.AttachAsync(Acme, "pm_card_visa", Cancellation));
        Assert.Null(await Cards.ListAsync(Acme, Cancellation));
        await DeclareAsync(Acme);
        Assert.Equal(AttachResult.UnknownPaymentMethod, await Cards.AttachAsync(Acme, "pm_card_nope", Cancellation));
        Assert.Equal(AttachResult.CardExpired, await Cards.AttachAsync(Acme, "pm_card_expired", Cancellation));
    }

    [Fact]
    public async Task Attaching_at_once_leaves_one_card_and_one_default()
    {
        await DeclareAsync(Acme);
        string[] tokens = ["pm_card_visa", "pm_card_mastercard", "pm_card_amex"];
        var results = await Task.WhenAll(
            Enumerable.Range(0, 30).Select(i => Task.Run(() => Cards.AttachAsync(Acme, tokens[i % 3], Cancellation))));
        Assert.Equal(3, results.Count(result => result == AttachResult.Attached));
        Assert.Single((await Cards.ListAsync(Acme, Cancellation))!, card => card.IsDefault);
    }

    [Fact]
    public async Task When_the_default_goes_another_takes_its_place_and_the_last_removal_is_remembered()
    {
        await DeclareAsync(Acme);
        await Cards.AttachAsync(Acme, "pm_card_visa", Cancellation);
        await Cards.AttachAsync(Acme, "pm_card_mastercard", Cancellation);
        Assert.Equal(DetachResult.Detached, await Cards.DetachAsync(Acme, "pm_card_visa", Cancellation));
        Assert.True(Assert.Single((await Cards.ListAsync(Acme, Cancellation))!).IsDefault);
        Time.Advance(TimeSpan.FromHours(1));
        Assert.Equal(DetachResult.Detached, await Cards.DetachAsync(Acme, "pm_card_mastercard", Cancellation));
        Assert.Equal(DetachResult.NotAttached, await Cards.DetachAsync(Acme, "pm_card_mastercard", Cancellation));
        Assert.Equal(DetachResult.AccountMissing, await Cards.DetachAsync(new("nobody"), "pm_card_visa", Cancellation));

        var cards = (await StandingAsync()).Cards;
        Assert.Equal((CardState.Missing, T0.AddHours(1)), (cards.StateAt(T0), cards.InvalidFrom));
        Assert.Equal(AttachResult.Attached, await Cards.AttachAsync(Acme, "pm_card_visa", Cancellation));
        Assert.True(Assert.Single((await Cards.ListAsync(Acme, Cancellation))!).IsDefault);
    }

    [Fact]
    public async Task Removing_a_card_that_had_expired_gives_no_new_grace()
    {
        await DeclareAsync(Acme);
        await ExecuteAsync(
            """
            insert into payment_method (account, payment_method_id, provider, brand, last4, exp_month, exp_year, is_default, attached_at)
            values ('acme', 'pm_old', 'sandbox', 'Visa', '0069', 1, 2026, true, '2025-01-01Z')
            """);
        await Cards.DetachAsync(Acme, "pm_old", Cancellation);
        Assert.Equal(new DateTimeOffset(2026, 2, 1, 0, 0, 0, TimeSpan.Zero), (await StandingAsync()).Cards.InvalidFrom);
    }

    [Fact]
    public async Task Another_card_can_be_made_the_default()
    {
        await DeclareAsync(Acme);
        await Cards.AttachAsync(Acme, "pm_card_visa", Cancellation);
        await Cards.AttachAsync(Acme, "pm_card_mastercard", Cancellation);
        Assert.True(await Cards.MakeDefaultAsync(Acme, "pm_card_mastercard", Cancellation));
        Assert.True(await Cards.MakeDefaultAsync(Acme, "pm_card_mastercard", Cancellation));
        Assert.False(await Cards.MakeDefaultAsync(Acme, "pm_card_amex", Cancellation));
        Assert.Equal("pm_card_mastercard",
            Assert.Single((await Cards.ListAsync(Acme, Cancellation))!, card => card.IsDefault).PaymentMethodId);
    }

    [Fact]
    public async Task Fifty_top_ups_with_one_key_at_once_credit_once()
    {
        await OpenAsync(Acme, "0.00");
        var results = await Task.WhenAll(
            Enumerable.Range(0, 50)
                .Select(_ => Task.Run(() => TopUps.ChargeAsync(Acme, Money.Parse("20.00"), "pm_card_visa", "key", Cancellation))));
        var credited = Assert.Single(results.OfType<TopUpResult.Credited>());
        Assert.Equal(49, results.OfType<TopUpResult.AlreadyCredited>().Count(result => result.PaymentIntentId == credited.PaymentIntentId));
        Assert.Equal(Money.Parse("20.00"), await PostedAsync());
        Assert.Equal("credited", await ScalarAsync<string>("select state from top_up"));
    }

    [Fact]
    public async Task Two_top_ups_of_the_same_instant_are_two_and_each_is_credited()
    {
        await OpenAsync(Acme, "0.00");
        // The clock stands still: nothing but their keys tells them apart.
        var results = await Task.WhenAll(((string[])["one", "two"]).Select(
            key => Task.Run(() => TopUps.ChargeAsync(Acme, Money.Parse("20.00"), "pm_card_visa", key, Cancellation))));
        Assert.Equal(2, results.OfType<TopUpResult.Credited>().Select(result => result.PaymentIntentId).Distinct().Count());
        Assert.Equal(Money.Parse("40.00"), await PostedAsync());
    }

    [Fact]
    public async Task A_top_up_that_stopped_between_the_charge_and_the_credit_is_finished_by_its_key()
    {
        await OpenAsync(Acme, "0.00");
        await ExecuteAsync("insert into top_up values ('acme', 'key', 20000000000, 'pm_card_visa', 'started', null, null, null, now())");
        await Cards.DetachAsync(Acme, "pm_card_visa", Cancellation);
        Assert.IsType<TopUpResult.Credited>(await TopUps.ChargeAsync(Acme, Money.Parse("20.00"), "pm_card_visa", "key", Cancellation));
        Assert.Equal((Money.Parse("20.00"), "credited"), (await PostedAsync(), await ScalarAsync<string>("select state from top_up")));
    }

    [Fact]
    public async Task A_declined_card_moves_nothing_and_the_key_stays_declined()
    {
        await OpenAsync(Acme, "0.00");
        await Cards.AttachAsync(Acme, "pm_card_chargeDeclined", Cancellation);
        for (var i = 0; i < 2; i++)
        {
            Assert.Equal(
                new TopUpResult.Declined("card_declined", "The card was declined."),
                await TopUps.ChargeAsync(Acme, Money.Parse("20.00"), "pm_card_chargeDeclined", "key", Cancellation));
        }

        Assert.Equal(Money.Zero, await PostedAsync());
    }

    [Fact]
    public async Task Refuses_a_top_up_that_cannot_be_attempted()
    {
        async Task<TopUpRefusal> Reason(string dollars, string card = "pm_card_visa", string key = "key")
            => Assert.IsType<TopUpResult.Refused>(await TopUps.ChargeAsync(Acme, Money.Parse(dollars), card, key, Cancellation)).Reason;
        Assert.Equal(TopUpRefusal.AccountMissing, await Reason("5.00"));
        await OpenAsync(Acme, "0.00");
        Assert.Equal(TopUpRefusal.AmountOutOfRange, await Reason("0.999999999"));
        Assert.Equal(TopUpRefusal.AmountOutOfRange, await Reason("100000.000000001"));
        Assert.Equal(TopUpRefusal.NotAttached, await Reason("5.00", "pm_card_mastercard"));
        Assert.IsType<TopUpResult.Credited>(await TopUps.ChargeAsync(Acme, Money.Parse("5.00"), "pm_card_visa", "key", Cancellation));
        Assert.Equal(TopUpRefusal.KeyReusedWithOtherContent, await Reason("6.00"));
        Time.SetUtcNow(new DateTimeOffset(2041, 1, 1, 0, 0, 0, TimeSpan.Zero));
        Assert.Equal(TopUpRefusal.CardExpired, await Reason("5.00", key: "other"));
    }
}
