using k8s;

namespace Tensormesh.Operator.Watching;

/// <summary>
/// The connection to the API server. All watches and writes share one; where the path of it goes away without a word, everything would wait on it.
/// So the other side is asked whether it lives, and a connection that does not answer is given up before the lease is lost.
/// </summary>
internal static class ApiServerConnection
{
    private static readonly TimeSpan PingAfter = TimeSpan.FromSeconds(3);
    private static readonly TimeSpan PingTimeout = TimeSpan.FromSeconds(3);
    private static readonly TimeSpan ConnectTimeout = TimeSpan.FromSeconds(5);

    /// <param name="kubeconfig">A file; null or empty in a pod, whose service account is used then.</param>
    public static Kubernetes Open(string? kubeconfig)
    {
        var configuration = kubeconfig is { Length: > 0 }
            ? KubernetesClientConfiguration.BuildConfigFromConfigFile(kubeconfig)
            : KubernetesClientConfiguration.InClusterConfig();
        configuration.FirstMessageHandlerSetup = handler =>
        {
            handler.KeepAlivePingPolicy = HttpKeepAlivePingPolicy.WithActiveRequests;
            handler.KeepAlivePingDelay = PingAfter;
            handler.KeepAlivePingTimeout = PingTimeout;
            handler.ConnectTimeout = ConnectTimeout;
        };
        return new Kubernetes(configuration);
    }
}
