using System.Net;

namespace Tensormesh.Integration.Tests.Web;

[Collection(WebSuite.Name)]
public sealed class ProblemTests(WebServer server)
{
    private const string Add = "/v1/admin/billing/balances:add";
    private readonly WebServer server = server;

    [Fact]
    public async Task An_unknown_route_is_a_problem() =>
        Assert.Contains("GET /v1/nothing",
            (await server.As("acme").GetAsync("/v1/nothing")).Problem(HttpStatusCode.NotFound, "no-such-route"), StringComparison.Ordinal);

    [Fact]
    public async Task Another_method_is_a_problem_that_names_the_right_one()
    {
        var answer = await server.As("acme").SendAsync(HttpMethod.Put, "/v1/billing/balance", "{}");
        Assert.Contains("GET", answer.Problem(HttpStatusCode.MethodNotAllowed, "method-not-allowed"), StringComparison.Ordinal);
    }

    [Fact]
    public async Task Another_media_type_is_a_problem() =>
        (await server.As("ops", "ADMIN").SendAsync(HttpMethod.Post, Add, "a=b", contentType: "application/x-www-form-urlencoded"))
            .Problem(HttpStatusCode.UnsupportedMediaType, "unsupported-media-type");

    [Fact]
    public async Task A_body_that_is_too_large_is_a_problem() =>
        (await server.As("ops", "ADMIN").PostAsync(Add, $$"""{"reason":"{{new string('x', 70_000)}}"}""")).Problem(HttpStatusCode.RequestEntityTooLarge, "body-too-large");

    [Theory]
    [InlineData(null, null)]
    [InlineData("", null)]
    [InlineData("null", null)]
    [InlineData("[]", null)]
    [InlineData("{", null)]
    [InlineData("""{"targetUserId":"a","amount":{"units":"1"}""", null)]
    [InlineData("""{"targetUserId":7}""", "targetUserId")]
    [InlineData("""{"amount":"12"}""", "amount")]
    [InlineData("""{"amount":{"units":"twelve"}}""", "amount.units")]
    [InlineData("""{"amount":{"units":"99999999999999999999"}}""", "amount.units")]
    [InlineData("""{"amount":{"units":1.5}}""", "amount.units")]
    [InlineData("""{"amount":{"units":"1","nanos":"x"}}""", "amount.nanos")]
    [InlineData("""{"amount":{"units":"1","nanos":99999999999}}""", "amount.nanos")]
    [InlineData("""{"amount":{"units":"1","currencyCode":5}}""", "amount.currencyCode")]
    public async Task A_body_that_cannot_be_read_is_a_problem_that_names_the_field(string? body, string? field) =>
        (await server.As("ops", "ADMIN").PostAsync(Add, body)).Problem(HttpStatusCode.BadRequest, "malformed-body", field);

    [Fact]
    public async Task A_field_given_twice_is_refused_because_it_has_two_meanings()
    {
        var account = await server.OpenAccountAsync();
        var answer = await server.As("ops", "ADMIN").PostAsync(Add,
            $$$"""{"targetUserId":"{{{account}}}","amount":{"currencyCode":"USD","units":"1"},"amount":{"currencyCode":"USD","units":"1000"}}""");
        Assert.Equal(HttpStatusCode.BadRequest, answer.Status);
        Assert.Contains("twice", answer.Json.GetProperty("detail").GetString(), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("""{"amount":{"currencyCode":"USD","units":"1"}}""", "targetUserId")]
    [InlineData("""{"targetUserId":"{0}"}""", "amount")]
    [InlineData("""{"targetUserId":"{0}","amount":null}""", "amount")]
    [InlineData("""{"targetUserId":"{0}","amount":{"units":"1"}}""", "amount.currencyCode")]
    [InlineData("""{"targetUserId":"{0}","amount":{"currencyCode":"EUR","units":"1"}}""", "amount.currencyCode")]
    [InlineData("""{"targetUserId":"{0}","amount":{"currencyCode":"usd","units":"1"}}""", "amount.currencyCode")]
    [InlineData("""{"targetUserId":"{0}","amount":{"currencyCode":"USD","units":"1","nanos":1000000000}}""", "amount.nanos")]
    [InlineData("""{"targetUserId":"{0}","amount":{"currencyCode":"USD","units":"1","nanos":-1000000000}}""", "amount.nanos")]
    [InlineData("""{"targetUserId":"{0}","amount":{"currencyCode":"USD","units":"1","nanos":-1}}""", "amount.nanos")]
    [InlineData("""{"targetUserId":"{0}","amount":{"currencyCode":"USD","units":"-1","nanos":1}}""", "amount.nanos")]
    [InlineData("""{"targetUserId":"{0}","amount":{"currencyCode":"USD","units":"9223372037"}}""", "amount.units")]
    [InlineData("""{"targetUserId":"{0}","amount":{"currencyCode":"USD","units":"9223372036854775807"}}""", "amount.units")]
    [InlineData("""{"targetUserId":"{0}","amount":{"currencyCode":"USD","units":"0"}}""", "amount")]
    [InlineData("""{"targetUserId":"{0}","amount":{"currencyCode":"USD"}}""", "amount")]
    [InlineData("""{"targetUserId":"{0}","amount":{"currencyCode":"USD","units":"1"},"reason":"two\nlines"}""", "reason")]
    public async Task An_amount_that_cannot_be_added_is_a_problem_that_names_the_field_and_adds_nothing(string body, string field)
    {
        var account = await server.OpenAccountAsync();
        var admin = server.As("ops", "ADMIN");
        (await admin.PostAsync(Add, body.Replace("{0}", account, StringComparison.Ordinal))).Problem(HttpStatusCode.BadRequest,
            "invalid-field", field);
        Assert.Equal(0, (await server.As(account).GetAsync("/v1/billing/transactions")).Ok().GetProperty("transactions").GetArrayLength());
    }

    [Theory]
    [InlineData("""{"units":"-5"}""")]
    [InlineData("""{"nanos":-1}""")]
    public async Task A_negative_amount_is_refused_and_the_problem_says_what_to_use_instead(string amount)
    {
        var account = await server.OpenAccountAsync();
        var body = $$"""{"targetUserId":"{{account}}","amount":{{amount.Replace("{", """{"currencyCode":"USD",""", StringComparison.Ordinal)}}}""";
        var detail = (await server.As("ops", "ADMIN").PostAsync(Add, body)).Problem(HttpStatusCode.BadRequest, "invalid-field", "amount");
        Assert.Contains("only adds", detail, StringComparison.Ordinal);
        Assert.Contains("balances:adjust", detail, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("")]
    [InlineData("two words")]
    [InlineData("tab\there")]
    [InlineData("201")]
    public async Task An_idempotency_key_of_the_wrong_form_is_a_problem(string key)
    {
        var account = await server.OpenAccountAsync();
        var sent = key == "201" ? new string('k', 201) : key;
        (await server.As("ops", "ADMIN").AddBalanceAsync(account, "1", sent)).Problem(HttpStatusCode.BadRequest, "invalid-field",
            "Idempotency-Key");
    }

    [Theory]
    [InlineData("rubbish")]
    [InlineData("AAAAAAAAAAAAAAAAAAAA")]
    [InlineData("%00")]
    [InlineData("-1")]
    public async Task A_page_token_that_is_not_ours_is_a_problem(string token)
    {
        var account = await server.OpenAccountAsync();
        (await server.As(account).GetAsync($"/v1/billing/transactions?pageToken={token}")).Problem(HttpStatusCode.BadRequest,
            "bad-page-token", "pageToken");
    }

    [Fact]
    public async Task A_page_token_of_another_account_is_a_problem()
    {
        var (mine, theirs) = (await server.OpenAccountAsync(), await server.OpenAccountAsync());
        var admin = server.As("ops", "ADMIN");
        for (var i = 0; i < 2; i++) (await admin.AddBalanceAsync(theirs, "1")).Ok();
        var token = (await server.As(theirs).GetAsync("/v1/billing/transactions?pageSize=1")).Ok().GetProperty("nextPageToken").GetString();
        Assert.NotEqual("", token);
        (await server.As(mine).GetAsync($"/v1/billing/transactions?pageToken={token}")).Problem(HttpStatusCode.BadRequest,
            "bad-page-token", "pageToken");
    }

    [Theory]
    [InlineData("/v1/billing/transactions?pageSize=-1", "pageSize")]
    [InlineData("/v1/billing/transactions?pageSize=ten", "pageSize")]
    [InlineData("/v1/billing/transactions?pageSize=99999999999", "pageSize")]
    [InlineData("/v1/billing/gpu-pricing?gpuType=H100", "gpuType")]
    [InlineData("/v1/billing/gpu-pricing?cloudProvider=AWS", "cloudProvider")]
    [InlineData("/v1/billing/gpu-pricing?activeOnly=maybe", "activeOnly")]
    public async Task A_wrong_query_parameter_is_a_problem_that_names_it(string path, string field)
    {
        var account = await server.OpenAccountAsync();
        (await server.As(account).GetAsync(path)).Problem(HttpStatusCode.BadRequest, "invalid-field", field);
    }

    [Theory]
    [InlineData("GET", "/v1/billing/balance")]
    [InlineData("GET", "/v1/billing/transactions")]
    [InlineData("GET", "/v1/billing/stripe/customers")]
    [InlineData("GET", "/v1/billing/stripe/customers/payment-methods")]
    [InlineData("DELETE", "/v1/billing/stripe/customers/payment-methods/pm_card_visa")]
    [InlineData("POST", "/v1/billing/stripe/customers/payment-methods/pm_card_visa:default")]
    public async Task A_caller_without_an_account_is_told_to_apply_one(string method, string path)
    {
        var detail = (await server.As("never-declared").SendAsync(new HttpMethod(method), path, null)).Problem(HttpStatusCode.NotFound,
            "account-unknown");
        Assert.Contains("BillingAccount", detail, StringComparison.Ordinal);
        Assert.Contains("never-declared", detail, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("Not-A-Name")]
    [InlineData("%00")]
    [InlineData("a%27%3B%20drop%20table")]
    public async Task A_name_that_no_account_can_have_is_unknown_not_an_error(string name) =>
        (await server.As("ops", "ADMIN").GetAsync($"/v1/billing/balance?userId={name}")).Problem(HttpStatusCode.NotFound,
            "account-unknown");

    [Fact]
    public async Task Unknown_fields_are_ignored()
    {
        var account = await server.OpenAccountAsync();
        (await server.As("ops", "ADMIN").PostAsync(Add,
            $$$"""{"userId":"ops","targetUserId":"{{{account}}}","amount":{"currencyCode":"USD","units":3,"nanos":5,"more":[1]},"later":{"x":null}}"""))
            .IsExactly("""{"balance":{"currencyCode":"USD","units":"3","nanos":5}}""");
    }
}
