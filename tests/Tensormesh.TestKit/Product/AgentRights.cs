using k8s;
using k8s.Models;
using Tensormesh.Resources;

namespace Tensormesh.TestKit;

/// <summary>Whom an agent is to the API server: the shared service account, by a token that is bound to a pod, with the committed rights.</summary>
public static class AgentRights
{
    /// <summary>Grants what manifests/base/agent-rbac.yaml grants.</summary>
    public static Task GrantAsync(DevCluster cluster, CancellationToken cancellation) => ApplyAsync(cluster, cancellation, "base", "agent-rbac.yaml");

    /// <summary>Grants what manifests/components/agent-labels grants.</summary>
    public static Task GrantLabelsAsync(DevCluster cluster, CancellationToken cancellation) => ApplyAsync(cluster, cancellation, "components", "agent-labels", "agent-labels.yaml");

    /// <summary>A pod of the agent's on the node; nothing needs to run in it for a token to be bound to it.</summary>
    public static Task<V1Pod> CreatePodAsync(DevCluster cluster, string node, CancellationToken cancellation) =>
        cluster.Client.CoreV1.CreateNamespacedPodAsync(
            new V1Pod
            {
                Metadata = new V1ObjectMeta { GenerateName = "tensormesh-agent-", NamespaceProperty = Installation.AgentNamespace },
                Spec = new V1PodSpec
                {
                    NodeName = node,
                    ServiceAccountName = WellKnown.AgentAccount,
                    TerminationGracePeriodSeconds = 0,
                    Tolerations = [new V1Toleration { OperatorProperty = "Exists" }],
                    Containers = [new V1Container { Name = "agent", Image = DevCluster.WorkloadImage, ImagePullPolicy = "IfNotPresent" }],
                },
            },
            Installation.AgentNamespace, cancellationToken: cancellation);

    /// <summary>A client with a token of the agent's account, bound to the pod; to nothing when there is none.</summary>
    public static async Task<Kubernetes> ConnectAsync(DevCluster cluster, V1Pod? pod, CancellationToken cancellation) =>
        new(KubernetesClientConfiguration.BuildConfigFromConfigFile(await WriteKubeconfigAsync(cluster, pod, cancellation)));

    /// <summary>The same as a kubeconfig file in the cluster's state directory.</summary>
    public static async Task<string> WriteKubeconfigAsync(DevCluster cluster, V1Pod? pod, CancellationToken cancellation)
    {
        var token = await cluster.Client.CoreV1.CreateNamespacedServiceAccountTokenAsync(
            new Authenticationv1TokenRequest
            {
                Spec = new V1TokenRequestSpec
                {
                    Audiences = [],
                    ExpirationSeconds = 3600,
                    BoundObjectRef = pod is null ? null : new V1BoundObjectReference { ApiVersion = "v1", Kind = "Pod", Name = pod.Name(), Uid = pod.Uid() },
                },
            },
            WellKnown.AgentAccount, Installation.AgentNamespace, cancellationToken: cancellation);
        var configuration = KubernetesClientConfiguration.BuildConfigFromConfigFile(cluster.KubeconfigPath);
        var authority = string.Join('\n', configuration.SslCaCerts.Select(certificate => certificate.ExportCertificatePem()));
        var file = Path.Combine(cluster.StateDirectory, $"agent-{pod?.Name() ?? "unbound"}.kubeconfig");
        Kubeconfig.Write(file, Kubeconfig.WithToken(new Uri(configuration.Host), authority, WellKnown.AgentAccount, token.Status.Token));
        return file;
    }

    private static Task<string> ApplyAsync(DevCluster cluster, CancellationToken cancellation, params string[] path) => Command.RunAsync(
        "kubectl", ["--kubeconfig", cluster.KubeconfigPath, "apply", "-f", Repository.Folder(["manifests", .. path])], cancellation);
}
