using System.Net.Http.Headers;
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
    /// <summary>How long a request that asks whether to send its body waits for the answer.</summary>
    private static readonly TimeSpan BodyPatience = TimeSpan.FromSeconds(10);

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
            handler.Expect100ContinueTimeout = BodyPatience;
        };
        return new Kubernetes(configuration, new TimeoutsAreFaults());
    }

    /// <summary>By which the API server's audit log and its flow schemas tell this program from others of the same account.</summary>
    private static readonly ProductInfoHeaderValue Product = new("tensormesh-operator", typeof(ApiServerConnection).Assembly.GetName().Version!.ToString(3));

    /// <summary>
    /// A connection that does not come about in time is a fault of the network like any other. As a cancellation, which nobody asked for, it would
    /// end the loop that made the call, and the process with it.
    /// </summary>
    private sealed class TimeoutsAreFaults : DelegatingHandler
    {
        protected override async Task<HttpResponseMessage> SendAsync(HttpRequestMessage request, CancellationToken cancellationToken)
        {
            request.Headers.UserAgent.Clear();
            request.Headers.UserAgent.Add(Product);
            try
            {
                return await base.SendAsync(request, cancellationToken).ConfigureAwait(false);
            }
            catch (OperationCanceledException late) when (!cancellationToken.IsCancellationRequested)
            {
                throw new HttpRequestException(HttpRequestError.ConnectionError, late.Message, late);
            }
        }
    }
}
