using System.Net;
using System.Text.Json;

namespace Tensormesh.Integration.Tests.Web;

[Collection(WebSuite.Name)]
public sealed class AutoTopUpRouteTests(WebServer server)
{
    private const string Route = "/v1/billing/auto-top-up";
    private readonly WebServer server = server;

    [Fact]
    public async Task It_is_saved_shown_done_and_turned_off()
    {
        var account = await server.OpenAccountAsync();
        var customer = server.As(account);
        (await customer.GetAsync(Route)).IsExactly(
            """{"autoTopUp":{"state":"AUTO_TOP_UP_STATE_OFF","reason":"","chargedToday":{"currencyCode":"USD","units":"0","nanos":0},"chargedThisMonth":{"currencyCode":"USD","units":"0","nanos":0}}}""");
        var saved = (await SaveAsync(customer)).Ok().GetProperty("autoTopUp");
        Assert.Equal("AUTO_TOP_UP_STATE_CARD_MISSING", saved.GetProperty("state").GetString());
        Assert.Contains("Payment Methods", saved.GetProperty("reason").GetString(), StringComparison.Ordinal);
        Assert.Equal(("50", "100", "300", "1000"), (Units(saved, "threshold"), Units(saved, "amount"), Units(saved, "dailyCap"), Units(saved, "monthlyCap")));

        // The server itself charges the card once there is one.
        (await customer.AttachAsync("pm_card_visa")).Ok();
        var done = await Eventually.SeeAsync(
            async () => (await customer.GetAsync(Route)).Ok().GetProperty("autoTopUp"),
            now => now.GetProperty("state").GetString() == "AUTO_TOP_UP_STATE_WATCHING", now => now.GetRawText());
        Assert.Equal(("100", "100", "AUTO_TOP_UP_OUTCOME_SUCCEEDED"), (
            Units(done, "chargedToday"), Units(done, "chargedThisMonth"), done.GetProperty("lastAttempt").GetProperty("outcome").GetString()));
        Assert.Equal("100", (await customer.GetAsync("/v1/billing/balance")).Ok().GetProperty("balance").GetProperty("units").GetString());

        (await customer.DeleteAsync(Route)).IsExactly("""{"empty":{}}""");
        (await customer.DeleteAsync(Route)).IsExactly("""{"empty":{}}""");
        var off = (await customer.GetAsync(Route)).Ok().GetProperty("autoTopUp");
        Assert.Equal(("AUTO_TOP_UP_STATE_OFF", "100", false), (
            off.GetProperty("state").GetString(), Units(off, "chargedToday"), off.TryGetProperty("amount", out _)));
    }

    [Fact]
    public async Task A_declined_card_is_told_with_the_time_of_the_next_try()
    {
        var customer = server.As(await server.OpenAccountAsync());
        (await customer.AttachAsync("pm_card_chargeDeclinedInsufficientFunds")).Ok();
        (await SaveAsync(customer)).Ok();
        var waiting = await Eventually.SeeAsync(
            async () => (await customer.GetAsync(Route)).Ok().GetProperty("autoTopUp"),
            now => now.GetProperty("state").GetString() == "AUTO_TOP_UP_STATE_WAITING", now => now.GetRawText());
        Assert.StartsWith("The card has insufficient funds.", waiting.GetProperty("reason").GetString(), StringComparison.Ordinal);
        Assert.True(waiting.GetProperty("retryAt").GetDateTime() > TimeProvider.System.GetUtcNow().UtcDateTime);
        Assert.Equal("AUTO_TOP_UP_OUTCOME_DECLINED", waiting.GetProperty("lastAttempt").GetProperty("outcome").GetString());
    }

    [Theory]
    [InlineData("threshold", """null""", "threshold")]
    [InlineData("threshold", """{"currencyCode":"USD","units":"-50"}""", "threshold")]
    [InlineData("threshold", """{"currencyCode":"EUR","units":"50"}""", "threshold.currencyCode")]
    [InlineData("threshold", """{"currencyCode":"USD","units":"101"}""", "threshold")]
    [InlineData("amount", """{"currencyCode":"USD","units":"0"}""", "amount")]
    [InlineData("amount", """{"currencyCode":"USD","units":"100","nanos":1}""", "amount")]
    [InlineData("amount", """{"currencyCode":"USD","units":"100001"}""", "amount")]
    [InlineData("dailyCap", """{"currencyCode":"USD","units":"99"}""", "dailyCap")]
    [InlineData("monthlyCap", """{"currencyCode":"USD","units":"299"}""", "monthlyCap")]
    [InlineData("monthlyCap", """{"currencyCode":"USD","units":"99999999999"}""", "monthlyCap.units")]
    public async Task A_plan_that_is_wrong_is_refused_and_changes_nothing(string field, string json, string named)
    {
        var customer = server.As(await server.OpenAccountAsync());
        (await SaveAsync(customer, (field, json))).Problem(HttpStatusCode.BadRequest, "invalid-field", named);
        Assert.Equal("AUTO_TOP_UP_STATE_OFF", (await customer.GetAsync(Route)).Ok().GetProperty("autoTopUp").GetProperty("state").GetString());
    }

    [Fact]
    public async Task Another_account_is_refused_in_the_same_words_whether_or_not_it_exists()
    {
        var (customer, other) = (server.As(await server.OpenAccountAsync()), await server.OpenAccountAsync());
        foreach (var account in (string[])[other, "nobody-here"])
        {
            (await customer.GetAsync($"{Route}?userId={account}")).Problem(HttpStatusCode.Forbidden, "not-your-account", "userId");
            (await SaveAsync(customer, ("userId", $"\"{account}\""))).Problem(HttpStatusCode.Forbidden, "not-your-account", "userId");
            (await customer.DeleteAsync($"{Route}?userId={account}")).Problem(HttpStatusCode.Forbidden, "not-your-account", "userId");
        }

        var admin = server.As("nobody-here", "ADMIN");
        (await admin.GetAsync(Route)).Problem(HttpStatusCode.NotFound, "account-unknown");
        (await SaveAsync(admin)).Problem(HttpStatusCode.NotFound, "account-unknown");
        (await admin.DeleteAsync(Route)).Problem(HttpStatusCode.NotFound, "account-unknown");
        (await SaveAsync(admin, ("userId", $"\"{other}\""))).Ok();
    }

    private static string? Units(JsonElement json, string name) => json.GetProperty(name).GetProperty("units").GetString();

    private static Task<Answer> SaveAsync(WebClient client, (string Field, string Json)? change = null)
    {
        var fields = new Dictionary<string, string>
        {
            ["threshold"] = Dollars(50),
            ["amount"] = Dollars(100),
            ["dailyCap"] = Dollars(300),
            ["monthlyCap"] = Dollars(1000),
        };
        if (change is var (field, json)) fields[field] = json;
        return client.SendAsync(HttpMethod.Put, Route, $"{{{string.Join(",", fields.Select(each => $"\"{each.Key}\":{each.Value}"))}}}");

        static string Dollars(int units) => $$"""{"currencyCode":"USD","units":"{{units}}"}""";
    }
}
