using System.Net;
using k8s;
using k8s.Autorest;
using k8s.Models;

namespace Tensormesh.TestKit;

/// <summary>
/// Node gpu-a: a real kubelet, containerd, runc, CNI and kube-proxy, and a mock GPU device plugin that registers
/// with the kubelet as NVIDIA's does. Pods are real containers: they start, exit, crash and take their grace period. Those that ask for GPUs
/// get a mock driver that shows them.
/// </summary>
internal sealed class RealNode : IAsyncDisposable
{
    public const string Name = "gpu-a";
    public const int GpuCount = 8;

    private const string GpuProduct = "NVIDIA-H100-80GB-HBM3";
    private static readonly TimeSpan StartLimit = TimeSpan.FromSeconds(60);

    /// <summary>What GPU Feature Discovery writes on a node of eight H100.</summary>
    private static readonly IReadOnlyDictionary<string, string> Labels = new Dictionary<string, string>
    {
        ["nvidia.com/gpu.present"] = "true",
        ["nvidia.com/gpu.product"] = GpuProduct,
        ["nvidia.com/gpu.memory"] = "81559",
        ["nvidia.com/gpu.count"] = "8",
        ["nvidia.com/gpu.family"] = "hopper",
        ["nvidia.com/gpu.compute.major"] = "9",
        ["nvidia.com/gpu.compute.minor"] = "0",
    };

    private readonly ClusterRecord _record;
    private readonly NodeNamespace _namespace;
    private readonly NodeConfiguration _configuration;
    private readonly ControlPlaneBinaries _binaries;
    private readonly NodeNetwork _network;
    private readonly List<DevProcess> _processes = [];

    private RealNode(
        ClusterRecord record, NodeNamespace @namespace, NodeConfiguration configuration, ControlPlaneBinaries binaries, NodeNetwork network,
        NodeDriver driver)
    {
        Driver = driver;
        _record = record;
        _namespace = @namespace;
        _configuration = configuration;
        _binaries = binaries;
        _network = network;
    }

    public NodeDriver Driver { get; }

    /// <summary>
    /// Null where this machine can carry a real node, whatever its programs are still to be had from; else why not. Containers often let not
    /// even root make what a node lives in.
    /// </summary>
    public static async Task<string?> WhyNotHereAsync(CancellationToken cancellation)
    {
        if (!Environment.IsPrivilegedProcess) return "a real node needs root";
        if (DevicePlugin() is null) return "the mock device plugin is not beside this program";
        // A machine that still lacks `ip` gets it with the node's other packages.
        var (exitCode, output) = await Command.TryRunAsync(
            "unshare", ["--mount", "--net", "--pid", "--fork", "--mount-proc", "sh", "-c",
                "mount -t tmpfs probe /run && { ! command -v ip >/dev/null || ip link set lo up; }"],
            line: null, cancellation);
        return exitCode == 0 ? null : $"this machine refuses namespaces to root: {output.Trim()}";
    }

    /// <summary>Null where these programs make a node, else why not.</summary>
    public static string? WhyNot(ControlPlaneBinaries binaries) =>
        binaries.HasNodePrograms ? null : $"{binaries} has no kubelet, kube-proxy and pause";

    /// <summary>Takes the cluster's own address on `lo`, where the API server listens for the node and its pods.</summary>
    public static async Task<NodeNetwork> ClaimNetworkAsync(ClusterRecord record, CancellationToken cancellation)
    {
        await using var onlyOne = await StateRoot.LockAsync(Path.Combine(StateRoot.Directory, "network.lock"), waiting: null, cancellation);
        var network = NodeNetwork.FindFree();
        record.AddLoopbackAddress($"{network.HostAddress}/32");
        await Command.RunAsync($"ip address add {network.HostAddress}/32 dev lo", cancellation);
        return network;
    }

    /// <summary>
    /// Starts everything but kube-proxy. It may run while the API server is still on its way: a kubelet of this version waits five
    /// seconds for a Docker that is not there before it first asks.
    /// </summary>
    public static async Task<RealNode> StartAsync(
        ClusterRecord record, ControlPlaneBinaries binaries, NodeNetwork network, ControlPlane plane, Action<string> say,
        CancellationToken cancellation)
    {
        var folder = Path.Combine(record.Directory, "node");
        var mock = await MockDriver.BuildAsync(say, cancellation);
        var cgroup = "tensormesh-" + record.Id;
        Directory.CreateDirectory(folder);
        record.SetCgroup(cgroup);
        Cgroups.Create(cgroup);
        var configuration = new NodeConfiguration(folder, cgroup, network, plane.Credentials.AuthorityFile);
        configuration.Write();
        plane.WriteUserKubeconfig(configuration.KubeletKubeconfig, $"system:node:{Name}", "system:nodes");
        plane.WriteUserKubeconfig(configuration.ProxyKubeconfig, "system:kube-proxy");

        var @namespace = await NodeNamespace.CreateAsync(record, network, folder, binaries.Pause, cancellation);
        var driver = NodeDriver.Install(Path.Combine(folder, "driver"), mock, MockGpus.OfNode(Name, GpuCount));
        var node = new RealNode(record, @namespace, configuration, binaries, network, driver);
        try
        {
            await node.StartContainerdAsync(Path.Combine(folder, "images.tar"), mock, cancellation);
            await node.StartKubeletAsync();
            return node;
        }
        catch
        {
            await node.DisposeAsync();
            throw;
        }
    }

    /// <summary>Returns when the node is Ready and its GPUs can be allocated.</summary>
    public async Task JoinAsync(IKubernetes client, CancellationToken cancellation)
    {
        var proxy = await _namespace.StartAsync("kube-proxy", _binaries.Proxy, ["--config", _configuration.ProxyFile]);
        _processes.Add(proxy);
        await proxy.WaitUntilAsync(
            $"part of a Ready node with {GpuCount} GPUs", stop => HasGpusAsync(client, stop), StartLimit, cancellation);
    }

    /// <summary>Kills the container engine, as a crash does, and returns when it listens again. Containers run on.</summary>
    public async Task RestartContainerdAsync(CancellationToken cancellation)
    {
        await KillAsync("containerd");
        File.Delete(_configuration.ContainerdSocket);
        var containerd = await _namespace.StartAsync("containerd", "containerd", ["--config", _configuration.ContainerdFile]);
        _processes.Add(containerd);
        await containerd.WaitUntilAsync(
            "listening", _ => Task.FromResult(File.Exists(_configuration.ContainerdSocket)), StartLimit, cancellation);
    }

    /// <summary>Kills the kubelet, as a crash does, and starts another. Containers run on.</summary>
    public async Task RestartKubeletAsync()
    {
        await KillAsync("kubelet");
        _processes.Add(await _namespace.StartAsync("kubelet", _binaries.Kubelet, KubeletArguments()));
    }

    /// <summary>What was started is nsenter; the program itself is its only child.</summary>
    private async Task KillAsync(string name)
    {
        var parent = _processes.Single(process => process.Name == name);
        foreach (var program in ProcFs.ChildrenOf(parent.Identity.Pid).Select(pid => ProcFs.Identify(pid, name)).OfType<ProcessIdentity>())
        {
            ProcFs.Signal(program, ProcFs.SigKill);
            await ProcFs.WaitForEndAsync(program, StartLimit);
        }

        _processes.Remove(parent);
        await parent.DisposeAsync();
    }

    /// <summary>Takes a node that joined and then failed out of the cluster's books.</summary>
    public static async Task UnregisterAsync(IKubernetes client, CancellationToken cancellation)
    {
        try
        {
            await client.CoreV1.DeleteNodeAsync(Name, cancellationToken: cancellation);
        }
        catch (HttpOperationException absent) when (absent.Response.StatusCode == HttpStatusCode.NotFound)
        {
            // It never got as far.
        }
    }

    /// <summary>Throws with the log's end when one of the node's programs has died on its own.</summary>
    public void ThrowIfExited()
    {
        _namespace.ThrowIfExited();
        _processes.ForEach(process => process.ThrowIfExited());
    }

    public async ValueTask DisposeAsync()
    {
        await _namespace.DisposeAsync();
        await Task.WhenAll(_processes.Select(process => process.DisposeAsync().AsTask()));
    }

    private async Task StartContainerdAsync(string archive, MockDriver mock, CancellationToken cancellation)
    {
        var containerd = await _namespace.StartAsync("containerd", "containerd", ["--config", _configuration.ContainerdFile]);
        _processes.Add(containerd);
        var busybox = Command.Find("busybox")!;
        var applets = await Command.RunAsync(busybox, ["--list"], cancellation);
        var libraries = await SharedLibraries.OfAsync([mock.UuidsProgram, mock.CudaLibrary, mock.NvmlLibrary], cancellation);
        ContainerImages.Write(
            archive, _binaries.Pause, busybox, applets.Split('\n', StringSplitOptions.RemoveEmptyEntries), [mock.UuidsProgram], libraries);
        await containerd.WaitUntilAsync(
            "listening", _ => Task.FromResult(File.Exists(_configuration.ContainerdSocket)), StartLimit, cancellation);
        await ImportImagesAsync(archive, cancellation);
        File.Delete(archive);
    }

    /// <summary>Gives the node the images of an archive, as a pull would.</summary>
    public Task ImportImagesAsync(string archive, CancellationToken cancellation) => _namespace.RunAsync(
        "ctr", ["--address", _configuration.ContainerdSocket, "--namespace", "k8s.io", "images", "import", archive], cancellation);

    private async Task StartKubeletAsync()
    {
        _processes.Add(await _namespace.StartAsync("kubelet", _binaries.Kubelet, KubeletArguments()));
        _processes.Add(await _namespace.StartAsync("mock-device-plugin", DotnetHost(),
        [
            DevicePlugin()!, "--plugin-dir", "/var/lib/kubelet/device-plugins", "--resource", "nvidia.com/gpu",
            "--driver", Driver.Folder, "--product", GpuProduct, "--node", Name,
        ]));
    }

    private List<string> KubeletArguments()
    {
        List<string> arguments =
        [
            "--config", _configuration.KubeletFile, "--kubeconfig", _configuration.KubeletKubeconfig,
            "--root-dir", _configuration.KubeletRoot,
            "--cert-dir", Path.Combine(_configuration.KubeletRoot, "pki"), "--hostname-override", Name,
            "--node-ip", $"{_network.NodeAddress}",
            "--container-runtime-endpoint", $"unix://{_configuration.ContainerdSocket}",
            "--node-labels", string.Join(',', Labels.Select(label => $"{label.Key}={label.Value}")),
        ];
        if (_binaries.IsOlderThan(1, 24))
            arguments.Add("--container-runtime=remote");
        return arguments;
    }

    private async Task<bool> HasGpusAsync(IKubernetes client, CancellationToken cancellation)
    {
        ThrowIfExited();
        var nodes = await client.CoreV1.ListNodeAsync(fieldSelector: $"metadata.name={Name}", cancellationToken: cancellation);
        return nodes.Items.FirstOrDefault() is { } node
            && node.Status.Conditions?.Any(condition => condition is { Type: "Ready", Status: "True" }) == true
            && node.Status.Allocatable?.TryGetValue("nvidia.com/gpu", out var gpus) == true && gpus.ToInt32() == GpuCount
            && node.Spec.Taints is not { Count: > 0 };
    }

    /// <summary>Built with this project and copied beside it.</summary>
    private static string? DevicePlugin()
    {
        var file = Path.Combine(AppContext.BaseDirectory, "mock-device-plugin.dll");
        return File.Exists(file) && File.Exists(Path.ChangeExtension(file, ".runtimeconfig.json")) ? file : null;
    }

    /// <summary>The host that runs this very program, which need not be on the PATH.</summary>
    private static string DotnetHost()
    {
        var runtime = System.Runtime.InteropServices.RuntimeEnvironment.GetRuntimeDirectory();
        var host = Path.GetFullPath(Path.Combine(runtime, "..", "..", "..", "dotnet"));
        return File.Exists(host) ? host : "dotnet";
    }
}
