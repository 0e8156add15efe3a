using System.Globalization;
using System.Net;
using System.Net.Http.Headers;
using System.Text;
using System.Text.Json;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting.Server;
using Microsoft.AspNetCore.Hosting.Server.Features;
using Microsoft.Extensions.DependencyInjection;
using Tensormesh.Billing;
using Tensormesh.TestKit;
using Tensormesh.Web;

namespace Tensormesh.Integration.Tests.Web;

[CollectionDefinition(Name)]
public sealed class WebSuite : ICollectionFixture<WebServer>
{
    public const string Name = "web";
}

/// <summary>The Web API on a free port, in front of a real Postgres of its own. Each test opens accounts of its own in it.</summary>
public class WebServer : IAsyncLifetime
{
    public const string SigningKey = "integration-tests-sign-with-this-key-only";

    private static int servers;

    private readonly List<WebApplication> extraHosts = [];
    private string directory = "";
    private int accounts;

    public PostgresServer Postgres { get; private set; } = null!;
    public WebApplication Host { get; private set; } = null!;
    public string Database { get; private set; } = "";

    public IServiceProvider Services => Host.Services;
    public Uri Address => AddressOf(Host);

    /// <summary>Of <see cref="Host"/>, besides those that every test needs.</summary>
    protected virtual IReadOnlyList<string> Settings => [];

    public virtual async ValueTask InitializeAsync()
    {
        // The same few names in each run: what a killed run left running is stopped by the next.
        directory = Path.Combine(AppContext.BaseDirectory, "postgres-web",
            Interlocked.Increment(ref servers).ToString(CultureInfo.InvariantCulture));
        Postgres = await PostgresServer.StartAsync(directory, CancellationToken.None);
        Database = await Postgres.CreateDatabaseAsync("billing", CancellationToken.None);
        Host = await StartAsync(["--Tensormesh:MigrateOnStart=true", .. Settings]);
    }

    public virtual async ValueTask DisposeAsync()
    {
        foreach (var host in extraHosts.Append(Host))
        {
            await host.StopAsync();
            await host.DisposeAsync();
        }

        await Postgres.DisposeAsync();
        if (Directory.Exists(directory)) Directory.Delete(directory, recursive: true);
        GC.SuppressFinalize(this);
    }

    /// <summary>One more server on the same database, with settings of its own.</summary>
    public async Task<WebApplication> StartAnotherAsync(params string[] settings)
    {
        var host = await StartAsync(settings);
        extraHosts.Add(host);
        return host;
    }

    /// <summary>An account that no other test uses, as the operator would declare it.</summary>
    public async Task<string> OpenAccountAsync()
    {
        var account = $"team-{Interlocked.Increment(ref accounts)}-{Guid.NewGuid().ToString("N")[..6]}";
        await Services.GetRequiredService<Accounts>().DeclareAsync(new AccountId(account), new AccountPolicy(account, null, null, "UTC"),
            CancellationToken.None);
        return account;
    }

    public WebClient As(string account, string role = "USER", WebApplication? host = null) => WithToken(Token(account, role), host);

    public WebClient WithToken(string? token, WebApplication? host = null) => new(AddressOf(host ?? Host), token);

    public static string Token(string account, string role) =>
        DevelopmentTokens.Issue(SigningKey, account, role, TimeProvider.System.GetUtcNow(), TimeSpan.FromMinutes(30));

    private async Task<WebApplication> StartAsync(params string[] settings)
    {
        var host = WebHost.Build(
        [
            $"--ConnectionStrings:Billing={Database}", $"--Tensormesh:DevelopmentSigningKey={SigningKey}",
                "--Tensormesh:Urls=http://127.0.0.1:0",
            "--Logging:LogLevel:Default=Error", .. settings,
        ]);
        await WebHost.PrepareAsync(host, CancellationToken.None);
        await host.StartAsync();
        return host;
    }

    private static Uri AddressOf(WebApplication host) =>
        new(host.Services.GetRequiredService<IServer>().Features.Get<IServerAddressesFeature>()!.Addresses.Single());
}

/// <summary>One caller of the API.</summary>
public sealed class WebClient(Uri server, string? token)
{
    private static readonly HttpClient Http = new() { Timeout = TimeSpan.FromSeconds(60) };

    public Task<Answer> GetAsync(string path) => SendAsync(HttpMethod.Get, path, null);

    public Task<Answer> DeleteAsync(string path) => SendAsync(HttpMethod.Delete, path, null);

    /// <param name="json">The body as it is to be sent, be it JSON or not.</param>
    public Task<Answer> PostAsync(string path, string? json, string? idempotencyKey = null) =>
        SendAsync(HttpMethod.Post, path, json, idempotencyKey);

    public async Task<Answer> SendAsync(HttpMethod method, string path, string? json, string? idempotencyKey = null,
        string contentType = "application/json")
    {
        using var request = new HttpRequestMessage(method, server + path.TrimStart('/'));
        if (token is not null) request.Headers.Authorization = new AuthenticationHeaderValue("Bearer", token);
        if (json is not null) request.Content = new StringContent(json, Encoding.UTF8, contentType);
        if (idempotencyKey is not null) request.Headers.TryAddWithoutValidation("Idempotency-Key", idempotencyKey);
        using var response = await Http.SendAsync(request);
        return new Answer(response.StatusCode, response.Content.Headers.ContentType?.MediaType ?? "",
            await response.Content.ReadAsStringAsync(), response.Headers);
    }

    public Task<Answer> AddBalanceAsync(string account, string units, string? idempotencyKey = null) => PostAsync(
        "/v1/admin/billing/balances:add",
        $$$"""{"targetUserId":"{{{account}}}","amount":{"currencyCode":"USD","units":"{{{units}}}","nanos":0}}""",
        idempotencyKey);

    public Task<Answer> AttachAsync(string paymentMethodId) =>
        PostAsync("/v1/billing/stripe/customers/payment-methods", $$"""{"stripePaymentMethodId":"{{paymentMethodId}}"}""");

    public Task<Answer> TopUpAsync(string units, string? paymentMethodId = null, string? idempotencyKey = null) => PostAsync(
        "/v1/billing/stripe/payment-intents",
        paymentMethodId is null
            ? $$$"""{"amount":{"currencyCode":"USD","units":"{{{units}}}"}}"""
            : $$$"""{"amount":{"currencyCode":"USD","units":"{{{units}}}"},"stripePaymentMethodId":"{{{paymentMethodId}}}"}""",
        idempotencyKey);
}

/// <summary>An answer, with the assertions that every test makes on one.</summary>
public sealed record Answer(HttpStatusCode Status, string MediaType, string Text, HttpResponseHeaders Headers)
{
    public JsonElement Json => JsonElement.Parse(Text);

    public JsonElement Ok()
    {
        Assert.True(Status == HttpStatusCode.OK, $"{(int)Status}: {Text}");
        Assert.Equal("application/json", MediaType);
        return Json;
    }

    public void IsExactly(string json)
    {
        Ok();
        Assert.Equal(json, Text);
    }

    /// <summary>Checks that this is a complete RFC 9457 problem of this kind.</summary>
    /// <returns>Its detail.</returns>
    public string Problem(HttpStatusCode status, string kind, string? field = null)
    {
        Assert.True(Status == status, $"expected {(int)status}, got {(int)Status}: {Text}");
        Assert.Equal("application/problem+json", MediaType);
        var problem = Json;
        Assert.Equal($"urn:tensormesh:problem:{kind}", problem.GetProperty("type").GetString());
        Assert.Equal((int)status, problem.GetProperty("status").GetInt32());
        Assert.NotEqual("", problem.GetProperty("title").GetString());
        Assert.StartsWith("/", problem.GetProperty("instance").GetString(), StringComparison.Ordinal);
        Assert.Matches("^[0-9a-f]{32}$", problem.GetProperty("traceId").GetString());
        Assert.Equal(field, problem.TryGetProperty("field", out var named) ? named.GetString() : null);
        var detail = problem.GetProperty("detail").GetString()!;
        Assert.NotEqual("", detail);
        Assert.DoesNotContain("Tensormesh.", detail, StringComparison.Ordinal);
        Assert.DoesNotContain("Exception", detail, StringComparison.Ordinal);
        return detail;
    }
}
