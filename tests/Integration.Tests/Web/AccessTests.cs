using System.Buffers.Text;
using System.Net;
using Microsoft.AspNetCore.Routing;
using Microsoft.Extensions.Configuration;
using Microsoft.Extensions.DependencyInjection;
using Tensormesh.TestKit;
using Tensormesh.Web;

namespace Tensormesh.Integration.Tests.Web;

[Collection(WebSuite.Name)]
public sealed class AccessTests(WebServer server)
{
    private static readonly string[] Open = ["/healthz", "/readyz", "/openapi/v1.json"];

    [Fact]
    public async Task Nothing_but_health_readiness_and_the_document_answers_without_a_token()
    {
        var routes = server.Services.GetRequiredService<EndpointDataSource>().Endpoints.OfType<RouteEndpoint>()
            .SelectMany(endpoint => endpoint.Metadata.GetRequiredMetadata<HttpMethodMetadata>().HttpMethods, (endpoint, method) =>
                (Method: method, Pattern: endpoint.RoutePattern.RawText!))
            .ToArray();
        Assert.True(routes.Length >= 15, $"only {routes.Length} routes");
        Assert.All(Open, path => Assert.Contains(("GET", path), routes));

        var stranger = server.WithToken(null);
        foreach (var (method, pattern) in routes.Where(route => !Open.Contains(route.Pattern)))
        {
            var path = string.Join('/', pattern.Split('/').Select(part =>
                part.StartsWith('{') ? "x" + part[(part.IndexOf('}', StringComparison.Ordinal) + 1)..] : part));
            var answer = await stranger.SendAsync(new HttpMethod(method), path, method is "POST" or "PUT" ? "{}" : null);
            answer.Problem(HttpStatusCode.Unauthorized, "unauthenticated");
            Assert.Equal("Bearer", answer.Headers.WwwAuthenticate.Single().Scheme);
        }

        (await stranger.GetAsync("/no/such/route")).Problem(HttpStatusCode.Unauthorized, "unauthenticated");
        (await stranger.GetAsync("/metrics")).Problem(HttpStatusCode.Unauthorized, "unauthenticated");
        (await stranger.SendAsync(HttpMethod.Put, "/v1/billing/balance", "{}")).Problem(HttpStatusCode.Unauthorized, "unauthenticated");
    }

    [Fact]
    public async Task Health_and_readiness_answer_to_anyone()
    {
        var stranger = server.WithToken(null);
        (await stranger.GetAsync("/healthz")).IsExactly("""{"status":"ok"}""");
        (await stranger.GetAsync("/readyz")).IsExactly("""{"status":"ready"}""");
    }

    public static TheoryData<string> BadTokens => [.. Forgeries().Select(forgery => forgery.Name)];

    [Theory]
    [MemberData(nameof(BadTokens))]
    public async Task A_token_that_is_not_ours_or_not_whole_is_refused(string name)
    {
        var account = await server.OpenAccountAsync();
        var token = Forgeries().Single(forgery => forgery.Name == name).Make(account);
        var answer = await server.WithToken(token).GetAsync("/v1/billing/balance");
        var detail = answer.Problem(HttpStatusCode.Unauthorized, "unauthenticated");
        Assert.DoesNotContain("IDX", detail, StringComparison.Ordinal);
        Assert.DoesNotContain(token, answer.Text, StringComparison.Ordinal);
        Assert.Equal("error=\"invalid_token\"", answer.Headers.WwwAuthenticate.Single().Parameter);
    }

    private static IEnumerable<(string Name, Func<string, string> Make)> Forgeries()
    {
        var now = TimeProvider.System.GetUtcNow();
        Dictionary<string, object> Claims(string account) => new()
        {
            ["iss"] = DevelopmentTokens.Issuer,
            ["aud"] = DevelopmentTokens.Audience,
            ["sub"] = account,
            ["role"] = "USER",
            ["exp"] = now.AddMinutes(5).ToUnixTimeSeconds(),
        };
        Func<string, string> With(Action<Dictionary<string, object>> change, string key = WebServer.SigningKey) => account =>
        {
            var claims = Claims(account);
            change(claims);
            return DevelopmentTokens.Sign(key, claims);
        };

        yield return ("expired", With(claims => claims["exp"] = now.AddMinutes(-5).ToUnixTimeSeconds()));
        yield return ("never expiring", With(claims => claims.Remove("exp")));
        yield return ("not valid yet", With(claims => claims["nbf"] = now.AddMinutes(5).ToUnixTimeSeconds()));
        yield return ("signed with another key", With(_ => { }, "another-key-of-thirty-two-bytes-or-more"));
        yield return ("of another issuer", With(claims => claims["iss"] = "someone-else"));
        yield return ("for another audience", With(claims => claims["aud"] = "elsewhere"));
        yield return ("without a subject", With(claims => claims.Remove("sub")));
        yield return ("with an empty subject", With(claims => claims["sub"] = ""));
        yield return ("with a control character in the subject", With(claims => claims["sub"] = "a\0b"));
        yield return ("without a role", With(claims => claims.Remove("role")));
        yield return ("with an unknown role", With(claims => claims["role"] = "ROOT"));
        yield return ("with two roles", With(claims => claims["role"] = new[] { "USER", "ADMIN" }));
        yield return ("unsigned", account =>
        {
            var whole = With(_ => { })(account).Split('.');
            return $"{Base64Url.EncodeToString("""{"alg":"none"}"""u8)}.{whole[1]}.";
        }
        );
        yield return ("with the claims changed after signing", account =>
        {
            var (mine, other) = (With(_ => { })(account).Split('.'), With(claims => claims["role"] = "SUPER_ADMIN")(account).Split('.'));
            return $"{mine[0]}.{other[1]}.{mine[2]}";
        }
        );
        yield return ("no token at all", _ => "rubbish");
    }

    [Theory]
    [InlineData("GET", "/v1/billing/balance?userId={0}", null)]
    [InlineData("GET", "/v1/billing/transactions?userId={0}", null)]
    [InlineData("GET", "/v1/billing/spending/summary?userId={0}", null)]
    [InlineData("GET", "/v1/billing/spending/history?userId={0}", null)]
    [InlineData("GET", "/v1/billing/overview?userId={0}", null)]
    [InlineData("GET", "/v1/billing/stripe/customers?userId={0}", null)]
    [InlineData("GET", "/v1/billing/stripe/customers/payment-methods?userId={0}", null)]
    [InlineData("DELETE", "/v1/billing/stripe/customers/payment-methods/pm_card_visa?userId={0}", null)]
    [InlineData("POST", "/v1/billing/stripe/customers/payment-methods/pm_card_visa:default?userId={0}", null)]
    [InlineData("POST", "/v1/billing/stripe/customers/payment-methods", """{{"userId":"{0}","stripePaymentMethodId":"pm_card_visa"}}""")]
    [InlineData("POST", "/v1/billing/stripe/payment-intents", """{{"userId":"{0}","amount":{{"currencyCode":"USD","units":"5"}}}}""")]
    public async Task A_user_may_not_name_another_account_and_an_administrator_may(string method, string path, string? body)
    {
        var (mine, theirs) = (await server.OpenAccountAsync(), await server.OpenAccountAsync());
        var user = server.As(mine);
        Task<Answer> Ask(WebClient client, string account) => client.SendAsync(new HttpMethod(method), Format(path, account),
            body is null ? null : Format(body, account));

        var refused = await Ask(user, theirs);
        refused.Problem(HttpStatusCode.Forbidden, "not-your-account", "userId");
        var alsoRefused = await Ask(user, "nobody");
        alsoRefused.Problem(HttpStatusCode.Forbidden, "not-your-account", "userId");
        Assert.NotEqual(HttpStatusCode.Forbidden, (await Ask(user, mine)).Status);
        Assert.NotEqual(HttpStatusCode.Forbidden, (await Ask(server.As("ops", "ADMIN"), theirs)).Status);
        Assert.NotEqual(HttpStatusCode.Forbidden, (await Ask(server.As("ops", "SUPER_ADMIN"), theirs)).Status);
        (await Ask(server.As("ops", "ADMIN"), "nobody")).Problem(HttpStatusCode.NotFound, "account-unknown");
    }

    [Theory]
    [InlineData("/v1/admin/billing/balances")]
    [InlineData("/v1/admin/billing/balances:add")]
    [InlineData("/v1/admin/billing/spending/summary")]
    public async Task Admin_routes_refuse_users(string path)
    {
        var account = await server.OpenAccountAsync();
        (await server.As(account).PostAsync(path, "{}")).Problem(HttpStatusCode.Forbidden, "admins-only");
        Assert.Equal(HttpStatusCode.BadRequest, (await server.As(account, "ADMIN").PostAsync(path, "{}")).Status);
        Assert.Equal(HttpStatusCode.BadRequest, (await server.As(account, "SUPER_ADMIN").PostAsync(path, "{}")).Status);
    }

    [Theory]
    [InlineData("USER")]
    [InlineData("ADMIN")]
    [InlineData("SUPER_ADMIN")]
    public async Task The_profile_says_who_the_token_is(string role) =>
        (await server.As("acme", role).GetAsync("/auth/profile")).IsExactly($$$"""{"user":{"id":"acme","userRole":"USER_ROLE_{{{role}}}","accountRole":"ACCOUNT_ROLE_OWNER"}}""");

    [Fact]
    public async Task The_token_command_prints_a_token_that_the_server_takes()
    {
        var token = TokenCommand.Run(
            ["--account", "acme", "--role", "ADMIN", "--lifetime", "8h", $"--Tensormesh:DevelopmentSigningKey={WebServer.SigningKey}"],
                TimeProvider.System);
        (await server.WithToken(token).GetAsync("/auth/profile")).IsExactly("""{"user":{"id":"acme","userRole":"USER_ROLE_ADMIN","accountRole":"ACCOUNT_ROLE_OWNER"}}""");
    }

    [Theory]
    [InlineData("--account", "--role", "USER")]
    [InlineData("--role", "USER")]
    [InlineData("--account")]
    [InlineData("--account", "acme", "--lifetme", "8h")]
    [InlineData("--account", "acme", "--role", "ROOT")]
    [InlineData("--account", "acme", "--lifetime", "forever")]
    [InlineData("--account", "acme", "--lifetime", "31d")]
    [InlineData("--account", "acme", "--lifetime", "0h")]
    public void The_token_command_says_what_is_wrong_with_its_arguments(params string[] args) =>
        Assert.Contains("usage:", Assert.Throws<SettingsException>(() =>
            TokenCommand.Run([.. args, $"--Tensormesh:DevelopmentSigningKey={WebServer.SigningKey}"], TimeProvider.System)).Message,
                StringComparison.Ordinal);

    [Theory]
    [InlineData("nobody could sign in", "")]
    [InlineData("both", "Tensormesh:DevelopmentSigningKey=0123456789012345678901234567890123456789;Tensormesh:Authority=https://id.example.com")]
    [InlineData("8 bytes", "Tensormesh:DevelopmentSigningKey=tooshort")]
    [InlineData("https://", "Tensormesh:Authority=http://id.example.com")]
    [InlineData("Provider is not set", "Tensormesh:Authority=https://id.example.com")]
    [InlineData("MetricsUrl", "Tensormesh:Authority=https://id.example.com;Tensormesh:MetricsUrl=9464")]
    [InlineData("MigrateOnStart", "Tensormesh:Authority=https://id.example.com;Tensormesh:MigrateOnStart=perhaps")]
    [InlineData("RequestBurst", "Tensormesh:Authority=https://id.example.com;Tensormesh:RequestBurst=-1")]
    public void A_wrong_setting_stops_the_start_and_says_which(string expected, string settings)
    {
        var configuration = new ConfigurationBuilder().AddInMemoryCollection(
            settings.Split(';', StringSplitOptions.RemoveEmptyEntries).Select(setting => setting.Split('=', 2)).Select(pair =>
                KeyValuePair.Create(pair[0], (string?)pair[1]))
                .Append(KeyValuePair.Create("ConnectionStrings:Billing", (string?)"Host=db"))).Build();
        Assert.Contains(expected, Assert.Throws<SettingsException>(() => WebSettings.Read(configuration)).Message,
            StringComparison.Ordinal);
    }

    [Fact]
    public void Without_a_database_the_start_says_which_setting_is_missing() =>
        Assert.Contains("ConnectionStrings__Billing",
            Assert.Throws<SettingsException>(() => WebSettings.Read(new ConfigurationBuilder().Build())).Message, StringComparison.Ordinal);

    [Fact]
    public async Task A_caller_beyond_the_limit_is_told_when_to_come_back_and_others_are_not_held_up()
    {
        var host = await server.StartAnotherAsync("--Tensormesh:RequestsPerSecond=1", "--Tensormesh:RequestBurst=3");
        var (eager, patient) = (server.As("eager", host: host), server.As("patient", host: host));
        var answers = await Task.WhenAll(Enumerable.Range(0, 12).Select(_ => eager.GetAsync("/auth/profile")));
        var refused = answers.Where(answer => answer.Status != HttpStatusCode.OK).ToArray();
        Assert.InRange(refused.Length, 6, 9);
        Assert.All(refused, answer =>
        {
            answer.Problem(HttpStatusCode.TooManyRequests, "too-many-requests");
            Assert.InRange(answer.Headers.RetryAfter!.Delta!.Value.TotalSeconds, 1, 60);
        });
        (await patient.GetAsync("/auth/profile")).Ok();
        Assert.All(await Task.WhenAll(Enumerable.Range(0, 10).Select(_ => eager.GetAsync("/healthz"))), answer => answer.Ok());
    }

    private static string Format(string template, string account) =>
        string.Format(System.Globalization.CultureInfo.InvariantCulture, template, account);
}
