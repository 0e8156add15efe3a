using Tensormesh.Billing;
using Tensormesh.Operator.Admission;
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
    /// <summary>Who renews the certificates that the Secret <c>tensormesh-operator-webhook</c> holds.</summary>
    public WebhookCertificatesFrom WebhookCertificates { get; set; }
    /// <summary>The operator's own namespace: of the leader lease, and of the Secret with the webhook's certificates.</summary>
    public string Namespace { get; set; } = "default";
    /// <summary>Namespace of the agents and their service account.</summary>
    public string AgentNamespace { get; set; } = "tensormesh-agents";
    /// <summary>Name of the operator's own Deployment in its namespace. Once that is deleted, a stop is an uninstall and not a restart. Empty: there is none.</summary>
    public string Deployment { get; set; } = "";
    /// <summary>Name of the operator's own service account, ClusterRole and ClusterRoleBinding: they stay until an uninstall is done, whenever they are deleted. Empty: nothing keeps them.</summary>
    public string Rights { get; set; } = "";
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
