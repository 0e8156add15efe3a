using System.Diagnostics;
using System.Net;
using System.Security.Cryptography;
using Tensormesh.Integration.Tests.Billing;
using Tensormesh.TestKit;

namespace Tensormesh.Integration.Tests.Web;

/// <summary>Tokens of an identity provider, whose keys the server finds by itself: as a process of its own, which trusts the provider's authority.</summary>
public sealed class SignInTests(PostgresFixture postgres) : BillingTest(postgres)
{
    private readonly string directory = Directory.CreateTempSubdirectory("tensormesh-sign-in-").FullName;
    private FakeIdentityProvider provider = null!;
    private Process web = null!;
    private Uri address = null!;

    public override async ValueTask InitializeAsync()
    {
        await base.InitializeAsync();
        await OpenAsync(Acme, "7.00");
        provider = await FakeIdentityProvider.StartAsync(TimeProvider.System);
        await File.WriteAllTextAsync(Path.Combine(directory, "ca.pem"), provider.AuthorityCertificate, Cancellation);
        address = new Uri($"http://127.0.0.1:{FreePorts.Take(1)[0]}/");
        web = await ProcessLauncher.StartAsync(Path.Combine(directory, "log"), "env",
        [
            $"SSL_CERT_FILE={Path.Combine(directory, "ca.pem")}", "dotnet", Repository.Executable("Tensormesh.Web", "tensormesh-web"),
            $"--ConnectionStrings:Billing={Database.ConnectionString}", $"--Tensormesh:Authority={provider.Issuer}", "--Tensormesh:Audience=billing",
            "--Tensormesh:Payments:Provider=Sandbox", $"--Tensormesh:Urls={address}",
        ]);
        using var http = new HttpClient();
        await Eventually.SeeAsync(async () =>
        {
            Assert.False(web.HasExited, "it ended");
            try
            {
                return (await http.GetAsync(new Uri(address, "healthz"), Cancellation)).IsSuccessStatusCode;
            }
            catch (HttpRequestException)
            {
                return false;
            }
        }, up => up, _ => File.ReadAllText(Path.Combine(directory, "log")));
    }

    public override async ValueTask DisposeAsync()
    {
        web.Kill();
        await web.WaitForExitAsync(CancellationToken.None);
        web.Dispose();
        await provider.DisposeAsync();
        Directory.Delete(directory, recursive: true);
        await base.DisposeAsync();
        GC.SuppressFinalize(this);
    }

    [Fact]
    public async Task A_token_of_the_provider_opens_its_account_also_after_the_keys_were_changed_and_no_other_does()
    {
        var before = provider.Sign(Claims());
        var answer = await Eventually.SeeAsync(() => GetAsync(before), seen => seen.Status == HttpStatusCode.OK, seen => seen.Text);
        Assert.Equal("7", answer.Ok().GetProperty("balance").GetProperty("units").GetString());

        using var another = RSA.Create(2048);
        var refused = new Dictionary<string, string>
        {
            ["of another issuer"] = provider.Sign(Claims(("iss", "https://elsewhere.example.com"))),
            ["for another audience"] = provider.Sign(Claims(("aud", "tensormesh"))),
            ["expired"] = provider.Sign(Claims(("exp", TimeProvider.System.GetUtcNow().AddMinutes(-5).ToUnixTimeSeconds()))),
            ["of another key under the name of the right one"] = FakeIdentityProvider.Sign(Claims(), provider.KeyId, another),
            ["signed with the public key as a secret"] = DevelopmentTokens.Sign(provider.PublicKeyPem, Claims()),
            ["of the development issuer"] = WebServer.Token(Acme.Value, "ADMIN"),
            ["unsigned"] = $"eyJhbGciOiJub25lIn0.{before.Split('.')[1]}.",
        };
        foreach (var (name, token) in refused)
        {
            var seen = await GetAsync(token);
            Assert.True(seen.Status == HttpStatusCode.Unauthorized, $"{name}: {(int)seen.Status} {seen.Text}");
            seen.Problem(HttpStatusCode.Unauthorized, "unauthenticated");
        }

        provider.Rotate();
        var after = provider.Sign(Claims());
        (await Eventually.SeeAsync(() => GetAsync(after), seen => seen.Status == HttpStatusCode.OK, seen => seen.Text)).Ok();
        (await GetAsync(before)).Problem(HttpStatusCode.Unauthorized, "unauthenticated");
    }

    [Fact]
    public async Task While_the_provider_cannot_be_asked_for_its_keys_that_is_said_and_not_that_the_token_is_wrong()
    {
        var token = provider.Sign(Claims());
        await provider.DisposeAsync();
        var answer = await GetAsync(token);
        Assert.Contains("identity provider", answer.Problem(HttpStatusCode.ServiceUnavailable, "sign-in-unavailable"), StringComparison.Ordinal);
        Assert.True(answer.Headers.RetryAfter!.Delta > TimeSpan.Zero);
    }

    private Dictionary<string, object> Claims(params (string Name, object Value)[] changes)
    {
        var claims = new Dictionary<string, object>
        {
            ["iss"] = provider.Issuer,
            ["aud"] = "billing",
            ["sub"] = "alice@example.com",
            ["account"] = Acme.Value,
            ["role"] = "USER",
            ["exp"] = TimeProvider.System.GetUtcNow().AddMinutes(5).ToUnixTimeSeconds(),
        };
        foreach (var (name, value) in changes) claims[name] = value;
        return claims;
    }

    private Task<Answer> GetAsync(string token) => new WebClient(address, token).GetAsync("/v1/billing/balance");
}
