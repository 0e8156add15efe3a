using System.Net;
using System.Text.Json;
using Microsoft.AspNetCore.Routing;
using Microsoft.Extensions.DependencyInjection;
using Npgsql;

namespace Tensormesh.Integration.Tests.Web;

[Collection(WebSuite.Name)]
public sealed class AuditTests(WebServer server)
{
    private const string Audit = "/v1/admin/audit";
    private const string Cards = "/v1/billing/stripe/customers/payment-methods";
    private const string Money = """{"currencyCode":"USD","units":"5"}""";

    private readonly WebServer server = server;

    /// <summary>Writes that leave nothing to be asked about later: two read, one begins a form, one is signed by the payment company, and of one each
    /// event is kept.</summary>
    private static readonly string[] NotAudited =
    [
        "POST /v1/admin/billing/balances", "POST /v1/admin/billing/spending/summary", "POST /v1/billing/stripe/setup-intents", "POST /v1/billing/stripe/webhooks",
        "POST /v1/usage/events",
    ];

    [Fact]
    public async Task Every_write_is_noted_with_who_did_it_and_a_refused_one_is_not()
    {
        var account = await server.OpenAccountAsync();
        var admin = server.As($"ops-{account}", "ADMIN");
        // In this order: each finds what the one before it made.
        var writes = new (string Route, string Path, string? Body, string Action)[]
        {
            ("POST /v1/admin/billing/balances:add", "/v1/admin/billing/balances:add", $$$"""{"targetUserId":"{{{account}}}","amount":{{{Money}}},"reason":"goodwill"}""", "BALANCE_ADDED"),
            ("POST /v1/admin/billing/balances:adjust", "/v1/admin/billing/balances:adjust",
                $$$"""{"targetUserId":"{{{account}}}","amount":{"currencyCode":"USD","units":"-1"},"reason":"typo"}""", "BALANCE_ADJUSTED"),
            ("POST /v1/admin/billing/transactions/{transactionId}:reverse", "/v1/admin/billing/transactions/{transaction}:reverse", """{"reason":"typo"}""", "TRANSACTION_REVERSED"),
            ($"POST {Cards}", Cards, $$"""{"userId":"{{account}}","stripePaymentMethodId":"pm_card_visa"}""", "CARD_ATTACHED"),
            ($"POST {Cards}/{{paymentMethodId}}:default", $"{Cards}/{{card}}:default?userId={account}", null, "CARD_MADE_DEFAULT"),
            ("POST /v1/billing/stripe/payment-intents", "/v1/billing/stripe/payment-intents", $$$"""{"userId":"{{{account}}}","amount":{{{Money}}}}""", "TOP_UP_ASKED"),
            ("PUT /v1/billing/auto-top-up", "/v1/billing/auto-top-up",
                $$$"""{"userId":"{{{account}}}","threshold":{{{Money}}},"amount":{{{Money}}},"dailyCap":{{{Money}}},"monthlyCap":{{{Money}}}}""", "AUTO_TOP_UP_SAVED"),
            ("DELETE /v1/billing/auto-top-up", $"/v1/billing/auto-top-up?userId={account}", null, "AUTO_TOP_UP_REMOVED"),
            ("PUT /v1/billing/address", "/v1/billing/address",
                $$$"""{"userId":"{{{account}}}","address":{"name":"Acme","line1":"Street 1","city":"Berlin","country":"DE"}}""", "BILLING_ADDRESS_SAVED"),
            ($"DELETE {Cards}/{{paymentMethodId}}", $"{Cards}/{{card}}?userId={account}", null, "CARD_DETACHED"),
            ("POST /v1/users/api-keys", "/v1/users/api-keys", $$"""{"userId":"{{account}}","name":"ci"}""", "API_KEY_CREATED"),
            ("DELETE /v1/users/api-keys/{apiKeyId}", $"/v1/users/api-keys/{{key}}?userId={account}", null, "API_KEY_DELETED"),
        };
        var routes = server.Services.GetRequiredService<EndpointDataSource>().Endpoints.OfType<RouteEndpoint>()
            .SelectMany(each => each.Metadata.GetRequiredMetadata<HttpMethodMetadata>().HttpMethods, (each, method) => $"{method} {each.RoutePattern.RawText!.TrimEnd('/')}")
            .Where(route => !route.StartsWith("GET ", StringComparison.Ordinal)).Except(NotAudited).Order().ToArray();
        Assert.Equal(routes, writes.Select(write => write.Route).Order());

        foreach (var (route, path, body, action) in writes)
        {
            var sent = path.Replace("{card}", await FirstAsync(Cards, "paymentMethods", "stripePaymentMethodId"), StringComparison.Ordinal)
                .Replace("{key}", await FirstAsync("/v1/users/api-keys", "apiKeys", "id"), StringComparison.Ordinal);
            if (sent.Contains("{transaction}", StringComparison.Ordinal))
            {
                sent = sent.Replace("{transaction}", await FirstAsync("/v1/billing/transactions", "transactions", "transactionId"), StringComparison.Ordinal);
            }

            (await admin.SendAsync(new HttpMethod(route.Split(' ')[0]), sent, body)).Ok();
            var told = (await EventsAsync(account))[0];
            Assert.Equal(($"AUDIT_ACTION_{action}", $"ops-{account}", "USER_ROLE_ADMIN", account), (
                told.GetProperty("action").GetString(), told.GetProperty("actor").GetString(), told.GetProperty("actorRole").GetString(),
                told.GetProperty("targetUserId").GetString()));
            Assert.Matches("^[0-9a-f]{32}$", told.GetProperty("traceId").GetString());
        }

        var all = await EventsAsync(account);
        Assert.Equal(writes.Length, all.Length);
        var grant = all[^1];
        Assert.Equal(("5.00", "goodwill"), (grant.GetProperty("details").GetProperty("amount").GetString(), grant.GetProperty("details").GetProperty("reason").GetString()));
        (await server.As(account).GetAsync($"/v1/billing/transactions/{grant.GetProperty("resource").GetString()}")).Ok();

        (await admin.PostAsync("/v1/admin/billing/balances:add", $$"""{"targetUserId":"{{account}}"}""")).Problem(HttpStatusCode.BadRequest, "invalid-field", "amount");
        (await server.As(account).AddBalanceAsync(account, "5")).Problem(HttpStatusCode.Forbidden, "admins-only");
        (await admin.DeleteAsync($"{Cards}/pm_nothing?userId={account}")).Problem(HttpStatusCode.NotFound, "payment-method-not-attached");
        (await admin.DeleteAsync($"/v1/billing/auto-top-up?userId={account}")).Ok();
        Assert.Equal(writes.Length, (await EventsAsync(account)).Length);

        async Task<string> FirstAsync(string path, string list, string member)
        {
            var rows = (await admin.GetAsync($"{path}?userId={account}")).Ok().GetProperty(list);
            return rows.GetArrayLength() == 0 ? "" : rows[0].GetProperty(member).GetString()!;
        }
    }

    [Fact]
    public async Task The_same_request_again_is_noted_once()
    {
        var account = await server.OpenAccountAsync();
        var admin = server.As("ops", "ADMIN");
        foreach (var _ in Enumerable.Range(0, 3)) (await admin.AddBalanceAsync(account, "7", $"again-{account}")).Ok();
        Assert.Single(await EventsAsync(account));
    }

    [Fact]
    public async Task Events_are_paged_newest_first_and_filtered()
    {
        var account = await server.OpenAccountAsync();
        var admin = server.As("ops", "ADMIN");
        foreach (var units in new[] { "1", "2", "3", "4", "5" }) (await admin.AddBalanceAsync(account, units)).Ok();
        (await server.As(account).AttachAsync("pm_card_visa")).Ok();
        var (seen, token) = (new List<string?>(), "");
        do
        {
            var page = (await admin.GetAsync($"{Audit}?targetUserId={account}&action=AUDIT_ACTION_BALANCE_ADDED&pageSize=2&pageToken={token}")).Ok();
            seen.AddRange(page.GetProperty("events").EnumerateArray().Select(told => told.GetProperty("details").GetProperty("amount").GetString()));
            token = page.GetProperty("nextPageToken").GetString()!;
        }
        while (token.Length > 0);
        Assert.Equal(["5.00", "4.00", "3.00", "2.00", "1.00"], seen);
        Assert.Single((await admin.GetAsync($"{Audit}?actor={account}")).Ok().GetProperty("events").EnumerateArray());
        var next = (await admin.GetAsync($"{Audit}?targetUserId={account}&pageSize=2")).Ok().GetProperty("nextPageToken").GetString();
        (await admin.GetAsync($"{Audit}?pageSize=2&pageToken={next}")).Problem(HttpStatusCode.BadRequest, "bad-page-token", "pageToken");
        (await admin.GetAsync($"{Audit}?action=NONE")).Problem(HttpStatusCode.BadRequest, "invalid-field", "action");
        (await server.As(account).GetAsync(Audit)).Problem(HttpStatusCode.Forbidden, "admins-only");
    }

    [Fact]
    public async Task No_event_is_ever_changed_or_removed()
    {
        (await server.As("ops", "ADMIN").AddBalanceAsync(await server.OpenAccountAsync(), "7")).Ok();
        var database = server.Services.GetRequiredService<NpgsqlDataSource>();
        foreach (var change in new[] { "update audit_event set actor = 'nobody'", "delete from audit_event", "truncate audit_event" })
        {
            await using var command = database.CreateCommand(change);
            await Assert.ThrowsAsync<PostgresException>(() => command.ExecuteNonQueryAsync(TestContext.Current.CancellationToken));
        }
    }

    private async Task<JsonElement[]> EventsAsync(string account) =>
        [.. (await server.As("reader", "ADMIN").GetAsync($"{Audit}?targetUserId={account}&pageSize=100")).Ok().GetProperty("events").EnumerateArray()];
}
