using k8s;

namespace Tensormesh.Agent;

/// <summary>The connection to the API server. A call that gets no answer ends, because the next look at the GPUs waits for it.</summary>
internal static class ApiServerConnection
{
    private static readonly TimeSpan CallLimit = TimeSpan.FromSeconds(10);
    private static readonly TimeSpan ConnectTimeout = TimeSpan.FromSeconds(5);

    /// <param name="kubeconfig">A file; null or empty in a pod, whose service account is used then.</param>
    public static Kubernetes Open(string? kubeconfig)
    {
        var configuration = kubeconfig is { Length: > 0 }
            ? KubernetesClientConfiguration.BuildConfigFromConfigFile(kubeconfig)
            : KubernetesClientConfiguration.InClusterConfig();
        configuration.HttpClientTimeout = CallLimit;
        configuration.FirstMessageHandlerSetup = handler => handler.ConnectTimeout = ConnectTimeout;
        return new Kubernetes(configuration);
    }
}
