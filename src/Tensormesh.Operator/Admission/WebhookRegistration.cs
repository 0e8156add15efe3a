using k8s;
using k8s.Autorest;
using k8s.Models;
using Tensormesh.Operator.Uninstalling;
using Tensormesh.Resources;

namespace Tensormesh.Operator.Admission;

/// <summary>
/// Registers the webhooks with the authorities that their certificates have. Scoped to our kinds alone, and short of patience. The gate is ignored when down: an outage of ours must never stop
/// anybody else's work. The guard is not, and stops only agents, which tell later what they saw meanwhile.
/// </summary>
internal sealed partial class WebhookRegistration(IKubernetes client, WebhookSecret secret, OwnDeletion deletion, OperatorOptions options, TimeProvider time, ILogger<WebhookRegistration> logger) : BackgroundService
{
    public const string ConfigurationName = "tensormesh-operator";
    private static readonly TimeSpan Retry = TimeSpan.FromSeconds(2);
    /// <summary>Somebody who deletes or edits the registration is corrected within this time.</summary>
    private static readonly TimeSpan Repair = TimeSpan.FromMinutes(1);

    protected override async Task ExecuteAsync(CancellationToken stopping)
    {
        while (!stopping.IsCancellationRequested)
        {
            var pause = Retry;
            try
            {
                if (await RegisterAsync(stopping).ConfigureAwait(false)) pause = Repair;
            }
            catch (Exception fault) when (fault is HttpOperationException or HttpRequestException)
            {
                LogNotRegistered(logger, fault is HttpOperationException refused ? refused.Response.Content : fault.Message);
            }

            try
            {
                await Task.Delay(pause, time, stopping).ConfigureAwait(false);
            }
            catch (OperationCanceledException)
            {
            }
        }
    }

    /// <summary>Once: reads or renews the certificates, and has the API server trust them. Trusted first, served after: see <see cref="WebhookCertificates"/>.</summary>
    /// <returns>False when it is to be done again soon.</returns>
    internal async Task<bool> RegisterAsync(CancellationToken cancellation)
    {
        if (await deletion.HasBegunAsync(cancellation).ConfigureAwait(false)) return true;
        if (await secret.RefreshAsync(cancellation).ConfigureAwait(false) is not { } certificates) return false;
        await client.AdmissionregistrationV1.PatchValidatingWebhookConfigurationAsync(
            new V1Patch(KubernetesJson.Serialize(Render(certificates.CaBundle, options.WebhookAddress)), V1Patch.PatchType.ApplyPatch),
            ConfigurationName, fieldManager: WellKnown.FieldManager, force: true, cancellationToken: cancellation).ConfigureAwait(false);
        // The deletion may have begun, and the uninstall have come to its end, since it was asked.
        if (await deletion.HasBegunAsync(cancellation).ConfigureAwait(false)) await client.AdmissionregistrationV1.DeleteValidatingWebhookConfigurationAsync(ConfigurationName, cancellationToken: cancellation).ConfigureAwait(false);
        return true;
    }

    /// <summary>The hosts under which the API server will call, for the certificate.</summary>
    public static IReadOnlyList<string> Hosts(string address)
    {
        if (!TryService(address, out var ns, out var name)) return [new Uri(address).Host];
        return [$"{name}.{ns}.svc", $"{name}.{ns}.svc.cluster.local"];
    }

    internal static V1ValidatingWebhookConfiguration Render(byte[] caBundle, string address) => new()
    {
        ApiVersion = "admissionregistration.k8s.io/v1",
        Kind = "ValidatingWebhookConfiguration",
        Metadata = new V1ObjectMeta { Name = ConfigurationName },
        Webhooks =
        [
            Webhook("gate.tensormesh.ai", "Ignore", GpuDeployment.PluralName, "scale", "Namespaced", Client(caBundle, address, AdmissionWebhook.Path)),
            Webhook("own-node.tensormesh.ai", "Fail", GpuNode.PluralName, "status", "Cluster", Client(caBundle, address, OwnNodeGuard.Path)),
        ],
    };

    /// <summary>Asked about every write of one kind and of one of its subresources.</summary>
    private static V1ValidatingWebhook Webhook(
        string name, string failurePolicy, string plural, string subresource, string scope, Admissionregistrationv1WebhookClientConfig client) => new()
        {
            Name = name,
            AdmissionReviewVersions = ["v1"],
            SideEffects = "None",
            FailurePolicy = failurePolicy,
            TimeoutSeconds = 3,
            MatchPolicy = "Equivalent",
            Rules =
            [
                new V1RuleWithOperations
                {
                    ApiGroups = [WellKnown.Group],
                    ApiVersions = [WellKnown.Version],
                    Operations = ["CREATE", "UPDATE"],
                    Resources = [plural, plural + "/" + subresource],
                    Scope = scope,
                },
            ],
            ClientConfig = client,
        };

    private static Admissionregistrationv1WebhookClientConfig Client(byte[] caBundle, string address, string path) => TryService(address, out var ns, out var name)
        ? new() { CaBundle = caBundle, Service = new Admissionregistrationv1ServiceReference { NamespaceProperty = ns, Name = name, Path = path, Port = 443 } }
        : new() { CaBundle = caBundle, Url = address.TrimEnd('/') + path };

    private static bool TryService(string address, out string ns, out string name)
    {
        const string Prefix = "service:";
        (ns, name) = ("", "");
        if (!address.StartsWith(Prefix, StringComparison.Ordinal)) return false;
        var parts = address[Prefix.Length..].Split('/');
        if (parts.Length != 2) throw new FormatException($"Tensormesh:WebhookAddress '{address}' is not 'service:NAMESPACE/NAME'");
        (ns, name) = (parts[0], parts[1]);
        return true;
    }

    [LoggerMessage(Level = LogLevel.Warning, Message = "The webhook could not be registered; the reconciler alone refuses until it is: {Reason}")]
    private static partial void LogNotRegistered(ILogger logger, string reason);
}
