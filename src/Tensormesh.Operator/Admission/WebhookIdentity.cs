using System.Net;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;

namespace Tensormesh.Operator.Admission;

/// <summary>The webhook's own certificate authority and server certificate, made at start and kept in memory: the API server learns the authority from the registration.</summary>
internal sealed class WebhookIdentity : IDisposable
{
    private static readonly TimeSpan Lifetime = TimeSpan.FromDays(365);

    private WebhookIdentity(X509Certificate2 server, byte[] caBundle)
    {
        Server = server;
        CaBundle = caBundle;
    }

    public X509Certificate2 Server { get; }

    /// <summary>PEM, as <c>caBundle</c> wants it before base64.</summary>
    public byte[] CaBundle { get; }

    /// <param name="hosts">DNS names and addresses under which the API server calls.</param>
    public static WebhookIdentity Create(IEnumerable<string> hosts, DateTimeOffset now)
    {
        using var authorityKey = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        var authorityRequest = new CertificateRequest("CN=tensormesh-operator webhook authority", authorityKey, HashAlgorithmName.SHA256);
        authorityRequest.CertificateExtensions.Add(new X509BasicConstraintsExtension(certificateAuthority: true, hasPathLengthConstraint: true, pathLengthConstraint: 0, critical: true));
        authorityRequest.CertificateExtensions.Add(new X509KeyUsageExtension(X509KeyUsageFlags.KeyCertSign | X509KeyUsageFlags.CrlSign, critical: true));
        using var authority = authorityRequest.CreateSelfSigned(now.AddHours(-1), now + Lifetime);

        using var serverKey = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        var serverRequest = new CertificateRequest("CN=tensormesh-operator webhook", serverKey, HashAlgorithmName.SHA256);
        var names = new SubjectAlternativeNameBuilder();
        foreach (var host in hosts)
        {
            if (IPAddress.TryParse(host, out var address)) names.AddIpAddress(address);
            else names.AddDnsName(host);
        }

        serverRequest.CertificateExtensions.Add(names.Build());
        serverRequest.CertificateExtensions.Add(new X509EnhancedKeyUsageExtension([new Oid("1.3.6.1.5.5.7.3.1")], critical: false));
        using var signed = serverRequest.Create(authority, now.AddHours(-1), now + Lifetime - TimeSpan.FromHours(1), RandomNumberGenerator.GetBytes(16));
        using var withKey = signed.CopyWithPrivateKey(serverKey);
        // Kestrel wants a key that outlives this method's.
        var server = X509CertificateLoader.LoadPkcs12(withKey.Export(X509ContentType.Pkcs12), null);
        return new WebhookIdentity(server, System.Text.Encoding.ASCII.GetBytes(authority.ExportCertificatePem()));
    }

    public void Dispose() => Server.Dispose();
}
