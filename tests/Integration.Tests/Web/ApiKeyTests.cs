using System.Net;
using System.Text.Json;
using Microsoft.Extensions.DependencyInjection;
using Npgsql;
using Tensormesh.TestKit;
using Tensormesh.Web;

namespace Tensormesh.Integration.Tests.Web;

[Collection(WebSuite.Name)]
public sealed class ApiKeyTests(WebServer server)
{
    private const string Path = "/v1/users/api-keys";
    private const string Balance = "/v1/billing/balance";
    private const string AutoTopUp = "/v1/billing/auto-top-up";

    private readonly WebServer server = server;

    [Fact]
    public async Task A_key_is_shown_once_opens_what_it_is_for_and_nothing_once_it_is_deleted()
    {
        var account = await server.OpenAccountAsync();
        var owner = server.As(account);
        var made = (await owner.PostAsync(Path, """{"name":"ci","scopes":["billing:read"]}""")).Ok().GetProperty("apiKey");
        var (id, secret) = (made.GetProperty("id").GetString()!, made.GetProperty("key").GetString()!);
        Assert.Matches("^ak-[A-Za-z0-9_-]{43}$", secret);

        var machine = server.WithToken(secret);
        (await machine.GetAsync(Balance)).IsExactly("""{"balance":{"currencyCode":"USD","units":"0","nanos":0}}""");
        (await machine.GetAsync("/auth/profile")).IsExactly(
            $$$"""{"user":{"id":"{{{account}}}","userRole":"USER_ROLE_USER","accountRole":"ACCOUNT_ROLE_MEMBER"}}""");
        var listed = await owner.GetAsync(Path);
        Assert.Equal((id, "ci"), (listed.Ok().GetProperty("apiKeys")[0].GetProperty("id").GetString(), listed.Json.GetProperty("apiKeys")[0].GetProperty("name").GetString()));
        Assert.DoesNotContain(secret, listed.Text, StringComparison.Ordinal);
        Assert.False(await IsAnywhereAsync(secret), "the key itself is stored");

        (await owner.DeleteAsync($"{Path}/{id}")).IsExactly("""{"empty":{}}""");
        Assert.Contains("deleted", (await machine.GetAsync(Balance)).Problem(HttpStatusCode.Unauthorized, "unauthenticated"), StringComparison.Ordinal);
        (await owner.DeleteAsync($"{Path}/{id}")).IsExactly("""{"empty":{}}""");
        Assert.Equal(0, (await owner.GetAsync(Path)).Ok().GetProperty("apiKeys").GetArrayLength());
        var deleted = (await owner.GetAsync($"{Path}?includeDeleted=true")).Ok().GetProperty("apiKeys")[0];
        Assert.True(deleted.GetProperty("deletedAt").GetDateTime() >= deleted.GetProperty("createdAt").GetDateTime());
    }

    [Fact]
    public async Task A_scope_opens_its_own_routes_and_no_other()
    {
        var account = await server.OpenAccountAsync();
        var (reader, writer) = (await KeyAsync(account, "billing:read"), await KeyAsync(account, "billing:write"));
        Assert.Contains("billing:write", (await reader.AttachAsync("pm_card_visa")).Problem(HttpStatusCode.Forbidden, "scope-missing"), StringComparison.Ordinal);
        (await reader.TopUpAsync("5")).Problem(HttpStatusCode.Forbidden, "scope-missing");
        (await reader.DeleteAsync(AutoTopUp)).Problem(HttpStatusCode.Forbidden, "scope-missing");
        (await writer.AttachAsync("pm_card_visa")).Ok();
        (await writer.TopUpAsync("5")).Ok();
        Assert.Equal("5", (await writer.GetAsync(Balance)).Ok().GetProperty("balance").GetProperty("units").GetString());

        foreach (var key in new[] { reader, writer, await KeyAsync(account, "usage:write", "ADMIN") })
        {
            (await key.AddBalanceAsync(account, "1")).Problem(HttpStatusCode.Forbidden, "admins-only");
            (await key.GetAsync("/v1/admin/audit")).Problem(HttpStatusCode.Forbidden, "admins-only");
            (await key.GetAsync(Path)).Problem(HttpStatusCode.Forbidden, "scope-missing");
            (await key.PostAsync(Path, "{}")).Problem(HttpStatusCode.Forbidden, "scope-missing");
        }

        (await (await KeyAsync(account, "usage:write", "ADMIN")).GetAsync(Balance)).Problem(HttpStatusCode.Forbidden, "scope-missing");
        var other = await server.OpenAccountAsync();
        (await writer.GetAsync($"{Balance}?userId={other}")).Problem(HttpStatusCode.Forbidden, "not-your-account", "userId");
    }

    [Fact]
    public async Task A_member_reads_and_an_owner_changes()
    {
        var account = await server.OpenAccountAsync();
        var member = As(account, "bob", "MEMBER");
        (await member.GetAsync(Balance)).Ok();
        (await member.GetAsync("/v1/billing/statements")).Ok();
        (await member.AttachAsync("pm_card_visa")).Problem(HttpStatusCode.Forbidden, "owners-only");
        (await member.TopUpAsync("5")).Problem(HttpStatusCode.Forbidden, "owners-only");
        (await member.GetAsync(Path)).Problem(HttpStatusCode.Forbidden, "owners-only");
        (await member.PostAsync(Path, "{}")).Problem(HttpStatusCode.Forbidden, "owners-only");
        (await As(account, "alice", "OWNER").AttachAsync("pm_card_visa")).Ok();
        (await As(account, "alice", "CHIEF").GetAsync(Balance)).Problem(HttpStatusCode.Unauthorized, "unauthenticated");

        var printed = TokenCommand.Run(
            ["--account", account, "--subject", "bob", "--account-role", "MEMBER", $"--Tensormesh:DevelopmentSigningKey={WebServer.SigningKey}"], TimeProvider.System);
        (await server.WithToken(printed).GetAsync("/auth/profile")).IsExactly(
            $$$"""{"user":{"id":"{{{account}}}","userRole":"USER_ROLE_USER","accountRole":"ACCOUNT_ROLE_MEMBER"}}""");
    }

    [Fact]
    public async Task An_expired_key_an_unknown_one_and_half_of_one_open_nothing()
    {
        var account = await server.OpenAccountAsync();
        var soon = TimeProvider.System.GetUtcNow().AddSeconds(10);
        var expiring = (await server.As(account).PostAsync(Path, $$"""{"expiresAt":"{{soon:yyyy-MM-ddTHH:mm:ss.ffffff}}Z"}""")).Ok().GetProperty("apiKey").GetProperty("key").GetString()!;
        var late = await Eventually.SeeAsync(() => server.WithToken(expiring).GetAsync(Balance), answer => answer.Status != HttpStatusCode.OK, answer => answer.Text);
        Assert.Contains("expired", late.Problem(HttpStatusCode.Unauthorized, "unauthenticated"), StringComparison.Ordinal);
        Assert.True(TimeProvider.System.GetUtcNow() >= soon);
        foreach (var token in new[] { "ak-", expiring[..^1], expiring + "A", "ak-" + new string('A', 43), "ak-" + new string('!', 43) })
        {
            var answer = await server.WithToken(token).GetAsync(Balance);
            answer.Problem(HttpStatusCode.Unauthorized, "unauthenticated");
            Assert.True(token == "ak-" || !answer.Text.Contains(token, StringComparison.Ordinal), answer.Text);
            Assert.Equal("error=\"invalid_token\"", answer.Headers.WwwAuthenticate.Single().Parameter);
        }
    }

    [Fact]
    public async Task The_same_request_makes_one_key_and_another_under_its_key_is_a_conflict()
    {
        var (account, other) = (await server.OpenAccountAsync(), await server.OpenAccountAsync());
        var owner = server.As(account);
        const string body = """{"name":"ci","scopes":["billing:write","billing:read"]}""";
        var answers = await Task.WhenAll(Enumerable.Range(0, 6).Select(_ => owner.PostAsync(Path, body, "once")));
        Assert.Single(answers.Select(answer => answer.Ok().GetProperty("apiKey").GetProperty("id").GetString()).Distinct());
        Assert.Single(answers, answer => answer.Json.GetProperty("apiKey").TryGetProperty("key", out _));
        (await owner.PostAsync(Path, """{"name":"cd","scopes":["billing:write","billing:read"]}""", "once")).Problem(HttpStatusCode.Conflict, "idempotency-key-reused");
        var admin = server.As("ops-keys", "ADMIN");
        (await admin.PostAsync(Path, $$"""{"userId":"{{account}}"}""", "mine")).Ok();
        (await admin.PostAsync(Path, $$"""{"userId":"{{other}}"}""", "mine")).Problem(HttpStatusCode.Conflict, "idempotency-key-reused");
    }

    [Theory]
    [InlineData("""{"scopes":["billing:own"]}""", "scopes")]
    [InlineData("""{"scopes":["usage:write"]}""", "scopes")]
    [InlineData("""{"scopes":[null]}""", "scopes")]
    [InlineData("""{"name":"a\nb"}""", "name")]
    [InlineData("""{"expiresAt":"2020-01-01T00:00:00Z"}""", "expiresAt")]
    [InlineData("""{"expiresAt":"tomorrow"}""", "expiresAt")]
    public async Task A_request_that_is_wrong_makes_no_key(string body, string field)
    {
        var owner = server.As(await server.OpenAccountAsync());
        (await owner.PostAsync(Path, body)).Problem(HttpStatusCode.BadRequest, "invalid-field", field);
        Assert.Equal(0, (await owner.GetAsync($"{Path}?includeDeleted=true")).Ok().GetProperty("apiKeys").GetArrayLength());
    }

    [Fact]
    public async Task An_account_has_a_hundred_keys_at_most_and_none_of_another()
    {
        var owner = server.As(await server.OpenAccountAsync());
        var ids = (await Task.WhenAll(Enumerable.Range(0, 100).Select(_ => owner.PostAsync(Path, "{}"))))
            .Select(answer => answer.Ok().GetProperty("apiKey").GetProperty("id").GetString()!).ToArray();
        Assert.Contains("100", (await owner.PostAsync(Path, "{}")).Problem(HttpStatusCode.Conflict, "too-many-api-keys"), StringComparison.Ordinal);
        (await server.As(await server.OpenAccountAsync()).DeleteAsync($"{Path}/{ids[0]}")).Problem(HttpStatusCode.NotFound, "api-key-unknown");
        (await owner.DeleteAsync($"{Path}/{ids[0]}")).Ok();
        (await owner.PostAsync(Path, "{}")).Ok();
    }

    private WebClient As(string account, string subject, string accountRole) => server.WithToken(DevelopmentTokens.Sign(WebServer.SigningKey, new Dictionary<string, object>
    {
        ["iss"] = DevelopmentTokens.Issuer,
        ["aud"] = DevelopmentTokens.Audience,
        ["sub"] = subject,
        ["account"] = account,
        ["role"] = "USER",
        ["account_role"] = accountRole,
        ["exp"] = TimeProvider.System.GetUtcNow().AddMinutes(5).ToUnixTimeSeconds(),
    }));

    private async Task<WebClient> KeyAsync(string account, string scope, string role = "USER") => server.WithToken(
        (await server.As(role == "USER" ? account : "ops-keys", role).PostAsync(Path, $$"""{"userId":"{{account}}","scopes":["{{scope}}"]}"""))
            .Ok().GetProperty("apiKey").GetProperty("key").GetString());

    private async Task<bool> IsAnywhereAsync(string secret)
    {
        var database = server.Services.GetRequiredService<NpgsqlDataSource>();
        await using var find = database.CreateCommand(
            "select exists (select from api_key k where k::text like '%' || $1 || '%') or exists (select from audit_event a where a::text like '%' || $1 || '%')");
        find.Parameters.Add(new NpgsqlParameter<string> { TypedValue = secret });
        return (bool)(await find.ExecuteScalarAsync(TestContext.Current.CancellationToken))!;
    }
}
