using System.Net.Http.Headers;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using YamlDotNet.Core;

namespace Tensormesh.Agent.Cluster;

/// <summary>Where the API server is, by whom it is vouched for, and who this agent is to it.</summary>
/// <param name="AuthorityPem">Null where the machine's own authorities vouch for it.</param>
/// <param name="Token">Read anew for every request: a service account's token is replaced long before it ends.</param>
internal sealed record ApiServerConnection(Uri Server, string? AuthorityPem, Func<string>? Token, (string CertificatePem, string KeyPem)? Client)
{
    private const string ServiceAccount = "/var/run/secrets/kubernetes.io/serviceaccount";

    /// <summary>A call that gets no answer ends, because the next look at the GPUs waits for it.</summary>
    private static readonly TimeSpan CallLimit = TimeSpan.FromSeconds(10);
    private static readonly TimeSpan ConnectTimeout = TimeSpan.FromSeconds(5);

    /// <summary>Longer than a heartbeat, so that not every one pays for a handshake.</summary>
    private static readonly TimeSpan KeepOpen = TimeSpan.FromMinutes(3);

    /// <param name="kubeconfig">A file; null or empty in a pod, whose service account is used then.</param>
    /// <exception cref="InvalidDataException">It cannot be used, and the message says why.</exception>
    public static ApiServer Open(string? kubeconfig)
    {
        try
        {
            return new ApiServer((kubeconfig is { Length: > 0 } ? Kubeconfig.Read(kubeconfig) : OfServiceAccount()).Connect());
        }
        catch (Exception fault) when (fault is IOException or UnauthorizedAccessException or CryptographicException or FormatException or YamlException)
        {
            throw new InvalidDataException(fault.Message, fault);
        }
    }

    private static ApiServerConnection OfServiceAccount()
    {
        if (Environment.GetEnvironmentVariable("KUBERNETES_SERVICE_HOST") is not { Length: > 0 } host
            || Environment.GetEnvironmentVariable("KUBERNETES_SERVICE_PORT") is not { Length: > 0 } port)
        {
            throw new InvalidDataException("this is no pod: KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set");
        }

        var token = Path.Combine(ServiceAccount, "token");
        return new ApiServerConnection(
            new Uri(host.Contains(':', StringComparison.Ordinal) ? $"https://[{host}]:{port}" : $"https://{host}:{port}"),
            File.ReadAllText(Path.Combine(ServiceAccount, "ca.crt")), () => File.ReadAllText(token), Client: null);
    }

    private HttpClient Connect()
    {
        var sockets = new SocketsHttpHandler { ConnectTimeout = ConnectTimeout, PooledConnectionIdleTimeout = KeepOpen, UseCookies = false };
        if (AuthorityPem is not null)
        {
            var policy = new X509ChainPolicy { TrustMode = X509ChainTrustMode.CustomRootTrust, RevocationMode = X509RevocationMode.NoCheck };
            policy.CustomTrustStore.ImportFromPem(AuthorityPem);
            sockets.SslOptions.CertificateChainPolicy = policy;
        }

        if (Client is var (certificate, key)) sockets.SslOptions.ClientCertificates = [X509Certificate2.CreateFromPem(certificate, key)];
        // An address may have a path, as behind a proxy of many clusters.
        var address = new Uri(Server.AbsoluteUri.TrimEnd('/') + "/");
        return new HttpClient(Token is null ? sockets : new Bearer(Token, sockets))
        {
            BaseAddress = address,
            Timeout = CallLimit,
            // By which the API server's audit log and its flow schemas tell this program from others of the same account.
            DefaultRequestHeaders = { UserAgent = { new ProductInfoHeaderValue("tensormesh-agent", typeof(ApiServerConnection).Assembly.GetName().Version!.ToString(3)) } },
        };
    }

    private sealed class Bearer(Func<string> token, HttpMessageHandler inner) : DelegatingHandler(inner)
    {
        protected override Task<HttpResponseMessage> SendAsync(HttpRequestMessage request, CancellationToken cancellationToken)
        {
            request.Headers.Authorization = new AuthenticationHeaderValue("Bearer", token().Trim());
            return base.SendAsync(request, cancellationToken);
        }
    }
}
