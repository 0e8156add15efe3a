using System.Diagnostics;
using System.Security.Cryptography;
using k8s;
using k8s.Models;
using Tensormesh.Resources;

namespace Tensormesh.TestKit;

/// <summary>
/// A real Kubernetes control plane on this machine with nodes and a private Postgres, started for its
/// owner and gone with it. Or, where TENSORMESH_KUBECONFIG names a cluster, that cluster: nothing is then started
/// but Postgres, and nothing is deleted that was not made here.
/// </summary>
public sealed class DevCluster : IAsyncDisposable
{
    /// <summary>
    /// An image that real nodes have: a shell with busybox's commands, and `cuda-uuids`, which prints the GPUs that CUDA shows. Without a
    /// command it waits, and ends at once when told to.
    /// </summary>
    public const string WorkloadImage = ContainerImages.Workload;

    private const int LongestStateDirectory = 60;

    private readonly ClusterRecord _record;
    private readonly ControlPlane? _plane;
    private readonly Lazy<HollowNodes> _hollowNodes;
    private RealNode? _node;

    private DevCluster(ClusterRecord record, ControlPlane? plane, PostgresServer postgres, string kubeconfig)
    {
        _record = record;
        _plane = plane;
        Postgres = postgres;
        KubeconfigPath = kubeconfig;
        var configuration = KubernetesClientConfiguration.BuildConfigFromConfigFile(kubeconfig);
        ApiServer = new Uri(configuration.Host);
        Client = new Kubernetes(configuration);
        _hollowNodes = new(() => HollowNodes.Start(Client));
    }

    /// <summary>For whatever else is started for this cluster: it is swept with it.</summary>
    internal ClusterRecord Record => _record;

    /// <summary>A kubeconfig file of the administrator.</summary>
    public string KubeconfigPath { get; }

    public IKubernetes Client { get; }
    public Uri ApiServer { get; }

    /// <summary>A private one, durable as the product's must be; gone with the cluster.</summary>
    public PostgresServer Postgres { get; }

    /// <summary>Where pods of the real node reach this machine, and <see cref="Postgres"/> on it; null where they do not.</summary>
    public System.Net.IPAddress? AddressForPods { get; private init; }

    /// <summary>Logs, keys and data of this cluster; deleted with it.</summary>
    public string StateDirectory => _record.Directory;

    /// <summary>True on a cluster of the user's own, where the control plane cannot be stopped and nodes are not ours.</summary>
    public bool IsUsersOwn => _plane is null;

    /// <summary>True when gpu-a runs real containers.</summary>
    public bool HasRealNode => _node is not null;

    /// <summary>Where the real node's kubelet tells which pod holds which device.</summary>
    public string PodResourcesSocket => Path.Combine(StateDirectory, "node", "kubelet", "pod-resources", "kubelet.sock");

    /// <summary>The real node's mock driver: a fault that is set there is seen by the containers that have a GPU and by the node's agent.</summary>
    public NodeDriver Driver => OwnNode().Driver;

    /// <summary>What the product's own accounts asked of the API server so far, as its audit log says.</summary>
    public IReadOnlyCollection<UsedRight> UsedRights => UsedRight.Read(OwnPlane("requests are not recorded").AuditLogFile);

    /// <summary>The PEM file of the authority that signed the API server's certificate; empty on a user's own cluster.</summary>
    public string CertificateAuthorityFile => _plane?.Credentials.AuthorityFile ?? "";

    /// <param name="say">Sees one line for each step that a person may wait for.</param>
    /// <exception cref="InvalidOperationException">Something is missing or died; the message says what to do, or holds the
    /// log's end.</exception>
    public static async Task<DevCluster> StartAsync(DevClusterOptions options, Action<string> say, CancellationToken cancellation)
    {
        ArgumentNullException.ThrowIfNull(options);
        ArgumentNullException.ThrowIfNull(say);
        if (!OperatingSystem.IsLinux())
            throw new PlatformNotSupportedException(
                "The dev cluster runs on Linux; elsewhere use it in a Linux virtual machine or container.");

        var began = Stopwatch.GetTimestamp();
        void SayTimed(string line) => say($"[{Stopwatch.GetElapsedTime(began).TotalSeconds,5:0.0} s] {line}");

        Directory.CreateDirectory(StateRoot.Directory);
        foreach (var id in await Sweep.DeadOwnersAsync(cancellation))
            SayTimed($"swept what cluster {id} had left behind");
        await Prerequisites.EnsureCommonAsync(SayTimed, cancellation);

        var usersOwn = Environment.GetEnvironmentVariable("TENSORMESH_KUBECONFIG");
        var record = CreateRecord(options);
        try
        {
            return usersOwn is { Length: > 0 }
                ? await AttachAsync(record, options, usersOwn, SayTimed, cancellation)
                : await StartOwnAsync(record, options, SayTimed, cancellation);
        }
        catch
        {
            await Sweep.RemoveAsync(record);
            throw;
        }
    }

    /// <summary>
    /// Takes away what dev clusters whose owner was killed have left on this machine; every start does so too.
    /// Returns their ids.
    /// </summary>
    public static Task<IReadOnlyList<string>> SweepAsync(CancellationToken cancellation) => Sweep.DeadOwnersAsync(cancellation);

    /// <summary>The hollow nodes of this cluster, which share one watch; started with the first use.</summary>
    public HollowNodes Hollow => _hollowNodes.Value;

    /// <summary>Adds a hollow node, which is gone when it or the cluster is disposed.</summary>
    /// <exception cref="InvalidOperationException">The cluster has a node of this name that is not hollow, and it is left
    /// alone.</exception>
    public async Task<HollowNode> AddHollowNodeAsync(HollowNodeOptions options, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(options);
        var nodes = await Client.CoreV1.ListNodeAsync(fieldSelector: $"metadata.name={options.Name}", cancellationToken: cancellation);
        return nodes.Items.Any(node => node.GetLabel(HollowNodes.NodeLabel) is null)
            ? throw new InvalidOperationException($"The cluster has a node {options.Name} of its own: name the hollow one otherwise.")
            : await Hollow.AddAsync(options, cancellation);
    }

    /// <summary>
    /// Writes a kubeconfig of any user and groups into the state directory and returns its path. RBAC decides
    /// what they may do; group `system:masters` may do everything.
    /// </summary>
    /// <exception cref="NotSupportedException">On a user's own cluster: its authority is not ours.</exception>
    public string CreateKubeconfig(string user, params string[] groups)
    {
        var name = string.Concat(user.Select(letter => char.IsAsciiLetterOrDigit(letter) || letter is '-' or '.' ? letter : '_'));
        return OwnPlane("users cannot be added").WriteUserKubeconfig(Path.Combine(StateDirectory, $"{name}.kubeconfig"), user, groups);
    }

    public async Task RestartApiServerAsync()
    {
        await StopApiServerAsync();
        await StartApiServerAsync();
    }

    /// <summary>Returns when the API server has ended; etcd, controllers and nodes go on.</summary>
    public Task StopApiServerAsync() => OwnPlane("the API server cannot be stopped").StopApiServerAsync();

    /// <summary>Returns when the API server says that it is ready. Its address stays the same.</summary>
    public Task StartApiServerAsync() => OwnPlane("the API server cannot be started").StartApiServerAsync(CancellationToken.None);

    /// <summary>Kills the real node's container engine and starts it again; its containers run on.</summary>
    public Task RestartContainerdAsync(CancellationToken cancellation) => OwnNode().RestartContainerdAsync(cancellation);

    /// <summary>Kills the real node's kubelet and starts another; its containers run on.</summary>
    public Task RestartKubeletAsync() => OwnNode().RestartKubeletAsync();

    /// <summary>Gives the real node the images of an archive, as a pull would.</summary>
    internal Task ImportImagesAsync(string archive, CancellationToken cancellation) => OwnNode().ImportImagesAsync(archive, cancellation);

    /// <summary>Returns when the process runs, which is a moment before it works.</summary>
    public Task StartControllerManagerAsync(ControllerManagerOptions options) =>
        OwnPlane("the controller manager cannot be started").StartControllerManagerAsync(options);

    /// <summary>Returns when the controller manager has ended.</summary>
    public Task StopControllerManagerAsync() => OwnPlane("the controller manager cannot be stopped").StopControllerManagerAsync();

    public async ValueTask DisposeAsync()
    {
        // What is in a cluster that ends with its etcd need not be deleted from it.
        if (_hollowNodes.IsValueCreated)
            await (_plane is null ? Hollow.DisposeAsync().AsTask() : Hollow.AbandonAsync());
        Client.Dispose();
        if (_plane is not null) UsedRight.Record(_plane.AuditLogFile, _record.Id);
        await Task.WhenAll(
            Postgres.DisposeAsync().AsTask(), _node?.DisposeAsync().AsTask() ?? Task.CompletedTask,
            _plane?.DisposeAsync().AsTask() ?? Task.CompletedTask);
        await Sweep.RemoveAsync(_record);
    }

    private static async Task<DevCluster> AttachAsync(
        ClusterRecord record, DevClusterOptions options, string kubeconfig, Action<string> say, CancellationToken cancellation)
    {
        var postgres = await StartPostgresAsync(record, pods: null, cancellation);
        var cluster = new DevCluster(record, plane: null, postgres, kubeconfig);
        var version = await cluster.Client.Version.GetCodeAsync(cancellation);
        say($"using the cluster of {kubeconfig}: Kubernetes {version.GitVersion} at {cluster.ApiServer}");
        var nodes = await cluster.Client.CoreV1.ListNodeAsync(cancellationToken: cancellation);
        var hasGpus = nodes.Items.Any(node => node.Status.Allocatable?.ContainsKey(WellKnown.GpuResource) == true);
        await cluster.AddHollowNodesAsync(options, hasGpus ? null : "no node of this cluster has GPUs", say, cancellation);
        return cluster;
    }

    private static async Task<DevCluster> StartOwnAsync(
        ClusterRecord record, DevClusterOptions options, Action<string> say, CancellationToken cancellation)
    {
        var whyHollow = options.RealNode ? await RealNode.WhyNotHereAsync(cancellation) : "no real node was asked for";
        var binaries = await ControlPlaneBinaries.ResolveAsync(forRealNode: whyHollow is null, say, cancellation);
        whyHollow ??= RealNode.WhyNot(binaries);
        var realNode = whyHollow is null;
        await Prerequisites.EnsureControlPlaneAsync(binaries.BringsEtcd, say, cancellation);
        if (realNode) await Prerequisites.EnsureRealNodeAsync(say, cancellation);
        var network = realNode ? await RealNode.ClaimNetworkAsync(record, cancellation) : NodeNetwork.FindFree();
        var plane = new ControlPlane(record, binaries, network, realNode);
        using var abandoned = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        var postgres = StartPostgresAsync(record, realNode ? network : null, abandoned.Token);
        var node = realNode ? RealNode.StartAsync(record, binaries, network, plane, say, abandoned.Token) : null;
        try
        {
            await plane.StartAsync(options.ControllerManager, abandoned.Token);
            say($"control plane ready: {binaries} at {plane.ApiServer}");
            var kubeconfig = plane.WriteAdminKubeconfig(Path.Combine(record.Directory, "admin.kubeconfig"));
            var cluster = new DevCluster(record, plane, await postgres, kubeconfig) { AddressForPods = network.HostAddress };
            if (node is not null)
                whyHollow = await cluster.JoinRealNodeAsync(node, say, abandoned.Token);
            if (options.ControllerManager is not null) await cluster.WaitForDefaultServiceAccountAsync(abandoned.Token);
            await cluster.AddHollowNodesAsync(options, whyHollow, say, abandoned.Token);
            say("controllers and Postgres ready");
            return cluster;
        }
        catch
        {
            // The sweep that follows takes away what the record names, so nothing may still be starting.
            await abandoned.CancelAsync();
            await Task.WhenAll(postgres, node ?? Task.CompletedTask).ContinueWith(_ => { }, TaskScheduler.Default);
            throw;
        }
    }

    /// <summary>
    /// Null when the real node has joined. Else why not: machines differ in what their kernel and container engine
    /// allow, and a cluster whose gpu-a is hollow serves most who would otherwise have none.
    /// </summary>
    private async Task<string?> JoinRealNodeAsync(Task<RealNode> starting, Action<string> say, CancellationToken cancellation)
    {
        RealNode? node = null;
        try
        {
            node = await starting;
            await node.JoinAsync(Client, cancellation);
            _node = node;
            say($"node {RealNode.Name} ready: real containers, {RealNode.GpuCount} mock GPUs");
            return null;
        }
        catch (Exception failure) when (
            failure is InvalidOperationException or TimeoutException or IOException or UnauthorizedAccessException)
        {
            if (node is not null)
            {
                await node.DisposeAsync();
                await RealNode.UnregisterAsync(Client, cancellation);
            }

            return $"the real node did not start: {failure.Message}";
        }
    }

    /// <param name="whyHollow">Why gpu-a is not real; null when its GPUs are there already.</param>
    private async Task AddHollowNodesAsync(DevClusterOptions options, string? whyHollow, Action<string> say, CancellationToken cancellation)
    {
        if (whyHollow is not null)
        {
            await AddHollowNodeAsync(HollowNodeOptions.H100(RealNode.Name), cancellation);
            say($"node {RealNode.Name} is hollow, its containers imagined: {whyHollow}");
        }

        // A node that is there already is the user's: a hollow one of its name would take it over, and delete it at the end.
        var taken = (await Client.CoreV1.ListNodeAsync(cancellationToken: cancellation)).Items.Any(node => node.Name() == "gpu-b");
        if (options.HollowGpuB && taken) say("node gpu-b is there already and stays as it is");
        if (options.HollowGpuB && !taken)
        {
            await AddHollowNodeAsync(HollowNodeOptions.L40S("gpu-b"), cancellation);
            say("node gpu-b ready: hollow, 4 x NVIDIA-L40S");
        }
    }

    private static Task<PostgresServer> StartPostgresAsync(ClusterRecord record, NodeNetwork? pods, CancellationToken cancellation) =>
        PostgresServer.StartAsync(
            Path.Combine(record.Directory, "postgres"), cancellation, guests: pods is null ? null : (pods.HostAddress, pods.PodRange));

    /// <summary>Pods are refused until the controller manager has made the namespace's account, so this shows that it works.</summary>
    private async Task WaitForDefaultServiceAccountAsync(CancellationToken cancellation)
    {
        while (true)
        {
            var accounts = await Client.CoreV1.ListNamespacedServiceAccountAsync("default", cancellationToken: cancellation);
            if (accounts.Items.Any(account => account.Name() == "default"))
                return;
            _plane?.ThrowIfExited();
            await Task.Delay(TimeSpan.FromMilliseconds(50), TimeProvider.System, cancellation);
        }
    }

    internal ControlPlane OwnPlane(string what) =>
        _plane ?? throw new NotSupportedException($"TENSORMESH_KUBECONFIG names a cluster of your own: {what} there.");

    private RealNode OwnNode() => _node ?? throw new NotSupportedException($"{RealNode.Name} is not a real node here.");

    private static ClusterRecord CreateRecord(DevClusterOptions options)
    {
        var id = Convert.ToHexStringLower(RandomNumberGenerator.GetBytes(3));
        var directory = options.StateDirectory is { } named ? Path.GetFullPath(named) : Path.Combine(StateRoot.Directory, id);
        if (directory.Length > LongestStateDirectory)
        {
            throw new ArgumentException(
                $"The state directory {directory} is longer than {LongestStateDirectory} characters, "
                + "and Unix sockets below it would not open.");
        }

        if (Directory.Exists(directory) && Directory.EnumerateFileSystemEntries(directory).Any())
            throw new ArgumentException($"The state directory {directory} is not empty. It is deleted at the end, so name one of its own.");

        var record = ClusterRecord.Create(id, directory);
        Directory.CreateDirectory(Path.Combine(directory, "logs"));
        return record;
    }
}
