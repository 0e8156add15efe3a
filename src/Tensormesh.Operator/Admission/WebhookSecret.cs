using System.Net;
using System.Net.Security;
using k8s;
using k8s.Autorest;
using k8s.Models;
using Tensormesh.Resources;

namespace Tensormesh.Operator.Admission;

/// <summary>Who renews the webhook's certificates.</summary>
internal enum WebhookCertificatesFrom
{
    /// <summary>The operator, with an authority of its own.</summary>
    Operator,
    /// <summary>Somebody else, who keeps the Secret's tls.crt, tls.key and ca.crt: cert-manager, for one.</summary>
    Secret,
}

/// <summary>
/// The certificates as all replicas share them, in one Secret of the operator's namespace. Whichever replica finds that something is due renews it; of two
/// that do at once the API server lets one through, and the other takes what that one wrote.
/// </summary>
internal sealed partial class WebhookSecret(IKubernetes client, OperatorOptions options, TimeProvider time, ILogger<WebhookSecret> logger)
{
    public const string Name = "tensormesh-operator-webhook";

    private readonly IReadOnlyList<string> hosts = WebhookRegistration.Hosts(options.WebhookAddress);
    private volatile WebhookCertificates? current;

    /// <summary>Null until the Secret was read or made for the first time.</summary>
    public WebhookCertificates? Current => current;

    /// <exception cref="InvalidOperationException">There is none yet: the handshake fails, and the API server goes on without us as while we are down.</exception>
    public SslServerAuthenticationOptions Serve()
        => new() { ServerCertificateContext = (current ?? throw new InvalidOperationException("the webhook has no certificate yet")).Context };

    /// <summary>Reads the Secret again, and renews what is due.</summary>
    /// <returns>Null when another replica was faster, or somebody else has not written it yet: look again soon.</returns>
    /// <exception cref="HttpOperationException">The API server refused.</exception>
    public async Task<WebhookCertificates?> RefreshAsync(CancellationToken cancellation)
    {
        var secret = await ReadAsync(cancellation).ConfigureAwait(false);
        var held = WebhookCertificates.FromSecret(secret?.Data);
        if (options.WebhookCertificates == WebhookCertificatesFrom.Secret)
        {
            if (held is null) LogAwaited(logger, options.Namespace, Name);
            return held is null ? null : Use(held);
        }

        var due = WebhookCertificates.Renew(held, hosts, time.GetUtcNow());
        if (ReferenceEquals(due, held)) return Use(held);
        if (!await WriteAsync(secret, due, cancellation).ConfigureAwait(false)) return null;
        LogRenewed(logger, options.Namespace, Name, due.Authorities.Count, due.Server.NotAfter);
        return Use(due);
    }

    private WebhookCertificates Use(WebhookCertificates next)
    {
        // What is served already goes on to be: a context of the same certificate would only cost its sessions.
        if (current is not { } now || now.Server.Thumbprint != next.Server.Thumbprint || !now.CaBundle.AsSpan().SequenceEqual(next.CaBundle)) current = next;
        return next;
    }

    private async Task<V1Secret?> ReadAsync(CancellationToken cancellation)
    {
        try
        {
            return await client.CoreV1.ReadNamespacedSecretAsync(Name, options.Namespace, cancellationToken: cancellation).ConfigureAwait(false);
        }
        catch (HttpOperationException missing) when (missing.Response.StatusCode == HttpStatusCode.NotFound)
        {
            return null;
        }
    }

    /// <summary>False when it was changed meanwhile.</summary>
    private async Task<bool> WriteAsync(V1Secret? read, WebhookCertificates due, CancellationToken cancellation)
    {
        try
        {
            if (read is null)
            {
                await client.CoreV1.CreateNamespacedSecretAsync(
                    new V1Secret
                    {
                        Metadata = new V1ObjectMeta { Name = Name, Labels = new Dictionary<string, string> { [WellKnown.ManagedByLabel] = WellKnown.FieldManager } },
                        Type = "kubernetes.io/tls",
                        Data = due.ToSecret(),
                    }, options.Namespace, cancellationToken: cancellation).ConfigureAwait(false);
            }
            else
            {
                read.Data = due.ToSecret();
                await client.CoreV1.ReplaceNamespacedSecretAsync(read, Name, options.Namespace, cancellationToken: cancellation).ConfigureAwait(false);
            }

            return true;
        }
        catch (HttpOperationException changed) when (changed.Response.StatusCode == HttpStatusCode.Conflict)
        {
            return false;
        }
    }

    [LoggerMessage(Level = LogLevel.Information, Message = "Secret {Namespace}/{Name}: the webhook's certificates are renewed; {Authorities} authorities are trusted, and the server's certificate is good until {NotAfter:O}")]
    private static partial void LogRenewed(ILogger logger, string @namespace, string name, int authorities, DateTime notAfter);

    [LoggerMessage(Level = LogLevel.Warning, Message = "Secret {Namespace}/{Name} does not hold tls.crt, tls.key and ca.crt yet; the reconciler alone refuses until it does")]
    private static partial void LogAwaited(ILogger logger, string @namespace, string name);
}
