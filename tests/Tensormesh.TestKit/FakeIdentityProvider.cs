using System.Buffers.Text;
using System.Collections.Concurrent;
using System.Net;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using System.Text;
using System.Text.Json;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.Logging;

namespace Tensormesh.TestKit;

/// <summary>
/// An OpenID Connect provider as far as a server sees it that checks its tokens, or sends people to sign in: the discovery document, the keys and the
/// authorization code flow with PKCE, over TLS, under an authority of its own. Nobody is asked anything here: whatever claims are wanted are signed.
/// </summary>
public sealed class FakeIdentityProvider : IAsyncDisposable
{
    private readonly WebApplication host;
    private RSA key = RSA.Create(2048);
    private int generation = 1;
    private readonly ConcurrentDictionary<string, (string Challenge, string Nonce, string Client, string RedirectUri)> codes = new(StringComparer.Ordinal);

    private FakeIdentityProvider(WebApplication host, string authorityCertificate, byte[] certificate)
        => (this.host, AuthorityCertificate, Certificate) = (host, authorityCertificate, certificate);

    /// <summary>The issuer.</summary>
    public Uri Address { get; private set; } = null!;

    /// <summary>PEM: whoever trusts it trusts this provider.</summary>
    public string AuthorityCertificate { get; }

    /// <summary>PKCS #12 without a password: of this machine's loopback address, by that authority.</summary>
    public byte[] Certificate { get; }

    /// <summary>Claims of whoever is sent here to sign in, beside those that every token has.</summary>
    public IReadOnlyDictionary<string, object> Person { get; set; } = new Dictionary<string, object>();

    /// <summary>Sign-ins that were completed.</summary>
    public int SignIns { get; private set; }

    public static async Task<FakeIdentityProvider> StartAsync(TimeProvider time)
    {
        var now = time.GetUtcNow();
        using var authorityKey = RSA.Create(2048);
        var authorityRequest = new CertificateRequest("CN=fake identity provider's authority", authorityKey, HashAlgorithmName.SHA256, RSASignaturePadding.Pkcs1);
        authorityRequest.CertificateExtensions.Add(new X509BasicConstraintsExtension(true, false, 0, true));
        using var authority = authorityRequest.CreateSelfSigned(now.AddDays(-1), now.AddDays(30));
        using var serverKey = RSA.Create(2048);
        var serverRequest = new CertificateRequest("CN=fake identity provider", serverKey, HashAlgorithmName.SHA256, RSASignaturePadding.Pkcs1);
        var names = new SubjectAlternativeNameBuilder();
        names.AddIpAddress(IPAddress.Loopback);
        serverRequest.CertificateExtensions.Add(names.Build());
        using var signed = serverRequest.Create(authority, now.AddDays(-1), now.AddDays(29), RandomNumberGenerator.GetBytes(8));
        var certificate = signed.CopyWithPrivateKey(serverKey);

        var builder = WebApplication.CreateSlimBuilder();
        builder.Logging.ClearProviders();
        builder.WebHost.ConfigureKestrel(kestrel => kestrel.Listen(IPAddress.Loopback, 0, listen => listen.UseHttps(
            X509CertificateLoader.LoadPkcs12(certificate.Export(X509ContentType.Pkcs12), null))));
        builder.WebHost.UseKestrelHttpsConfiguration();
        var provider = new FakeIdentityProvider(builder.Build(), authority.ExportCertificatePem(), certificate.Export(X509ContentType.Pkcs12));
        provider.host.MapGet("/.well-known/openid-configuration", () => Results.Json(new Dictionary<string, object>
        {
            ["issuer"] = provider.Issuer,
            ["jwks_uri"] = $"{provider.Issuer}/keys",
            ["authorization_endpoint"] = $"{provider.Issuer}/authorize",
            ["token_endpoint"] = $"{provider.Issuer}/token",
            ["code_challenge_methods_supported"] = new[] { "S256" },
            ["response_types_supported"] = new[] { "code" },
            ["subject_types_supported"] = new[] { "public" },
            ["id_token_signing_alg_values_supported"] = new[] { "RS256" },
        }));
        provider.host.MapGet("/keys", provider.Keys);
        provider.host.MapGet("/authorize", provider.Authorize);
        provider.host.MapPost("/token", (HttpRequest request) => provider.TokenAsync(request, time));
        await provider.host.StartAsync();
        provider.Address = new Uri(provider.host.Urls.Single());
        return provider;
    }

    public string Issuer => Address.GetLeftPart(UriPartial.Authority);

    /// <summary>The public key as a program reads it that confuses it with a secret.</summary>
    public string PublicKeyPem => key.ExportSubjectPublicKeyInfoPem();

    public string KeyId => $"key-{generation}";

    /// <summary>From now on it signs with another key, and publishes that one alone.</summary>
    public void Rotate()
    {
        key = RSA.Create(2048);
        generation++;
    }

    /// <summary>Signs with RS256.</summary>
    public string Sign(IReadOnlyDictionary<string, object> claims) => Sign(claims, KeyId, key);

    /// <summary>Signs with another key under the name of its own: for tokens that a server must refuse.</summary>
    public static string Sign(IReadOnlyDictionary<string, object> claims, string keyId, RSA key)
    {
        var head = Base64Url.EncodeToString(JsonSerializer.SerializeToUtf8Bytes(new Dictionary<string, string> { ["alg"] = "RS256", ["typ"] = "JWT", ["kid"] = keyId }));
        var body = Base64Url.EncodeToString(JsonSerializer.SerializeToUtf8Bytes(claims));
        var signature = key.SignData(Encoding.ASCII.GetBytes($"{head}.{body}"), HashAlgorithmName.SHA256, RSASignaturePadding.Pkcs1);
        return $"{head}.{body}.{Base64Url.EncodeToString(signature)}";
    }

    public async ValueTask DisposeAsync()
    {
        await host.StopAsync();
        await host.DisposeAsync();
        key.Dispose();
    }

    /// <summary>Only a code with a proof of who asked for it (RFC 7636) is given out.</summary>
    private IResult Authorize(HttpRequest request)
    {
        string Query(string name) => request.Query[name].ToString();
        if (Query("response_type") != "code" || Query("code_challenge_method") != "S256" || Query("code_challenge").Length == 0 || Query("state").Length == 0 || Query("nonce").Length == 0)
        {
            return Results.BadRequest("this provider wants the code flow with PKCE, a state and a nonce");
        }

        var code = Convert.ToHexStringLower(RandomNumberGenerator.GetBytes(16));
        codes[code] = (Query("code_challenge"), Query("nonce"), Query("client_id"), Query("redirect_uri"));
        return Results.Redirect($"{Query("redirect_uri")}?code={code}&state={Uri.EscapeDataString(Query("state"))}");
    }

    private async Task<IResult> TokenAsync(HttpRequest request, TimeProvider time)
    {
        var form = await request.ReadFormAsync();
        if (!codes.TryRemove(form["code"].ToString(), out var asked) || asked.RedirectUri != form["redirect_uri"] || asked.Client != form["client_id"]
            || Base64Url.EncodeToString(SHA256.HashData(Encoding.ASCII.GetBytes(form["code_verifier"].ToString()))) != asked.Challenge)
        {
            return Results.BadRequest(new { error = "invalid_grant" });
        }

        SignIns++;
        var now = time.GetUtcNow().ToUnixTimeSeconds();
        var claims = new Dictionary<string, object>(Person)
        {
            ["iss"] = Issuer,
            ["aud"] = asked.Client,
            ["iat"] = now,
            ["exp"] = now + 300,
            ["nonce"] = asked.Nonce,
        };
        return Results.Json(new Dictionary<string, object> { ["access_token"] = "not-used", ["token_type"] = "Bearer", ["expires_in"] = 300, ["id_token"] = Sign(claims) });
    }

    private IResult Keys()
    {
        var numbers = key.ExportParameters(false);
        return Results.Json(new Dictionary<string, object>
        {
            ["keys"] = new[]
            {
                new Dictionary<string, string>
                {
                    ["kty"] = "RSA",
                    ["use"] = "sig",
                    ["alg"] = "RS256",
                    ["kid"] = KeyId,
                    ["n"] = Base64Url.EncodeToString(numbers.Modulus),
                    ["e"] = Base64Url.EncodeToString(numbers.Exponent),
                },
            },
        });
    }
}
