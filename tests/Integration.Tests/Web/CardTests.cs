using System.Net;
using System.Text.Json;

namespace Tensormesh.Integration.Tests.Web;

[Collection(WebSuite.Name)]
public sealed class CardTests(WebServer server)
{
    private const string Cards = "/v1/billing/stripe/customers/payment-methods";
    private readonly WebServer server = server;

    [Fact]
    public async Task An_attached_card_is_listed_as_the_public_API_lists_it_and_is_the_default()
    {
        var customer = server.As(await server.OpenAccountAsync());
        (await customer.GetAsync(Cards)).IsExactly("""{"stripePaymentMethodIds":[],"paymentMethods":[]}""");
        (await customer.AttachAsync("pm_card_visa")).IsExactly("""{"empty":{}}""");
        (await customer.AttachAsync("pm_card_visa")).IsExactly("""{"empty":{}}""");
        var list = (await customer.GetAsync(Cards)).Ok();
        Assert.Equal(["stripePaymentMethodIds", "paymentMethods"], list.EnumerateObject().Select(member => member.Name));
        var card = Assert.Single(list.GetProperty("paymentMethods").EnumerateArray());
        Assert.Equal(["stripePaymentMethodId", "type", "brand", "last4", "expMonth", "expYear", "isDefault"],
            card.EnumerateObject().Select(member => member.Name));
        Assert.Equal(card.GetProperty("stripePaymentMethodId").GetString(),
            Assert.Single(list.GetProperty("stripePaymentMethodIds").EnumerateArray()).GetString());
        Assert.Equal("STRIPE_PAYMENT_METHOD_TYPE_CARD", card.GetProperty("type").GetString());
        Assert.Equal("Visa", card.GetProperty("brand").GetString());
        Assert.Matches("^[0-9]{4}$", card.GetProperty("last4").GetString());
        Assert.InRange(card.GetProperty("expMonth").GetInt32(), 1, 12);
        Assert.True(card.GetProperty("isDefault").GetBoolean());
    }

    [Fact]
    public async Task Another_card_can_be_made_the_default_and_detaching_it_leaves_the_first()
    {
        var customer = server.As(await server.OpenAccountAsync());
        (await customer.AttachAsync("pm_card_visa")).Ok();
        (await customer.AttachAsync("pm_card_mastercard")).Ok();
        Assert.Equal("pm_card_visa", await DefaultAsync(customer));
        (await customer.PostAsync($"{Cards}/pm_card_mastercard:default", null)).IsExactly("""{"empty":{}}""");
        Assert.Equal("pm_card_mastercard", await DefaultAsync(customer));
        (await customer.DeleteAsync($"{Cards}/pm_card_mastercard")).IsExactly("""{"empty":{}}""");
        Assert.Equal("pm_card_visa", Assert.Single((await customer.GetAsync(Cards)).Ok().GetProperty("stripePaymentMethodIds").EnumerateArray()).GetString());
        (await customer.DeleteAsync($"{Cards}/pm_card_mastercard")).Problem(HttpStatusCode.NotFound, "payment-method-not-attached");
        (await customer.PostAsync($"{Cards}/pm_card_mastercard:default", null)).Problem(HttpStatusCode.NotFound,
            "payment-method-not-attached");
    }

    [Theory]
    [InlineData("pm_card_neverHeardOf", HttpStatusCode.BadRequest, "payment-method-unknown")]
    [InlineData("4242 4242 4242 4242", HttpStatusCode.BadRequest, "payment-method-unknown")]
    [InlineData("pm_card_expired", HttpStatusCode.PaymentRequired, "card-expired")]
    public async Task A_card_that_cannot_be_used_is_not_attached(string id, HttpStatusCode status, string kind)
    {
        var customer = server.As(await server.OpenAccountAsync());
        (await customer.AttachAsync(id)).Problem(status, kind, "stripePaymentMethodId");
        (await customer.GetAsync(Cards)).IsExactly("""{"stripePaymentMethodIds":[],"paymentMethods":[]}""");
        (await customer.PostAsync(Cards, "{}")).Problem(HttpStatusCode.BadRequest, "invalid-field", "stripePaymentMethodId");
    }

    [Fact]
    public async Task Two_accounts_may_hold_the_same_test_card_and_do_not_see_each_other()
    {
        var (one, two) = (server.As(await server.OpenAccountAsync()), server.As(await server.OpenAccountAsync()));
        (await one.AttachAsync("pm_card_visa")).Ok();
        (await two.AttachAsync("pm_card_visa")).Ok();
        (await one.DeleteAsync($"{Cards}/pm_card_visa")).Ok();
        Assert.Equal("pm_card_visa", await DefaultAsync(two));
    }

    [Fact]
    public async Task The_customer_id_is_made_once_and_stays()
    {
        var (one, two) = (server.As(await server.OpenAccountAsync()), server.As(await server.OpenAccountAsync()));
        var answer = await one.GetAsync("/v1/billing/stripe/customers");
        Assert.Matches("""^\{"stripeCusId":"cus_[0-9a-f]{24}"\}$""", answer.Text);
        Assert.Equal(answer.Text, (await one.GetAsync("/v1/billing/stripe/customers")).Text);
        Assert.NotEqual(answer.Text, (await two.GetAsync("/v1/billing/stripe/customers")).Text);
    }

    [Fact]
    public async Task A_top_up_charges_the_default_card_and_credits_at_once()
    {
        var customer = server.As(await server.OpenAccountAsync());
        (await customer.AttachAsync("pm_card_visa")).Ok();
        var payment = (await customer.TopUpAsync("25")).Ok();
        Assert.Equal(["stripePaymentIntentId", "clientSecret"], payment.EnumerateObject().Select(member => member.Name));
        var intent = payment.GetProperty("stripePaymentIntentId").GetString();
        (await customer.GetAsync("/v1/billing/balance")).IsExactly("""{"balance":{"currencyCode":"USD","units":"25","nanos":0}}""");
        var row = Assert.Single((await customer.GetAsync("/v1/billing/transactions")).Ok().GetProperty("transactions").EnumerateArray());
        Assert.Equal("TRANSACTION_TYPE_TOP_UP", row.GetProperty("type").GetString());
        Assert.Equal(intent, row.GetProperty("stripePaymentIntentId").GetString());
        Assert.Equal("pm_card_visa", row.GetProperty("paymentMethodId").GetString());
    }

    [Fact]
    public async Task Fifty_parallel_top_ups_with_one_key_charge_once_and_another_body_is_a_conflict()
    {
        var customer = server.As(await server.OpenAccountAsync());
        (await customer.AttachAsync("pm_card_visa")).Ok();
        (await customer.AttachAsync("pm_card_mastercard")).Ok();
        var answers = await Task.WhenAll(Enumerable.Range(0, 50).Select(_ => customer.TopUpAsync("10", "pm_card_visa", "one-top-up")));
        Assert.Single(answers.Select(answer => { answer.Ok(); return answer.Text; }).Distinct());
        (await customer.TopUpAsync("11", "pm_card_visa", "one-top-up")).Problem(HttpStatusCode.Conflict, "idempotency-key-reused");
        (await customer.TopUpAsync("10", "pm_card_mastercard", "one-top-up")).Problem(HttpStatusCode.Conflict, "idempotency-key-reused");
        (await customer.GetAsync("/v1/billing/balance")).IsExactly("""{"balance":{"currencyCode":"USD","units":"10","nanos":0}}""");
    }

    [Fact]
    public async Task A_declined_payment_says_so_and_credits_nothing()
    {
        var customer = server.As(await server.OpenAccountAsync());
        (await customer.AttachAsync("pm_card_chargeDeclined")).Ok();
        var answer = await customer.TopUpAsync("10");
        Assert.Contains("another card", answer.Problem(HttpStatusCode.PaymentRequired, "payment-declined"), StringComparison.Ordinal);
        Assert.Equal("card_declined", answer.Json.GetProperty("declineCode").GetString());
        (await customer.GetAsync("/v1/billing/balance")).IsExactly("""{"balance":{"currencyCode":"USD","units":"0","nanos":0}}""");
    }

    [Fact]
    public async Task A_top_up_sent_without_a_key_is_told_one_with_which_repeating_it_charges_nothing_more()
    {
        var customer = server.As(await server.OpenAccountAsync());
        (await customer.AttachAsync("pm_card_visa")).Ok();
        var first = await customer.TopUpAsync("10");
        var again = await customer.TopUpAsync("10", idempotencyKey: first.Headers.GetValues("Idempotency-Key").Single());
        Assert.Equal(first.Ok().GetRawText(), again.Ok().GetRawText());
        (await customer.GetAsync("/v1/billing/balance")).IsExactly("""{"balance":{"currencyCode":"USD","units":"10","nanos":0}}""");
    }

    [Fact]
    public async Task A_top_up_is_answered_as_it_ended_when_its_card_is_gone()
    {
        var customer = server.As(await server.OpenAccountAsync());
        (await customer.AttachAsync("pm_card_visa")).Ok();
        var first = await customer.TopUpAsync("10", "pm_card_visa", "then-detached");
        (await customer.DeleteAsync($"{Cards}/pm_card_visa")).Ok();
        Assert.Equal(first.Ok().GetRawText(), (await customer.TopUpAsync("10", "pm_card_visa", "then-detached")).Ok().GetRawText());
    }

    [Fact]
    public async Task A_top_up_needs_a_card_on_file()
    {
        var customer = server.As(await server.OpenAccountAsync());
        (await customer.TopUpAsync("10")).Problem(HttpStatusCode.BadRequest, "invalid-field", "stripePaymentMethodId");
        (await customer.TopUpAsync("10", "pm_card_visa")).Problem(HttpStatusCode.NotFound, "payment-method-not-attached");
    }

    [Theory]
    [InlineData("""{"currencyCode":"USD","units":"0","nanos":990000000}""", "amount")]
    [InlineData("""{"currencyCode":"USD","units":"100000","nanos":10000000}""", "amount")]
    [InlineData("""{"currencyCode":"USD","units":"5","nanos":1}""", "amount.nanos")]
    [InlineData("""{"currencyCode":"USD","units":"-5"}""", "amount")]
    [InlineData("""{"currencyCode":"CHF","units":"5"}""", "amount.currencyCode")]
    public async Task An_amount_that_no_card_can_be_charged_is_a_problem(string amount, string field)
    {
        var customer = server.As(await server.OpenAccountAsync());
        (await customer.AttachAsync("pm_card_visa")).Ok();
        (await customer.PostAsync("/v1/billing/stripe/payment-intents", $$"""{"amount":{{amount}}}""")).Problem(HttpStatusCode.BadRequest, "invalid-field", field);
    }

    private static async Task<string?> DefaultAsync(WebClient customer) =>
        (await customer.GetAsync(Cards)).Ok().GetProperty("paymentMethods").EnumerateArray()
        .Single(card => card.GetProperty("isDefault").GetBoolean()).GetProperty("stripePaymentMethodId").GetString();
}
