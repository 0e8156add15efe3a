using System.Net;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;

namespace Tensormesh.TestKit;

/// <summary>
/// The cluster's certificate authority and everything it signs. Users are client certificates (name and
/// groups in the subject), so one can be made at any time; the administrator has a bearer token, for curl.
/// </summary>
internal sealed class Credentials : IDisposable
{
    private static readonly TimeSpan Validity = TimeSpan.FromDays(30);

    private readonly string _folder;
    private readonly ECDsa _key = ECDsa.Create(ECCurve.NamedCurves.nistP256);
    private readonly X509Certificate2 _authority;

    private Credentials(string folder, DateTimeOffset now)
    {
        _folder = folder;
        var request = new CertificateRequest("CN=tensormesh-dev-ca", _key, HashAlgorithmName.SHA256);
        request.CertificateExtensions.Add(new X509BasicConstraintsExtension(true, false, 0, true));
        request.CertificateExtensions.Add(
            new X509KeyUsageExtension(X509KeyUsageFlags.KeyCertSign | X509KeyUsageFlags.DigitalSignature, true));
        request.CertificateExtensions.Add(new X509SubjectKeyIdentifierExtension(request.PublicKey, false));
        _authority = request.CreateSelfSigned(now - TimeSpan.FromHours(1), now + Validity);
    }

    public string AuthorityFile => Path.Combine(_folder, "ca.crt");
    public string TokenFile => Path.Combine(_folder, "tokens.csv");
    public string ServiceAccountKeyFile => Path.Combine(_folder, "service-account.key");
    public string ServingCertificateFile => Path.Combine(_folder, "apiserver.crt");
    public string ServingKeyFile => Path.Combine(_folder, "apiserver.key");
    public string KubeletClientCertificateFile => Path.Combine(_folder, "kubelet-client.crt");
    public string KubeletClientKeyFile => Path.Combine(_folder, "kubelet-client.key");
    public string AdminToken { get; } = Convert.ToHexStringLower(RandomNumberGenerator.GetBytes(24));
    public string AuthorityPem => _authority.ExportCertificatePem();
    public X509Certificate2 Authority => _authority;

    /// <summary>
    /// Writes the authority, the API server's certificates and the token file into the folder, readable by the owner
    /// alone.
    /// </summary>
    public static Credentials Create(string folder, IEnumerable<IPAddress> servingAddresses)
    {
        Directory.CreateDirectory(folder, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
        var credentials = new Credentials(folder, TimeProvider.System.GetUtcNow());
        File.WriteAllText(credentials.AuthorityFile, credentials.AuthorityPem);
        File.WriteAllText(credentials.TokenFile, $"{credentials.AdminToken},admin,admin,\"system:masters\"\n");

        using var serviceAccountKey = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        File.WriteAllText(credentials.ServiceAccountKeyFile, serviceAccountKey.ExportECPrivateKeyPem());

        var serving = credentials.Sign("CN=kube-apiserver", servingAddresses);
        File.WriteAllText(credentials.ServingCertificateFile, serving.CertificatePem);
        File.WriteAllText(credentials.ServingKeyFile, serving.KeyPem);
        var kubeletClient = credentials.Sign("O=system:masters, CN=kube-apiserver-kubelet-client", []);
        File.WriteAllText(credentials.KubeletClientCertificateFile, kubeletClient.CertificatePem);
        File.WriteAllText(credentials.KubeletClientKeyFile, kubeletClient.KeyPem);
        return credentials;
    }

    /// <summary>A client certificate of the user; the groups are what RBAC sees.</summary>
    public (string CertificatePem, string KeyPem) User(string user, IEnumerable<string> groups)
    {
        var subject = new X500DistinguishedNameBuilder();
        foreach (var group in groups)
            subject.AddOrganizationName(group);
        subject.AddCommonName(user);
        return Sign(subject.Build(), []);
    }

    public void Dispose()
    {
        _authority.Dispose();
        _key.Dispose();
    }

    private (string CertificatePem, string KeyPem) Sign(string subject, IEnumerable<IPAddress> addresses) =>
        Sign(new X500DistinguishedName(subject), addresses);

    private (string CertificatePem, string KeyPem) Sign(X500DistinguishedName subject, IEnumerable<IPAddress> addresses)
    {
        using var key = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        var request = new CertificateRequest(subject, key, HashAlgorithmName.SHA256);
        request.CertificateExtensions.Add(new X509KeyUsageExtension(X509KeyUsageFlags.DigitalSignature, true));
        request.CertificateExtensions.Add(new X509EnhancedKeyUsageExtension(
            [new Oid("1.3.6.1.5.5.7.3.1", "server authentication"), new Oid("1.3.6.1.5.5.7.3.2", "client authentication")], false));
        var names = new SubjectAlternativeNameBuilder();
        foreach (var address in addresses)
            names.AddIpAddress(address);
        foreach (var name in (string[])["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"])
            names.AddDnsName(name);
        request.CertificateExtensions.Add(names.Build());
        using var signed = request.Create(_authority, _authority.NotBefore, _authority.NotAfter, RandomNumberGenerator.GetBytes(12));
        return (signed.ExportCertificatePem(), key.ExportECPrivateKeyPem());
    }
}
