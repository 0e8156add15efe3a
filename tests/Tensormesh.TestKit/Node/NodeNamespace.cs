namespace Tensormesh.TestKit;

/// <summary>
/// The mount, network and process namespaces in which a real node lives. Whatever its programs start or
/// change ends with the first process in it, and that one ends with the owner.
/// </summary>
internal sealed class NodeNamespace : IAsyncDisposable
{
    private readonly ClusterRecord _record;
    private readonly DevProcess _unshare;
    private readonly int _firstPid;

    private NodeNamespace(ClusterRecord record, DevProcess unshare, int firstPid)
    {
        _record = record;
        _unshare = unshare;
        _firstPid = firstPid;
    }

    public static async Task<NodeNamespace> CreateAsync(
        ClusterRecord record, NodeNetwork network, string folder, string pause, CancellationToken cancellation)
    {
        var script = Path.Combine(AppContext.BaseDirectory, "Setup", "node-namespace.sh");
        var unshare = await DevProcess.StartAsync(record, "node-namespace", "unshare",
            ["--mount", "--net", "--pid", "--mount-proc", "--fork", "--kill-child=SIGKILL", "sh", script, folder, pause]);
        try
        {
            await unshare.WaitUntilAsync(
                "ready", _ => Task.FromResult(File.Exists(Path.Combine(folder, "namespace-ready"))),
                TimeSpan.FromSeconds(20), cancellation);
            var first = ProcFs.ChildrenOf(unshare.Identity.Pid).Single();
            record.Add(
                ProcFs.Identify(first, "node-namespace-first")
                ?? throw new InvalidOperationException("The node's namespace ended at once."));
            var node = new NodeNamespace(record, unshare, first);
            await node.ConnectAsync(network, cancellation);
            return node;
        }
        catch
        {
            await unshare.DisposeAsync();
            throw;
        }
    }

    /// <summary>Starts a program inside. It dies with the namespace; its log is the cluster's.</summary>
    public Task<DevProcess> StartAsync(string name, string file, IEnumerable<string> arguments) =>
        DevProcess.StartAsync(_record, name, "nsenter", [.. Enter(), file, .. arguments]);

    /// <summary>Runs a program inside to its end and returns what it printed.</summary>
    public Task<string> RunAsync(string file, IEnumerable<string> arguments, CancellationToken cancellation) =>
        Command.RunAsync("nsenter", [.. Enter(), file, .. arguments], cancellation);

    public void ThrowIfExited() => _unshare.ThrowIfExited();

    public async ValueTask DisposeAsync()
    {
        // Its child is killed with it, and every other process of the namespace with that child.
        await _unshare.DisposeAsync();
        if (_record.Current.Processes.FirstOrDefault(process => process.Pid == _firstPid) is { } first)
        {
            await ProcFs.WaitForEndAsync(first, TimeSpan.FromSeconds(10));
            _record.Remove(first);
        }
    }

    /// <summary>
    /// A pair of interfaces: one end here, the other on the host, with routes to the node and its pods. Nothing else can
    /// be reached, and that is refused at once: a kubelet asks the metadata services of several clouds who it is
    /// before it starts, and silence would cost it eleven seconds.
    /// </summary>
    private async Task ConnectAsync(NodeNetwork network, CancellationToken cancellation)
    {
        var host = network.HostInterface;
        _record.AddInterface(host);
        await Command.RunAsync($"ip link add {host} type veth peer name eth0 netns {_firstPid}", cancellation);
        await Command.RunAsync($"ip link set {host} up", cancellation);
        await RunAsync("sh",
        [
            "-c",
            $"ip address add {network.NodeAddress}/32 dev eth0 && ip link set eth0 up && ip route add {network.HostAddress}/32 dev eth0 "
            + $"&& ip route add {ControlPlane.FirstServiceAddress}/32 via {network.HostAddress} dev eth0 "
            + "&& ip route add unreachable default "
            + "&& echo 1 >/proc/sys/net/ipv4/ip_forward",
        ], cancellation);
        await Command.RunAsync($"ip route add {network.NodeAddress}/32 dev {host} src {network.HostAddress}", cancellation);
        await Command.RunAsync(
            $"ip route add {network.PodRange} via {network.NodeAddress} dev {host} src {network.HostAddress}", cancellation);
    }

    private string[] Enter() => ["--target", $"{_firstPid}", "--mount", "--net", "--pid", "--"];
}
