using System.Text;

namespace Tensormesh.TestKit;

/// <summary>Renders kubeconfig files that hold everything they need, so that one file can be handed to a child process.</summary>
internal static class Kubeconfig
{
    public static string WithToken(Uri server, string authorityPem, string user, string token) =>
        Render(server, authorityPem, user, $"token: {token}");

    public static string WithCertificate(
        Uri server, string authorityPem, string user, (string CertificatePem, string KeyPem) certificate) =>
        Render(server, authorityPem, user,
            $"client-certificate-data: {Base64(certificate.CertificatePem)}\n    client-key-data: {Base64(certificate.KeyPem)}");

    /// <summary>Only the owner may read what it writes: it holds a key.</summary>
    public static void Write(string file, string content)
    {
        File.WriteAllText(file, content);
        File.SetUnixFileMode(file, UnixFileMode.UserRead | UnixFileMode.UserWrite);
    }

    private static string Render(Uri server, string authorityPem, string user, string secret) =>
        $"""
        apiVersion: v1
        kind: Config
        current-context: tensormesh-dev
        clusters:
        - name: tensormesh-dev
          cluster:
            server: {server.ToString().TrimEnd('/')}
            certificate-authority-data: {Base64(authorityPem)}
        contexts:
        - name: tensormesh-dev
          context:
            cluster: tensormesh-dev
            user: "{user}"
        users:
        - name: "{user}"
          user:
            {secret}

        """;

    private static string Base64(string text) => Convert.ToBase64String(Encoding.ASCII.GetBytes(text));
}
