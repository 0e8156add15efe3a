using Tensormesh.Billing;
using Tensormesh.Operator.Watching;

namespace Tensormesh.Operator;

/// <summary>Configuration, section <c>Tensormesh</c> (environment: <c>Tensormesh__Workers</c> and so on). The connection string is <c>ConnectionStrings:Billing</c>.</summary>
internal sealed class OperatorOptions
{
    /// <summary>A kubeconfig file; in a pod, its service account is used when this is absent.</summary>
    public string? Kubeconfig { get; set; }
    /// <summary>Where metrics and probes are served.</summary>
    public string MetricsUrl { get; set; } = "http://0.0.0.0:8080";
    /// <summary>Where the admission webhook listens; TLS.</summary>
    public string WebhookUrl { get; set; } = "https://0.0.0.0:9443";
    /// <summary>How the API server reaches the webhook: <c>https://127.0.0.1:9443</c> from outside the cluster, or <c>service:NAMESPACE/NAME</c>. Empty: no webhook, and the reconciler alone refuses.</summary>
    public string WebhookAddress { get; set; } = "";
    /// <summary>Namespace of the leader lease.</summary>
    public string Namespace { get; set; } = "default";
    /// <summary>Name of the operator's own Deployment in its namespace. Once that is deleted, a stop is an uninstall and not a restart. Empty: there is none.</summary>
    public string Deployment { get; set; } = "";
    /// <summary>GpuDeployments reconciled at once.</summary>
    public int Workers { get; set; } = 16;
    public bool MigrateOnStart { get; set; } = true;
    /// <summary>Silence of a watch after which readiness fails.</summary>
    public TimeSpan StaleAfter { get; set; } = TimeSpan.FromMinutes(3);
    /// <summary>For how long GPUs may be held without a charge, or charged without a pod, before somebody is told.</summary>
    public TimeSpan AuditPatience { get; set; } = TimeSpan.FromMinutes(1);
    public InformerOptions Watch { get; set; } = new();
    public LeaseOptions Lease { get; set; } = new();
    public CreditPolicy Credit { get; set; } = new();
}
