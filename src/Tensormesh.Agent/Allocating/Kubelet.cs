using System.Net.Sockets;
using Grpc.Core;
using Grpc.Net.Client;
using Tensormesh.Agent.Allocating.V1;
using Tensormesh.Resources;

namespace Tensormesh.Agent.Allocating;

internal readonly record struct PodKey(string Namespace, string Name)
{
    public override string ToString() => $"{Namespace}/{Name}";
}

/// <summary>What the kubelet says of one container: the GPUs that it holds, by their UUIDs in order, without repetition.</summary>
internal sealed record HeldGpus(PodKey Pod, string Container, IReadOnlyList<string> Gpus)
{
    public bool HoldsSameAs(HeldGpus other) => Pod == other.Pod && Container == other.Container && Gpus.SequenceEqual(other.Gpus);
}

/// <summary>The kubelet's own word, over its PodResources socket. Metric labels are not: they lack pods at times, and name the wrong one at others.</summary>
internal sealed class Kubelet : IDisposable
{
    private static readonly TimeSpan Limit = TimeSpan.FromSeconds(5);

    /// <summary>A device plugin that shares a GPU appends which share it is: <c>GPU-...::2</c>.</summary>
    private const string ShareMark = "::";

    private readonly TimeProvider time;
    private readonly GrpcChannel channel;

    public Kubelet(string socket, TimeProvider time)
    {
        this.time = time;
        var sockets = new SocketsHttpHandler
        {
            ConnectCallback = async (_, cancellation) =>
            {
                var connection = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
                try
                {
                    await connection.ConnectAsync(new UnixDomainSocketEndPoint(socket), cancellation).ConfigureAwait(false);
                    return new NetworkStream(connection, ownsSocket: true);
                }
                catch
                {
                    connection.Dispose();
                    throw;
                }
            },
        };
        channel = GrpcChannel.ForAddress("http://localhost", new GrpcChannelOptions { HttpHandler = sockets, DisposeHttpClient = true });
    }

    /// <summary>Containers that hold GPUs, in order of namespace, pod and container.</summary>
    /// <exception cref="RpcException">The kubelet does not answer, within five seconds, or speaks no version v1.</exception>
    public async Task<IReadOnlyList<HeldGpus>> ListAsync(CancellationToken cancellation)
    {
        using var late = new CancellationTokenSource(Limit, time);
        using var either = CancellationTokenSource.CreateLinkedTokenSource(cancellation, late.Token);
        try
        {
            var answer = await new PodResourcesLister.PodResourcesListerClient(channel)
                .ListAsync(new ListPodResourcesRequest(), cancellationToken: either.Token).ConfigureAwait(false);
            return Read(answer);
        }
        catch (RpcException) when (cancellation.IsCancellationRequested)
        {
            throw new OperationCanceledException(cancellation);
        }
        catch (RpcException) when (late.IsCancellationRequested)
        {
            throw new RpcException(new Status(StatusCode.DeadlineExceeded, $"no answer within {Limit.TotalSeconds:0} s"));
        }
    }

    internal static IReadOnlyList<HeldGpus> Read(ListPodResourcesResponse answer) =>
    [
        .. from pod in answer.PodResources
           from container in pod.Containers
           let gpus = container.Devices
               .Where(devices => devices.ResourceName.StartsWith(Formats.GpuResourcePrefix, StringComparison.Ordinal))
               .SelectMany(devices => devices.DeviceIds)
               .Select(id => id.Split(ShareMark, 2)[0])
               .Distinct()
               .Order(StringComparer.Ordinal)
               .ToArray()
           where gpus.Length > 0
           orderby pod.Namespace, pod.Name, container.Name
           select new HeldGpus(new PodKey(pod.Namespace, pod.Name), container.Name, gpus),
    ];

    public void Dispose() => channel.Dispose();
}
