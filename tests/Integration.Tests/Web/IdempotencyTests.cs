using System.Net;
using Microsoft.Extensions.DependencyInjection;
using Npgsql;

namespace Tensormesh.Integration.Tests.Web;

[Collection(WebSuite.Name)]
public sealed class IdempotencyTests(WebServer server)
{
    private const string Cards = "/v1/billing/stripe/customers/payment-methods";
    private const string AutoTopUp = "/v1/billing/auto-top-up";

    /// <summary>Two that read, and one whose events have keys of their own.</summary>
    private static readonly string[] NoWrites = ["POST /v1/admin/billing/balances", "POST /v1/admin/billing/spending/summary", "POST /v1/usage/events"];

    private readonly WebServer server = server;

    [Fact]
    public async Task Every_write_takes_a_key()
    {
        var document = await ApiDocument.ReadAsync(server);
        Assert.Empty(document.Operations.Where(each => each.Method != "GET" && !ApiDocument.Parameters(each.Operation, "header").Contains("Idempotency-Key"))
            .Select(each => $"{each.Method} {each.Path}").Except(NoWrites));
    }

    [Fact]
    public async Task The_same_key_has_the_same_answer_and_another_request_under_it_changes_nothing()
    {
        var customer = server.As(await server.OpenAccountAsync());
        var first = await SaveAsync("50");
        first.Ok();
        Assert.Equal("plan", first.Headers.GetValues("Idempotency-Key").Single());
        var again = await SaveAsync("50");
        Assert.Equal((HttpStatusCode.OK, "application/json", first.Text), (again.Status, again.MediaType, again.Text));
        (await SaveAsync("60")).Problem(HttpStatusCode.Conflict, "idempotency-key-reused");
        (await customer.SendAsync(HttpMethod.Delete, AutoTopUp, null, "plan")).Problem(HttpStatusCode.Conflict, "idempotency-key-reused");
        Assert.Equal("50", (await customer.GetAsync(AutoTopUp)).Ok().GetProperty("autoTopUp").GetProperty("threshold").GetProperty("units").GetString());

        // Another caller's key is another key, and blanks make no other request.
        (await server.As(await server.OpenAccountAsync()).SendAsync(HttpMethod.Delete, AutoTopUp, null, "plan")).Ok();
        Assert.Equal(first.Text, (await customer.SendAsync(HttpMethod.Put, AutoTopUp, Plan("50") + "  ", "plan")).Text);

        Task<Answer> SaveAsync(string threshold) => customer.SendAsync(HttpMethod.Put, AutoTopUp, Plan(threshold), "plan");
    }

    [Fact]
    public async Task A_card_is_attached_and_removed_once_under_a_key_and_another_card_under_it_is_a_conflict()
    {
        var customer = server.As(await server.OpenAccountAsync());
        (await customer.PostAsync(Cards, """{"stripePaymentMethodId":"pm_card_visa"}""", "card")).IsExactly("""{"empty":{}}""");
        (await customer.PostAsync(Cards, """{"stripePaymentMethodId":"pm_card_mastercard"}""", "card")).Problem(HttpStatusCode.Conflict, "idempotency-key-reused");
        Assert.Equal(1, (await customer.GetAsync(Cards)).Ok().GetProperty("paymentMethods").GetArrayLength());
        (await customer.SendAsync(HttpMethod.Delete, $"{Cards}/pm_card_visa", null, "gone")).IsExactly("""{"empty":{}}""");
        // Without its key, the second is told that there is no such card any more.
        (await customer.SendAsync(HttpMethod.Delete, $"{Cards}/pm_card_visa", null, "gone")).IsExactly("""{"empty":{}}""");
        (await customer.DeleteAsync($"{Cards}/pm_card_visa")).Problem(HttpStatusCode.NotFound, "payment-method-not-attached");
        (await customer.SendAsync(HttpMethod.Delete, $"{Cards}/pm_card_mastercard", null, "gone")).Problem(HttpStatusCode.Conflict, "idempotency-key-reused");
    }

    [Fact]
    public async Task A_refused_request_leaves_its_key_for_the_right_one()
    {
        var customer = server.As(await server.OpenAccountAsync());
        (await customer.SendAsync(HttpMethod.Put, AutoTopUp, Plan("0"), "plan")).Problem(HttpStatusCode.BadRequest, "invalid-field", "threshold");
        (await customer.SendAsync(HttpMethod.Put, AutoTopUp, Plan("50"), "plan")).Ok();
        (await customer.SendAsync(HttpMethod.Put, AutoTopUp, Plan("50"), "")).Problem(HttpStatusCode.BadRequest, "invalid-field", "Idempotency-Key");
    }

    [Fact]
    public async Task An_answer_is_remembered_for_a_day()
    {
        var customer = server.As(await server.OpenAccountAsync());
        (await customer.SendAsync(HttpMethod.Put, AutoTopUp, Plan("50"), "yesterday")).Ok();
        await using var age = server.Services.GetRequiredService<NpgsqlDataSource>().CreateCommand("update remembered_request set begun_at = begun_at - interval '25 hours'");
        await age.ExecuteNonQueryAsync(TestContext.Current.CancellationToken);
        (await customer.SendAsync(HttpMethod.Put, AutoTopUp, Plan("60"), "yesterday")).Ok();
        Assert.Equal("60", (await customer.GetAsync(AutoTopUp)).Ok().GetProperty("autoTopUp").GetProperty("threshold").GetProperty("units").GetString());
    }

    private static string Plan(string threshold)
    {
        static string Dollars(string units) => $$"""{"currencyCode":"USD","units":"{{units}}"}""";
        return $$"""{"threshold":{{Dollars(threshold)}},"amount":{{Dollars("100")}},"dailyCap":{{Dollars("300")}},"monthlyCap":{{Dollars("1000")}}}""";
    }
}
