using System.Net;
using System.Net.Sockets;
using System.Text;
using System.Text.Json.Nodes;
using Tensormesh.Billing;
using Tensormesh.TestKit;
using Tensormesh.Web;

namespace Tensormesh.Integration.Tests.Web;

public sealed class StripeWebhookTests(StripeServer server) : IClassFixture<StripeServer>
{
    private readonly StripeServer server = server;

    private FakeStripeWebhooks Webhooks => server.Stripe.Webhooks;

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    [Fact]
    public async Task A_payment_that_the_holder_finished_in_a_browser_is_credited_by_its_event_however_often_it_comes()
    {
        var (account, customer, card) = await server.OpenAsync("pm_card_authenticationRequired");
        var asked = (await customer.TopUpAsync("20", card)).Ok();
        Assert.Equal("requires_action", asked.GetProperty("status").GetString());
        var payment = asked.GetProperty("stripePaymentIntentId").GetString()!;
        Assert.Equal(Money.Zero, await server.BalanceAsync(account));

        server.Stripe.Books.Authenticate(payment, agrees: true);
        await Webhooks.DrainAsync();
        Assert.Equal(Money.FromUnits(20), await server.BalanceAsync(account));
        var told = About(payment, "payment_intent.succeeded");
        var answers = await Task.WhenAll(Enumerable.Range(0, 10).Select(_ => Webhooks.SendAsync(told, Cancellation)));
        Assert.All(answers, answer => Assert.Equal(HttpStatusCode.OK, answer.StatusCode));
        Assert.Equal(Money.FromUnits(20), await server.BalanceAsync(account));
        Assert.Equal("Credited", await server.ScalarAsync<string>("select effect from payment_event where event_id = $1", (string)told["id"]!));
    }

    [Fact]
    public async Task An_event_beside_the_answer_to_the_customer_credits_once()
    {
        var (account, customer, card) = await server.OpenAsync();
        var answers = await Task.WhenAll(Enumerable.Range(0, 20).Select(i => customer.TopUpAsync("5", card, $"key-{i}")));
        Assert.All(answers, answer => answer.Ok());
        await Webhooks.DrainAsync();
        Assert.Equal(Money.FromUnits(100), await server.BalanceAsync(account));
    }

    [Fact]
    public async Task A_declined_top_up_says_why_and_one_in_doubt_is_finished_by_its_key()
    {
        var (account, customer, card) = await server.OpenAsync("pm_card_chargeCustomerFailInsufficientFunds");
        var declined = await customer.TopUpAsync("5", card);
        declined.Problem(HttpStatusCode.PaymentRequired, "payment-declined");
        Assert.Equal("insufficient_funds", declined.Json.GetProperty("declineCode").GetString());

        server.Stripe.Books.Decline(card, null);
        server.Stripe.Next(FakeStripeFault.ErrorAfter, "/v1/payment_intents");
        Webhooks.Plan = _ => FakeStripeDelivery.Lost;
        try
        {
            var doubt = await customer.TopUpAsync("5", card, "in-doubt");
            doubt.Problem(HttpStatusCode.ServiceUnavailable, "payment-company-unavailable");
            Assert.NotNull(doubt.Headers.RetryAfter);
            (await customer.TopUpAsync("5", card, "in-doubt")).Ok();
            Assert.Equal(Money.FromUnits(5), await server.BalanceAsync(account));
        }
        finally
        {
            Webhooks.Plan = _ => FakeStripeDelivery.Normal;
        }
    }

    [Fact]
    public async Task Without_the_right_signature_of_now_nothing_is_done()
    {
        var (account, customer, card) = await server.OpenAsync("pm_card_authenticationRequired");
        var payment = (await customer.TopUpAsync("20", card)).Ok().GetProperty("stripePaymentIntentId").GetString()!;
        Webhooks.Plan = _ => FakeStripeDelivery.Lost;
        server.Stripe.Books.Authenticate(payment, agrees: true);
        Webhooks.Plan = _ => FakeStripeDelivery.Normal;
        var body = About(payment, "payment_intent.succeeded").ToJsonString();
        var now = TimeProvider.System.GetUtcNow();
        var right = FakeStripeWebhooks.Sign(body, now);
        foreach (var signature in new[]
        {
            "", "nonsense", "t=,v1=", "t=abc,v1=00", right[..^1], right.Replace("v1=", "v0=", StringComparison.Ordinal), right.Split(',')[0],
            right.Split(',')[1], FakeStripeWebhooks.Sign(body, now.AddMinutes(-6)), FakeStripeWebhooks.Sign(body, now, "whsec_of_another"),
            FakeStripeWebhooks.Sign(body + " ", now), "t=99999999999999999999,v1=00",
        })
        {
            using var answer = await Webhooks.SendAsync(body, signature, Cancellation);
            Assert.True(answer.StatusCode == HttpStatusCode.BadRequest, $"'{signature}': {(int)answer.StatusCode}");
            Assert.Contains("urn:tensormesh:problem:bad-signature", await answer.Content.ReadAsStringAsync(Cancellation), StringComparison.Ordinal);
        }

        (await server.Web.WithToken(null, server.Host).PostAsync(StripeWebhooks.Path, body)).Problem(HttpStatusCode.BadRequest, "bad-signature");
        Assert.Equal(Money.Zero, await server.BalanceAsync(account));
        Assert.Equal(0L, await server.ScalarAsync<long>("select count(*) from payment_event where object_id = $1", payment));
        using var taken = await Webhooks.SendAsync(body, null, Cancellation);
        Assert.Equal(HttpStatusCode.OK, taken.StatusCode);
        Assert.Equal(Money.FromUnits(20), await server.BalanceAsync(account));
    }

    [Fact]
    public async Task A_signed_event_that_says_what_is_not_so_does_nothing()
    {
        var (account, customer, card) = await server.OpenAsync("pm_card_authenticationRequired");
        var payment = (await customer.TopUpAsync("20", card)).Ok().GetProperty("stripePaymentIntentId").GetString()!;
        async Task<HttpStatusCode> SendAsync(string id, string type, string objectId)
        {
            var told = new JsonObject
            {
                ["id"] = id,
                ["type"] = type,
                ["data"] = new JsonObject { ["object"] = new JsonObject { ["id"] = objectId, ["status"] = "succeeded", ["amount_received"] = 999_999 } },
            };
            return (await Webhooks.SendAsync(told, Cancellation)).StatusCode;
        }

        Assert.Equal(HttpStatusCode.OK, await SendAsync($"evt_{payment}_1", "payment_intent.succeeded", payment));
        Assert.Equal(HttpStatusCode.OK, await SendAsync($"evt_{payment}_2", "payment_method.detached", card));
        Assert.Equal(HttpStatusCode.OK, await SendAsync($"evt_{payment}_3", "invoice.created", "in_1"));
        Assert.Equal(HttpStatusCode.OK, await SendAsync($"evt_{payment}_4", "payment_intent.succeeded", "pi_of_nobody"));
        Assert.Equal(HttpStatusCode.BadRequest, (await Webhooks.SendAsync("[]", null, Cancellation)).StatusCode);
        Assert.Equal(HttpStatusCode.BadRequest, (await Webhooks.SendAsync("not json", null, Cancellation)).StatusCode);
        Assert.Equal(Money.Zero, await server.BalanceAsync(account));
        Assert.Single((await customer.GetAsync("/v1/billing/stripe/customers/payment-methods")).Ok().GetProperty("paymentMethods").EnumerateArray());
        Assert.Equal("Outdated", await server.ScalarAsync<string>("select effect from payment_event where event_id = $1", $"evt_{payment}_2"));
        Assert.Equal("NotPaid", await server.ScalarAsync<string>("select kind from payment_mismatch where object_id = $1", "pi_of_nobody"));
    }

    [Fact]
    public async Task While_Stripe_cannot_be_asked_an_event_is_not_taken_and_comes_again()
    {
        var (account, customer, card) = await server.OpenAsync("pm_card_authenticationRequired");
        var payment = (await customer.TopUpAsync("20", card)).Ok().GetProperty("stripePaymentIntentId").GetString()!;
        server.Stripe.Next(FakeStripeFault.Unavailable, $"/v1/payment_intents/{payment}", times: 3);
        Webhooks.Plan = _ => FakeStripeDelivery.Lost;
        server.Stripe.Books.Authenticate(payment, agrees: true);
        Webhooks.Plan = _ => FakeStripeDelivery.Normal;
        var told = About(payment, "payment_intent.succeeded");
        Assert.Equal(HttpStatusCode.ServiceUnavailable, (await Webhooks.SendAsync(told, Cancellation)).StatusCode);
        Assert.Equal(0L, await server.ScalarAsync<long>("select count(*) from payment_event where object_id = $1", payment));
        Assert.Equal(HttpStatusCode.OK, (await Webhooks.SendAsync(told, Cancellation)).StatusCode);
        Assert.Equal(Money.FromUnits(20), await server.BalanceAsync(account));
    }

    [Fact]
    public async Task A_card_or_a_customer_that_goes_at_Stripe_goes_here()
    {
        const string Cards = "/v1/billing/stripe/customers/payment-methods";
        var (account, customer, card) = await server.OpenAsync();
        server.Stripe.Books.DetachCard(card);
        await Webhooks.DrainAsync();
        (await customer.GetAsync(Cards)).IsExactly("""{"stripePaymentMethodIds":[],"paymentMethods":[]}""");

        var (_, other, _) = await server.OpenAsync();
        var before = (await other.GetAsync("/v1/billing/stripe/customers")).Ok().GetProperty("stripeCusId").GetString()!;
        server.Stripe.Books.DeleteCustomer(before);
        await Webhooks.DrainAsync();
        (await other.GetAsync(Cards)).IsExactly("""{"stripePaymentMethodIds":[],"paymentMethods":[]}""");
        var after = (await other.GetAsync("/v1/billing/stripe/customers")).Ok().GetProperty("stripeCusId").GetString()!;
        Assert.NotEqual(before, after);
    }

    [Fact]
    public async Task A_refund_and_a_dispute_at_Stripe_are_posted_to_the_ledger()
    {
        var (account, customer, card) = await server.OpenAsync();
        var payment = (await customer.TopUpAsync("20", card)).Ok().GetProperty("stripePaymentIntentId").GetString()!;
        server.Stripe.Books.Answer("POST", "/v1/refunds", new Dictionary<string, string> { ["payment_intent"] = payment, ["amount"] = "500" });
        await Webhooks.DrainAsync();
        Assert.Equal(Money.Parse("15.00"), await server.BalanceAsync(account));
        var dispute = server.Stripe.Books.Dispute(payment);
        await Webhooks.DrainAsync();
        Assert.Equal(Money.Zero, await server.BalanceAsync(account));
        server.Stripe.Books.DecideDispute(dispute, isWon: true);
        await Webhooks.DrainAsync();
        Assert.Equal(Money.Parse("15.00"), await server.BalanceAsync(account));
        var types = (await customer.GetAsync("/v1/billing/transactions")).Ok().GetProperty("transactions").EnumerateArray()
            .Select(row => row.GetProperty("type").GetString());
        Assert.Equal(["TRANSACTION_TYPE_DISPUTE_REVERSAL", "TRANSACTION_TYPE_DISPUTE", "TRANSACTION_TYPE_REFUND", "TRANSACTION_TYPE_TOP_UP"], types);
        using var http = new HttpClient();
        var metrics = await http.GetStringAsync(new Uri(server.MetricsAddress, "metrics"), Cancellation);
        Assert.Contains("""tensormesh_payment_events_total{type="charge.refunded",effect="Refunded"}""", metrics, StringComparison.Ordinal);
        Assert.Contains("tensormesh_payment_mismatches ", metrics, StringComparison.Ordinal);
        Assert.DoesNotContain(payment, metrics, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Events_lost_repeated_delayed_and_reordered_leave_each_payment_credited_once()
    {
        var opened = await Task.WhenAll(Enumerable.Range(0, 4).Select(_ => server.OpenAsync("pm_card_authenticationRequired")));
        Webhooks.Plan = number => (FakeStripeDelivery)(number % 5);
        try
        {
            await Task.WhenAll(opened.SelectMany(one => Enumerable.Range(0, 20).Select(async i =>
            {
                var asked = (await one.Customer.TopUpAsync("3", one.Card, $"chaos-{i}")).Ok();
                server.Stripe.Books.Authenticate(asked.GetProperty("stripePaymentIntentId").GetString()!, agrees: true);
            })));
            await Webhooks.DrainAsync();
        }
        finally
        {
            Webhooks.Plan = _ => FakeStripeDelivery.Normal;
        }

        // A fifth was lost: another server's first comparison finds those.
        await server.Web.StartAnotherAsync(server.Settings());
        await Eventually.SeeAsync(
            async () => await Task.WhenAll(opened.Select(one => server.BalanceAsync(one.Account))),
            balances => balances.All(balance => balance == Money.FromUnits(60)), balances => string.Join(' ', balances));
    }

    [Fact]
    public async Task A_body_of_ten_megabytes_is_refused_without_being_read()
    {
        const int Megabytes = 10;
        using var socket = new TcpClient();
        await socket.ConnectAsync(server.Address.Host, server.Address.Port, Cancellation);
        var stream = socket.GetStream();
        // In chunks, so that its size is not known beforehand.
        await stream.WriteAsync(Encoding.ASCII.GetBytes(
            $"POST {StripeWebhooks.Path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nStripe-Signature: t=1,v1=00\r\nTransfer-Encoding: chunked\r\n\r\n"), Cancellation);
        var chunk = Encoding.ASCII.GetBytes($"10000\r\n{new string('x', 65536)}\r\n");
        var sent = 0;
        var answered = new byte[4096];
        var answer = stream.ReadAsync(answered, Cancellation).AsTask();
        try
        {
            while (sent < Megabytes * 1024 * 1024 && !answer.IsCompleted)
            {
                await stream.WriteAsync(chunk, Cancellation);
                sent += 65536;
                await Task.Delay(5, Cancellation);
            }
        }
        catch (IOException)
        {
            // The server has closed it.
        }

        Assert.StartsWith("HTTP/1.1 413", Encoding.ASCII.GetString(answered, 0, await answer), StringComparison.Ordinal);
        Assert.True(sent < 4 * 1024 * 1024, $"{sent} bytes were taken");
        (await server.Web.WithToken(null, server.Host).PostAsync(StripeWebhooks.Path, new string('x', StripeWebhooks.LargestEventBytes + 1)))
            .Problem(HttpStatusCode.RequestEntityTooLarge, "body-too-large");
    }

    [Fact]
    public async Task The_sandbox_has_no_webhooks()
        => (await server.Web.As("acme").PostAsync(StripeWebhooks.Path, "{}")).Problem(HttpStatusCode.NotFound, "no-such-route");

    private JsonObject About(string objectId, string type) => Webhooks.Events.Last(one =>
        (string)one["type"]! == type && (string)one["data"]!["object"]!["id"]! == objectId);
}
