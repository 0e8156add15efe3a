using System.Net;
using System.Net.Security;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using System.Text;

namespace Tensormesh.Operator.Admission;

/// <summary>
/// What the webhook is served with, and what the API server trusts: an authority of our own that is renewed long before it ends, as data that one Secret holds
/// for all replicas. A new authority is trusted for <see cref="Settling"/> before anything is signed with it, and an old one until nobody can
/// still serve what it signed: at no instant does a replica serve what the registration does not trust.
/// </summary>
internal sealed class WebhookCertificates
{
    /// <summary>Of an authority, and of the server certificates that it signs.</summary>
    public static readonly TimeSpan Lifetime = TimeSpan.FromDays(365);

    /// <summary>A certificate is renewed when this share of its life is over.</summary>
    public const double RenewAfter = 2.0 / 3;

    /// <summary>Longer than every replica needs to read the Secret again and to register what it read, an API server that is away included.</summary>
    public static readonly TimeSpan Settling = TimeSpan.FromHours(1);

    /// <summary>After this time every replica serves what is signed by the new authority.</summary>
    public static readonly TimeSpan Farewell = TimeSpan.FromDays(1);

    /// <summary>The API server's clock may be behind ours.</summary>
    private static readonly TimeSpan Backdated = TimeSpan.FromHours(1);

    private const string ServerCertificate = "tls.crt";
    private const string ServerKey = "tls.key";
    private const string AuthorityCertificates = "ca.crt";
    private const string AuthorityKey = "ca.key";
    private const string ServerAuthentication = "1.3.6.1.5.5.7.3.1";

    private readonly ECDsa? authorityKey;
    private readonly X509Certificate2Collection chain;

    private WebhookCertificates(IReadOnlyList<X509Certificate2> authorities, ECDsa? authorityKey, X509Certificate2 server, X509Certificate2Collection? chain = null)
    {
        (Authorities, Server, this.authorityKey, this.chain) = (authorities, server, authorityKey, chain ?? []);
        Context = SslStreamCertificateContext.Create(server, this.chain, offline: true);
    }

    /// <summary>Whom the API server is to trust, the newest last. Only the newest signs.</summary>
    public IReadOnlyList<X509Certificate2> Authorities { get; }

    public X509Certificate2 Server { get; }

    /// <summary>The server certificate with its key, and what stands between it and an authority.</summary>
    public SslStreamCertificateContext Context { get; }

    /// <summary>PEM, as <c>caBundle</c> wants it before base64.</summary>
    public byte[] CaBundle => Encoding.ASCII.GetBytes(string.Join('\n', Authorities.Select(each => each.ExportCertificatePem())) + "\n");

    /// <param name="hosts">DNS names and addresses under which the API server calls.</param>
    public static WebhookCertificates Create(IReadOnlyList<string> hosts, DateTimeOffset now)
    {
        var (authority, key) = NewAuthority(now);
        return new WebhookCertificates([authority], key, NewServer(authority, key, hosts, now));
    }

    /// <summary>What should be held now. The same object when nothing is due.</summary>
    /// <param name="held">Null when there is nothing, or nothing of use.</param>
    public static WebhookCertificates Renew(WebhookCertificates? held, IReadOnlyList<string> hosts, DateTimeOffset now)
    {
        if (held?.authorityKey is not { } key || now >= held.Authorities[^1].NotAfter) return Create(hosts, now);

        var newest = held.Authorities[^1];
        if (IsPast(newest, RenewAfter, now))
        {
            var (next, nextKey) = NewAuthority(now);
            return new WebhookCertificates([.. held.Authorities, next], nextKey, held.Server);
        }

        var signedByNewest = IsSignedBy(held.Server, newest);
        var useless = now >= held.Server.NotAfter || !Names(held.Server).SetEquals(hosts.Select(Plain)) || !held.Authorities.Any(each => IsSignedBy(held.Server, each));
        if (useless || ((!signedByNewest || IsPast(held.Server, RenewAfter, now)) && now >= MadeAt(newest) + Settling))
        {
            return new WebhookCertificates(held.Authorities, key, NewServer(newest, key, hosts, now));
        }

        return signedByNewest && held.Authorities.Count > 1 && now >= MadeAt(held.Server) + Farewell ? new WebhookCertificates([newest], key, held.Server) : held;
    }

    /// <summary>The data of a Secret of type kubernetes.io/tls, and the authority's key beside it.</summary>
    public IDictionary<string, byte[]> ToSecret() => new Dictionary<string, byte[]>
    {
        [ServerCertificate] = Encoding.ASCII.GetBytes(Server.ExportCertificatePem() + "\n"),
        [ServerKey] = Encoding.ASCII.GetBytes(Server.GetECDsaPrivateKey()!.ExportPkcs8PrivateKeyPem() + "\n"),
        [AuthorityCertificates] = CaBundle,
        [AuthorityKey] = Encoding.ASCII.GetBytes(authorityKey!.ExportPkcs8PrivateKeyPem() + "\n"),
    };

    /// <summary>Null when it holds no certificates that belong together: they are then made anew. Without an authority's key they are somebody else's to renew.</summary>
    public static WebhookCertificates? FromSecret(IDictionary<string, byte[]>? data)
    {
        if (data is null || !data.TryGetValue(ServerCertificate, out var server) || !data.TryGetValue(ServerKey, out var serverKey) || !data.TryGetValue(AuthorityCertificates, out var authorities)) return null;
        try
        {
            X509Certificate2Collection trusted = [], served = [];
            trusted.ImportFromPem(Encoding.ASCII.GetString(authorities));
            served.ImportFromPem(Encoding.ASCII.GetString(server));
            if (trusted.Count == 0 || served.Count == 0) return null;
            ECDsa? key = null;
            if (data.TryGetValue(AuthorityKey, out var pem))
            {
                key = ECDsa.Create();
                key.ImportFromPem(Encoding.ASCII.GetString(pem));
                using var publicKey = trusted[^1].GetECDsaPublicKey();
                if (publicKey is null || !publicKey.ExportSubjectPublicKeyInfo().AsSpan().SequenceEqual(key.ExportSubjectPublicKeyInfo())) return null;
            }

            using var withKey = X509Certificate2.CreateFromPem(served[0].ExportCertificatePem(), Encoding.ASCII.GetString(serverKey));
            var rest = new X509Certificate2Collection(served.Skip(1).ToArray());
            return new WebhookCertificates([.. trusted], key, Usable(withKey), rest);
        }
        catch (Exception damaged) when (damaged is CryptographicException or ArgumentException)
        {
            return null;
        }
    }

    private static (X509Certificate2 Authority, ECDsa Key) NewAuthority(DateTimeOffset now)
    {
        var key = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        var request = new CertificateRequest("CN=tensormesh-operator webhook authority", key, HashAlgorithmName.SHA256);
        request.CertificateExtensions.Add(new X509BasicConstraintsExtension(certificateAuthority: true, hasPathLengthConstraint: true, pathLengthConstraint: 0, critical: true));
        request.CertificateExtensions.Add(new X509KeyUsageExtension(X509KeyUsageFlags.KeyCertSign | X509KeyUsageFlags.CrlSign, critical: true));
        // By which one is told from another of the same name.
        request.CertificateExtensions.Add(new X509SubjectKeyIdentifierExtension(request.PublicKey, critical: false));
        using var signed = request.CreateSelfSigned(now - Backdated, now + Lifetime);
        return (X509CertificateLoader.LoadCertificate(signed.RawData), key);
    }

    private static X509Certificate2 NewServer(X509Certificate2 authority, ECDsa authorityKey, IReadOnlyList<string> hosts, DateTimeOffset now)
    {
        using var key = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        var request = new CertificateRequest("CN=tensormesh-operator webhook", key, HashAlgorithmName.SHA256);
        var names = new SubjectAlternativeNameBuilder();
        foreach (var host in hosts)
        {
            if (IPAddress.TryParse(host, out var address)) names.AddIpAddress(address);
            else names.AddDnsName(host);
        }

        request.CertificateExtensions.Add(names.Build());
        request.CertificateExtensions.Add(new X509EnhancedKeyUsageExtension([new Oid(ServerAuthentication)], critical: false));
        var identifier = authority.Extensions.OfType<X509SubjectKeyIdentifierExtension>().Single();
        request.CertificateExtensions.Add(X509AuthorityKeyIdentifierExtension.CreateFromSubjectKeyIdentifier(identifier));
        using var issuer = authority.CopyWithPrivateKey(authorityKey);
        var end = now + Lifetime < authority.NotAfter ? now + Lifetime : authority.NotAfter;
        using var signed = request.Create(issuer, now - Backdated < authority.NotBefore ? authority.NotBefore : now - Backdated, end, RandomNumberGenerator.GetBytes(16));
        using var withKey = signed.CopyWithPrivateKey(key);
        return Usable(withKey);
    }

    /// <summary>TLS wants a key that outlives the method that made it.</summary>
    private static X509Certificate2 Usable(X509Certificate2 certificate)
        => X509CertificateLoader.LoadPkcs12(certificate.Export(X509ContentType.Pkcs12), null, X509KeyStorageFlags.Exportable);

    private static DateTimeOffset MadeAt(X509Certificate2 certificate) => certificate.NotBefore + Backdated;

    private static bool IsPast(X509Certificate2 certificate, double share, DateTimeOffset now)
        => now >= MadeAt(certificate) + ((certificate.NotAfter - MadeAt(certificate)) * share);

    private static bool IsSignedBy(X509Certificate2 server, X509Certificate2 authority)
        => server.Extensions.OfType<X509AuthorityKeyIdentifierExtension>().FirstOrDefault()?.KeyIdentifier is { } signer
           && authority.Extensions.OfType<X509SubjectKeyIdentifierExtension>().FirstOrDefault()?.SubjectKeyIdentifierBytes is { } own
           && signer.Span.SequenceEqual(own.Span);

    /// <summary>One way of writing for each address, the brackets of a URL gone.</summary>
    private static string Plain(string host) => IPAddress.TryParse(host, out var address) ? address.ToString() : host;

    private static HashSet<string> Names(X509Certificate2 server)
        => server.Extensions.OfType<X509SubjectAlternativeNameExtension>().SelectMany(each => each.EnumerateDnsNames().Concat(each.EnumerateIPAddresses().Select(address => address.ToString())))
            .ToHashSet(StringComparer.OrdinalIgnoreCase);
}
