using System.Buffers.Text;
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
/// An OpenID Connect provider as far as a server sees it that checks its tokens: the discovery document and the keys, over TLS, under an
/// authority of its own. Nobody signs in here: whatever claims are asked for are signed.
/// </summary>
public sealed class FakeIdentityProvider : IAsyncDisposable
{
    private readonly WebApplication host;
    private RSA key = RSA.Create(2048);
    private int generation = 1;

    private FakeIdentityProvider(WebApplication host, string authorityCertificate) => (this.host, AuthorityCertificate) = (host, authorityCertificate);

    /// <summary>The issuer.</summary>
    public Uri Address { get; private set; } = null!;

    /// <summary>PEM: whoever trusts it trusts this provider.</summary>
    public string AuthorityCertificate { get; }

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
        var provider = new FakeIdentityProvider(builder.Build(), authority.ExportCertificatePem());
        provider.host.MapGet("/.well-known/openid-configuration", () => Results.Json(new Dictionary<string, object>
        {
            ["issuer"] = provider.Issuer,
            ["jwks_uri"] = $"{provider.Issuer}/keys",
            ["authorization_endpoint"] = $"{provider.Issuer}/authorize",
            ["response_types_supported"] = new[] { "code" },
            ["subject_types_supported"] = new[] { "public" },
            ["id_token_signing_alg_values_supported"] = new[] { "RS256" },
        }));
        provider.host.MapGet("/keys", provider.Keys);
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
