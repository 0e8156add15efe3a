using System.Globalization;
using System.Net;
using k8s;
using k8s.Autorest;
using k8s.Models;
using Tensormesh.Resources;

namespace Tensormesh.TestKit;

/// <summary>
/// A node without a kubelet: registered with the labels of GPU Feature Discovery, its lease renewed, its pods taken through their lives
/// by <see cref="HollowPod"/>. Disposing removes the node, its lease and what ran on it.
/// </summary>
public sealed class HollowNode : IAsyncDisposable
{
    private const string LeaseNamespace = "kube-node-lease";
    private const int LeaseSeconds = 40;
    private readonly HollowNodes _nodes;
    private HollowNodes? _ownPool;
    private DateTime _readySince;

    internal HollowNode(HollowNodes nodes, HollowNodeOptions options, string internalIp)
    {
        (_nodes, Options, InternalIp) = (nodes, options, internalIp);
        Stopping = CancellationTokenSource.CreateLinkedTokenSource(nodes.Stopping);
    }

    public HollowNodeOptions Options { get; }

    public string Name => Options.Name;

    public bool IsLost => !Link.IsOpen;

    /// <summary>The pods that this node knows, as last seen.</summary>
    public IReadOnlyList<V1Pod> Pods => _nodes.PodsOn(this);

    internal string InternalIp { get; }

    internal NodeLink Link { get; } = new();

    internal CancellationTokenSource Stopping { get; }

    internal Task Beating { get; private set; } = Task.CompletedTask;

    /// <summary>One node with a watch of its own. For more than a few, take <see cref="HollowNodes"/>: they share one.</summary>
    public static async Task<HollowNode> StartAsync(IKubernetes client, HollowNodeOptions options, CancellationToken cancellationToken)
    {
        var pool = HollowNodes.Start(client, TimeProvider.System, $"spec.nodeName={options.Name}");
        try
        {
            var node = await pool.AddAsync(options, cancellationToken);
            node._ownPool = pool;
            return node;
        }
        catch
        {
            await pool.DisposeAsync();
            throw;
        }
    }

    /// <summary>
    /// The node drops off the network: lease and heartbeats stop, and its pods are not touched from the moment this returns. Their containers run on unseen.
    /// </summary>
    public Task LoseAsync() => Link.CutAsync();

    /// <summary>The node is back: Ready again, and its pods' statuses catch up with what happened meanwhile.</summary>
    public async Task RecoverAsync(CancellationToken cancellationToken = default)
    {
        Link.Mend();
        _nodes.WakePodsOn(this);
        await RenewLeaseAsync(cancellationToken);
        await ReportStatusAsync(cancellationToken);
    }

    /// <summary>Puts a fault on those of this node's pods that <paramref name="where"/> picks (all by default), until the result is disposed.</summary>
    public IDisposable Inject(HollowFault fault, Func<V1Pod, bool>? where = null) =>
        _nodes.Inject(fault, pod => pod.Spec.NodeName == Name && (where is null || where(pod)));

    public async ValueTask DisposeAsync()
    {
        var pool = Interlocked.Exchange(ref _ownPool, null);
        if (pool is not null)
        {
            await pool.DisposeAsync();
            return;
        }

        await _nodes.RemoveAsync(this);
    }

    internal async Task RegisterAsync(CancellationToken cancellationToken)
    {
        _readySince = Now;
        var node = new V1Node
        {
            Metadata = new V1ObjectMeta { Name = Name, Labels = Labels() },
            Spec = new V1NodeSpec(),
            Status = Status(),
        };
        try
        {
            await _nodes.Client.CoreV1.CreateNodeAsync(node, cancellationToken: cancellationToken);
        }
        catch (HttpOperationException e) when (e.Response.StatusCode == HttpStatusCode.Conflict)
        {
            // A node left by an earlier run: it becomes this one.
        }

        // The API server taints every new node as not ready and leaves it to the node controller to see that it is; this node is ready now.
        var patch = new { metadata = new { labels = Labels() }, spec = new { taints = Array.Empty<V1Taint>() } };
        await _nodes.Client.CoreV1.PatchNodeAsync(new V1Patch(patch, V1Patch.PatchType.MergePatch), Name, cancellationToken: cancellationToken);
        await RenewLeaseAsync(cancellationToken);
        await ReportStatusAsync(cancellationToken);
        Beating = BeatAsync(Stopping.Token);
    }

    /// <summary>Ends the heartbeat and takes node and lease out of the cluster.</summary>
    internal async Task DeregisterAsync(CancellationToken cancellationToken)
    {
        await Beating.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        await IgnoreMissingAsync(() => _nodes.Client.CoreV1.DeleteNodeAsync(Name, cancellationToken: cancellationToken));
        await IgnoreMissingAsync(() =>
            _nodes.Client.CoordinationV1.DeleteNamespacedLeaseAsync(Name, LeaseNamespace, cancellationToken: cancellationToken));
    }

    private DateTime Now => _nodes.Time.GetUtcNow().UtcDateTime;

    private async Task BeatAsync(CancellationToken cancellationToken)
    {
        var reported = _nodes.Time.GetTimestamp();
        while (true)
        {
            await Task.Delay(Options.LeaseRenewEvery, _nodes.Time, cancellationToken);
            await RenewLeaseAsync(cancellationToken);
            if (_nodes.Time.GetElapsedTime(reported) >= Options.StatusEvery)
            {
                reported = _nodes.Time.GetTimestamp();
                await ReportStatusAsync(cancellationToken);
            }
        }
    }

    private async Task RenewLeaseAsync(CancellationToken cancellationToken)
    {
        // Written by hand because a Lease takes exactly six digits after the second.
        var renewTime = Now.ToString("yyyy-MM-dd'T'HH:mm:ss.ffffff'Z'", CultureInfo.InvariantCulture);
        var patch = new { spec = new { holderIdentity = Name, leaseDurationSeconds = LeaseSeconds, renewTime } };
        try
        {
            await _nodes.CallAsync(
                this,
                token => _nodes.Client.CoordinationV1.PatchNamespacedLeaseAsync(
                    new V1Patch(patch, V1Patch.PatchType.MergePatch), Name, LeaseNamespace, cancellationToken: token),
                cancellationToken);
        }
        catch (HttpOperationException e) when (e.Response.StatusCode == HttpStatusCode.NotFound)
        {
            await CreateLeaseAsync(cancellationToken);
        }
    }

    private Task CreateLeaseAsync(CancellationToken cancellationToken) => _nodes.CallAsync(
        this,
        async token =>
        {
            await EnsureLeaseNamespaceAsync(token);
            await _nodes.Client.CoordinationV1.CreateNamespacedLeaseAsync(
                new V1Lease
                {
                    Metadata = new V1ObjectMeta { Name = Name },
                    Spec = new V1LeaseSpec { HolderIdentity = Name, LeaseDurationSeconds = LeaseSeconds, RenewTime = Now },
                },
                LeaseNamespace,
                cancellationToken: token);
        },
        cancellationToken);

    /// <summary>The API server makes this namespace some time after it starts; a node may be quicker.</summary>
    private async Task EnsureLeaseNamespaceAsync(CancellationToken cancellationToken)
    {
        try
        {
            await _nodes.Client.CoreV1.CreateNamespaceAsync(
                new V1Namespace { Metadata = new V1ObjectMeta { Name = LeaseNamespace } }, cancellationToken: cancellationToken);
        }
        catch (HttpOperationException e) when (e.Response.StatusCode == HttpStatusCode.Conflict)
        {
            // The usual case.
        }
    }

    private Task ReportStatusAsync(CancellationToken cancellationToken)
    {
        var patch = new V1Patch(new { status = Status() }, V1Patch.PatchType.StrategicMergePatch);
        return _nodes.CallAsync(
            this, token => _nodes.Client.CoreV1.PatchNodeStatusAsync(patch, Name, cancellationToken: token), cancellationToken);
    }

    private V1NodeStatus Status()
    {
        var resources = new Dictionary<string, ResourceQuantity>
        {
            ["cpu"] = new($"{Options.CpuCores}"),
            ["memory"] = new($"{Options.MemoryGiB}Gi"),
            ["ephemeral-storage"] = new("1Ti"),
            ["pods"] = new($"{Options.Pods}"),
            [WellKnown.GpuResource] = new($"{Options.GpuCount}"),
        };
        return new V1NodeStatus
        {
            Capacity = resources,
            Allocatable = resources,
            Addresses =
            [
                new V1NodeAddress { Type = "InternalIP", Address = InternalIp },
                new V1NodeAddress { Type = "Hostname", Address = Name },
            ],
            Conditions =
            [
                Condition("Ready", "True", "KubeletReady", "the hollow node is ready"),
                Condition("MemoryPressure", "False", "KubeletHasSufficientMemory", "memory is imaginary"),
                Condition("DiskPressure", "False", "KubeletHasNoDiskPressure", "the disk is imaginary"),
                Condition("PIDPressure", "False", "KubeletHasSufficientPID", "processes are imaginary"),
            ],
            NodeInfo = new V1NodeSystemInfo
            {
                MachineID = Name,
                SystemUUID = Name,
                BootID = Name,
                KernelVersion = "hollow",
                OsImage = "hollow",
                ContainerRuntimeVersion = "hollow://1",
                KubeletVersion = "v1.20.2-hollow",
                KubeProxyVersion = "v1.20.2-hollow",
                OperatingSystem = "linux",
                Architecture = "amd64",
            },
        };
    }

    private V1NodeCondition Condition(string type, string status, string reason, string message) => new()
    {
        Type = type,
        Status = status,
        Reason = reason,
        Message = message,
        LastHeartbeatTime = Now,
        LastTransitionTime = _readySince,
    };

    private Dictionary<string, string> Labels()
    {
        var labels = new Dictionary<string, string>
        {
            ["kubernetes.io/hostname"] = Name,
            ["kubernetes.io/os"] = "linux",
            ["kubernetes.io/arch"] = "amd64",
            [HollowNodes.NodeLabel] = "true",
        };
        if (Options.GpuCount > 0)
        {
            labels["nvidia.com/gpu.present"] = "true";
            labels["nvidia.com/gpu.family"] = Options.GpuFamily;
            labels[WellKnown.GpuProductLabel] = Options.GpuProduct;
            labels[WellKnown.GpuMemoryLabel] = $"{Options.GpuMemoryMiB}";
            labels[WellKnown.GpuCountLabel] = $"{Options.GpuCount}";
            labels[WellKnown.GpuComputeMajorLabel] = $"{Options.ComputeMajor}";
            labels[WellKnown.GpuComputeMinorLabel] = $"{Options.ComputeMinor}";
        }

        foreach (var (name, value) in Options.Labels)
        {
            labels[name] = value;
        }

        return labels;
    }

    private static async Task IgnoreMissingAsync(Func<Task> delete)
    {
        try
        {
            await delete();
        }
        catch (HttpOperationException e) when (e.Response.StatusCode == HttpStatusCode.NotFound)
        {
            // Someone was quicker.
        }
    }
}
