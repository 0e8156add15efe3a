using System.Net;
using k8s;
using k8s.Autorest;
using k8s.Models;

namespace Tensormesh.TestKit;

/// <summary>Hollow nodes that share one watch of all bound pods, so that a hundred of them with thousands of pods are cheap.</summary>
public sealed class HollowNodes : IAsyncDisposable
{
    /// <summary>On every hollow node, with the value <c>true</c>.</summary>
    public const string NodeLabel = "hollow.tensormesh.ai/node";

    private const int CallsAtOnce = 32;
    private static readonly TimeSpan FirstRetry = TimeSpan.FromMilliseconds(100);
    private static readonly TimeSpan LongestRetry = TimeSpan.FromSeconds(5);
    private static readonly TimeSpan DisposeLimit = TimeSpan.FromSeconds(20);

    private readonly Lock _lock = new();
    private readonly Dictionary<string, HollowNode> _nodes = new(StringComparer.Ordinal);
    private readonly Dictionary<string, Resident> _residents = new(StringComparer.Ordinal);
    private readonly Dictionary<string, V1Pod> _elsewhere = new(StringComparer.Ordinal);
    private readonly List<Exception> _failures = [];
    private readonly SemaphoreSlim _calls = new(CallsAtOnce);
    private readonly CancellationTokenSource _stopping = new();
    private readonly PodFeed _feed;
    private readonly Task _feeding;
    private Injection[] _injections = [];
    private int _nodeNumber;
    private int _podNumber;
    private bool _disposed;

    private HollowNodes(IKubernetes client, TimeProvider time, string fieldSelector)
    {
        (Client, Time) = (client, time);
        _feed = new PodFeed(client, fieldSelector, time, Seen, Gone);
        _feeding = RecordFailureAsync(_feed.RunAsync(_stopping.Token));
    }

    /// <summary>How often all pods were listed: once, plus once for each time that the watch could not go on.</summary>
    public int Lists => _feed.Lists;

    /// <summary>How many watches were opened, one after the other; never two at once.</summary>
    public int Watches => _feed.Watches;

    /// <summary>What went wrong in the hollow kubelets themselves; a test asserts that it is empty.</summary>
    public IReadOnlyList<Exception> Failures
    {
        get
        {
            lock (_lock)
            {
                return [.. _failures];
            }
        }
    }

    public IReadOnlyList<HollowNode> Nodes
    {
        get
        {
            lock (_lock)
            {
                return [.. _nodes.Values];
            }
        }
    }

    /// <summary>Sees each state of each pod's container when its kubelet comes to it, before the API server is told: the truth that all else can only have heard.</summary>
    public Action<V1Pod, V1ContainerState>? Witness { get; set; }

    internal IKubernetes Client { get; }

    internal TimeProvider Time { get; }

    internal CancellationToken Stopping => _stopping.Token;

    /// <summary>A pool without nodes yet. The client stays the caller's.</summary>
    public static HollowNodes Start(IKubernetes client, TimeProvider? time = null) =>
        Start(client, time ?? TimeProvider.System, "spec.nodeName!=");

    internal static HollowNodes Start(IKubernetes client, TimeProvider time, string fieldSelector) => new(client, time, fieldSelector);

    /// <summary>Registers a node; when this returns it is in the cluster, Ready and without taints. A node object of that name is taken over.</summary>
    public async Task<HollowNode> AddAsync(HollowNodeOptions options, CancellationToken cancellationToken)
    {
        HollowNode node;
        lock (_lock)
        {
            ObjectDisposedException.ThrowIf(_disposed, this);
            var number = ++_nodeNumber;
            node = new HollowNode(this, options, $"10.127.{number / 250}.{(number % 250) + 1}");
            if (!_nodes.TryAdd(options.Name, node))
            {
                throw new ArgumentException($"There is a hollow node {options.Name} already.", nameof(options));
            }
        }

        try
        {
            await node.RegisterAsync(cancellationToken);
        }
        catch
        {
            lock (_lock)
            {
                _nodes.Remove(options.Name);
            }

            throw;
        }

        lock (_lock)
        {
            // Pods that were bound to this name before the node was here.
            foreach (var pod in _elsewhere.Values.Where(pod => pod.Spec.NodeName == node.Name).ToArray())
            {
                MoveIn(pod, node);
            }
        }

        return node;
    }

    /// <summary>Several at once, registered in parallel.</summary>
    public Task<HollowNode[]> AddAsync(IEnumerable<HollowNodeOptions> options, CancellationToken cancellationToken) =>
        Task.WhenAll(options.Select(one => AddAsync(one, cancellationToken)));

    /// <summary>
    /// Puts a fault on the pods that <paramref name="where"/> picks, those that live and those to come, until the result is disposed.
    /// </summary>
    public IDisposable Inject(HollowFault fault, Func<V1Pod, bool> where)
    {
        var injection = new Injection(this, fault, where);
        lock (_lock)
        {
            _injections = [.. _injections, injection];
        }

        WakePods();
        return injection;
    }

    /// <summary>Removes every node with its lease and pods, then ends the watch. Gives up on a server that is gone.</summary>
    public async ValueTask DisposeAsync()
    {
        lock (_lock)
        {
            if (_disposed)
            {
                return;
            }

            _disposed = true;
        }

        await Task.WhenAll(Nodes.Select(RemoveAsync));
        await EndAsync();
    }

    /// <summary>
    /// Instead of disposing, for a cluster that ends as well: stops watch, heartbeats and pods, and leaves what is in the cluster as it is.
    /// </summary>
    public async Task AbandonAsync()
    {
        lock (_lock)
        {
            if (_disposed)
            {
                return;
            }

            _disposed = true;
        }

        await EndAsync();
    }

    private async Task EndAsync()
    {
        Resident[] residents;
        lock (_lock)
        {
            residents = [.. _residents.Values];
        }

        await _stopping.CancelAsync();
        await Task.WhenAll(residents.Select(resident => resident.Living));
        foreach (var node in Nodes)
        {
            await node.Beating.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        }

        await _feeding.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        _stopping.Dispose();
        _calls.Dispose();
    }

    internal HollowFault FaultOf(V1Pod pod, HollowNode node)
    {
        var fault = HollowFault.Of(pod);
        foreach (var injection in Volatile.Read(ref _injections))
        {
            if (injection.Where(pod))
            {
                fault = fault.And(injection.Fault);
            }
        }

        return fault;
    }

    internal IReadOnlyList<V1Pod> PodsOn(HollowNode node)
    {
        lock (_lock)
        {
            return [.. _residents.Values.Where(resident => resident.Node == node).Select(resident => resident.Pod.Pod)];
        }
    }

    internal void WakePodsOn(HollowNode node) => WakePods(node);

    /// <summary>A call that the node makes: waits for its line and a free slot, and tries again, ever more slowly, what may pass.</summary>
    internal async Task CallAsync(HollowNode node, Func<CancellationToken, Task> call, CancellationToken cancellationToken)
    {
        for (var wait = FirstRetry; ; wait = wait * 2 < LongestRetry ? wait * 2 : LongestRetry)
        {
            await node.Link.EnterAsync(cancellationToken);
            try
            {
                await _calls.WaitAsync(cancellationToken);
                try
                {
                    await call(cancellationToken);
                    return;
                }
                finally
                {
                    _calls.Release();
                }
            }
            catch (Exception e) when (Transient.Is(e, cancellationToken) || IsConflict(e))
            {
                // Patches without a version conflict only with writers of the same moment.
            }
            finally
            {
                node.Link.Leave();
            }

            await Task.Delay(wait, Time, cancellationToken);
        }
    }

    internal async Task ForceDeleteAsync(V1Pod pod, HollowNode node, CancellationToken cancellationToken)
    {
        var options = new V1DeleteOptions { GracePeriodSeconds = 0, Preconditions = new V1Preconditions { Uid = pod.Uid() } };
        try
        {
            await CallAsync(
                node,
                async token =>
                {
                    try
                    {
                        await Client.CoreV1.DeleteNamespacedPodAsync(pod.Name(), pod.Namespace(), options, cancellationToken: token);
                    }
                    catch (HttpOperationException e) when (IsConflict(e))
                    {
                        // Another pod has its name by now: this one is gone.
                    }
                },
                cancellationToken);
        }
        catch (HttpOperationException e) when (e.Response.StatusCode == HttpStatusCode.NotFound)
        {
            // Gone already.
        }
    }

    internal async Task RemoveAsync(HollowNode node)
    {
        Resident[] residents;
        lock (_lock)
        {
            if (!_nodes.Remove(node.Name))
            {
                return;
            }

            residents = [.. _residents.Values.Where(resident => resident.Node == node)];
            foreach (var resident in residents)
            {
                _residents.Remove(resident.Pod.Uid);
            }
        }

        await node.Stopping.CancelAsync();
        await Task.WhenAll(residents.Select(resident => resident.Living));
        node.Link.Mend();
        using var limit = new CancellationTokenSource(DisposeLimit, Time);
        try
        {
            await node.DeregisterAsync(limit.Token);
            // What ran on a machine that is no more, as the pod garbage collector would remove it.
            await Task.WhenAll(residents.Select(resident => ForceDeleteAsync(resident.Pod.Pod, node, limit.Token)));
        }
        catch (Exception e) when (e is HttpOperationException or HttpRequestException or IOException or OperationCanceledException)
        {
            // The cluster went first, and took node and pods with it.
        }

        node.Stopping.Dispose();
    }

    private void Seen(V1Pod pod)
    {
        pod.Metadata.ManagedFields = null;
        lock (_lock)
        {
            if (_residents.TryGetValue(pod.Uid(), out var resident))
            {
                resident.Pod.Observe(pod);
            }
            else if (_nodes.TryGetValue(pod.Spec.NodeName, out var node) && !node.Stopping.IsCancellationRequested)
            {
                MoveIn(pod, node);
            }
            else
            {
                _elsewhere[pod.Uid()] = pod;
            }
        }
    }

    private void Gone(string uid)
    {
        Resident? resident;
        lock (_lock)
        {
            _elsewhere.Remove(uid);
            _residents.Remove(uid, out resident);
        }

        resident?.Gone.Cancel();
        resident?.Gone.Dispose();
    }

    private void MoveIn(V1Pod pod, HollowNode node)
    {
        _elsewhere.Remove(pod.Uid());
        var resident = new HollowPod(pod, node, this, PodIp(++_podNumber));
        var gone = CancellationTokenSource.CreateLinkedTokenSource(node.Stopping.Token);
        // Off this thread: the first steps of a pod's life must not hold up the watch.
        var living = Task.Run(() => RecordFailureAsync(resident.LiveAsync(gone.Token)));
        _residents.Add(pod.Uid(), new Resident(resident, node, gone, living));
    }

    private void WakePods(HollowNode? node = null)
    {
        Resident[] residents;
        lock (_lock)
        {
            residents = [.. _residents.Values.Where(resident => node is null || resident.Node == node)];
        }

        foreach (var resident in residents)
        {
            resident.Pod.Wake();
        }
    }

    /// <summary>Observes the task: its end by cancellation is in order, anything else is kept for <see cref="Failures"/>.</summary>
    private async Task RecordFailureAsync(Task task)
    {
        try
        {
            await task;
        }
        catch (OperationCanceledException)
        {
            // The pod is gone, or the pool is.
        }
        catch (Exception e)
        {
            lock (_lock)
            {
                _failures.Add(e);
            }
        }
    }

    private static bool IsConflict(Exception e) => e is HttpOperationException { Response.StatusCode: HttpStatusCode.Conflict };

    /// <summary>Addresses 10.128.0.1 to 10.255.255.254, each once in 8 million pods.</summary>
    private static string PodIp(int number) => $"10.{128 + ((number >> 16) & 127)}.{(number >> 8) & 255}.{number & 255}";

    private sealed record Resident(HollowPod Pod, HollowNode Node, CancellationTokenSource Gone, Task Living);

    private sealed class Injection(HollowNodes nodes, HollowFault fault, Func<V1Pod, bool> where) : IDisposable
    {
        public HollowFault Fault => fault;

        public Func<V1Pod, bool> Where => where;

        public void Dispose()
        {
            lock (nodes._lock)
            {
                nodes._injections = [.. nodes._injections.Where(other => other != this)];
            }

            nodes.WakePods();
        }
    }
}
