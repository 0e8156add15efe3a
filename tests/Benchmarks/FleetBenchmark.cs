using System.Diagnostics;
using k8s;
using k8s.Models;
using Tensormesh.Resources;
using Tensormesh.TestKit;

namespace Tensormesh.Benchmarks;

/// <summary>
/// How long the operator takes to act on the reports of 1,000 agents that all come at once, and what it takes of a machine's memory for them. Each report
/// says that one of the node's 8 GPUs failed, and the operator's answer to each can be seen: it labels the node, so that nothing more is placed there.
/// </summary>
internal static class FleetBenchmark
{
    private const int Nodes = 1_000;
    private const int GpusOfANode = 8;
    private const int AtOnce = 32;
    private static readonly TimeSpan Poll = TimeSpan.FromMilliseconds(50);

    public static async Task RunAsync(Workplace workplace, CancellationToken cancellation)
    {
        await using var cluster = await DevCluster.StartAsync(
            new DevClusterOptions { RealNode = false, ControllerManager = null }, line => Workplace.Say($"{line}"), cancellation);
        await using var product = await Installation.PrepareAsync(cluster, new InstallationOptions { Webhook = false }, cancellation);
        await product.StartOperatorAsync(cancellation);
        Workplace.Say($"operator of an empty cluster: {ProcessUsage.ResidentMegabytes(product.OperatorPid):0} MB");
        await ForEachNodeAsync(node => AddAsync(cluster.Client, node, cancellation), cancellation);
        await UntilReadAsync(product.MetricsUrl, cancellation);
        Workplace.Say($"{Nodes} nodes with {GpusOfANode} healthy GPUs: {ProcessUsage.ResidentMegabytes(product.OperatorPid):0} MB");

        var marked = cluster.Client.CoreV1.WatchListNodeAsync(labelSelector: WellKnown.GpuUnhealthyLabel, cancellationToken: cancellation);
        var began = Stopwatch.GetTimestamp();
        var wrote = TimeSpan.Zero;
        var reporting = ForEachNodeAsync(node => ReportAsync(cluster.Client, node, failed: 1, cancellation), cancellation)
            .ContinueWith(_ => wrote = Stopwatch.GetElapsedTime(began), cancellation, TaskContinuationOptions.ExecuteSynchronously, TaskScheduler.Default);
        var (nodes, most) = (new HashSet<string>(StringComparer.Ordinal), 0.0);
        await foreach (var (type, node) in marked)
        {
            if (type == WatchEventType.Added) nodes.Add(node.Metadata.Name);
            most = Math.Max(most, ProcessUsage.ResidentMegabytes(product.OperatorPid));
            if (nodes.Count == Nodes) break;
        }

        var took = Stopwatch.GetElapsedTime(began);
        await reporting;
        if (nodes.Count < Nodes) throw new InvalidOperationException($"the watch ended when {nodes.Count} of {Nodes} nodes were labelled");

        workplace.Report(
            "digest_s", took.TotalSeconds, "s", "<=10",
            $"from the first of {Nodes} reports of {GpusOfANode} GPUs each, one of them failed, until the operator has labelled every node; the reports took {wrote.TotalSeconds:0.0} s to write, load {Workplace.LoadAverage()}");
        workplace.Report("rss_mb", most, "MB", "<=300", $"VmRSS of the operator meanwhile, the most; peak since its start (VmHWM) {ProcessUsage.PeakMegabytes(product.OperatorPid):0} MB");
    }

    private static Task ForEachNodeAsync(Func<string, Task> work, CancellationToken cancellation) => Parallel.ForEachAsync(
        Enumerable.Range(0, Nodes).Select(index => $"fleet-{index}"), new ParallelOptions { MaxDegreeOfParallelism = AtOnce, CancellationToken = cancellation },
        async (node, _) => await work(node));

    private static async Task AddAsync(IKubernetes client, string name, CancellationToken cancellation)
    {
        await client.CoreV1.CreateNodeAsync(
            new V1Node
            {
                Metadata = new V1ObjectMeta { Name = name, Labels = new Dictionary<string, string> { [WellKnown.GpuProductLabel] = "NVIDIA-H100-80GB-HBM3" } },
                Status = new V1NodeStatus { Allocatable = Offered(), Capacity = Offered() },
            }, cancellationToken: cancellation);
        await client.CustomObjects.CreateClusterCustomObjectAsync(
            new GpuNode { Metadata = new V1ObjectMeta { Name = name } }, WellKnown.Group, WellKnown.Version, GpuNode.PluralName, cancellationToken: cancellation);
        await ReportAsync(client, name, failed: 0, cancellation);

        static Dictionary<string, ResourceQuantity> Offered() => new() { [WellKnown.GpuResource] = new($"{GpusOfANode}") };
    }

    private static async Task ReportAsync(IKubernetes client, string name, int failed, CancellationToken cancellation)
    {
        var now = TimeProvider.System.GetUtcNow();
        var gpus = MockGpus.OfNode(name, GpusOfANode).Devices;
        var status = new GpuNodeStatus
        {
            NodeName = name,
            HeartbeatTime = now,
            HeartbeatSeconds = 60,
            Gpus = GpusOfANode,
            HealthyGpus = GpusOfANode - failed,
            FreeGpus = GpusOfANode - failed,
            Product = "NVIDIA-H100-80GB-HBM3",
            DriverVersion = "550.54.15",
            CudaVersion = "12.4",
            Devices =
            [
                .. gpus.Select((gpu, index) => new GpuDevice
                {
                    Uuid = gpu.Uuid,
                    Index = index,
                    Product = "NVIDIA-H100-80GB-HBM3",
                    MemoryMiB = gpu.MemoryMebibytes,
                    ComputeCapability = "9.0",
                    PciBusId = gpu.Pci,
                    Health = index < failed ? GpuHealth.Unhealthy : GpuHealth.Healthy,
                    Reason = index < failed ? "Lost" : null,
                    Message = index < failed ? "NVML_ERROR_GPU_IS_LOST" : null,
                    Since = now,
                    LastHealthyTime = now,
                }),
            ],
            Allocations = [],
            Outages = [],
            Conditions = [],
        };
        await client.CustomObjects.PatchClusterCustomObjectStatusAsync(
            new V1Patch(KubernetesJson.Serialize(new { status }), V1Patch.PatchType.MergePatch), WellKnown.Group, WellKnown.Version, GpuNode.PluralName, name,
            cancellationToken: cancellation);
    }

    /// <summary>Returns when the operator has all of them in its local copy, and nothing left to do for them.</summary>
    private static async Task UntilReadAsync(Uri metrics, CancellationToken cancellation)
    {
        using var http = new HttpClient();
        while (true)
        {
            var text = await http.GetStringAsync(metrics, cancellation);
            if (Says("tensormesh_informer_objects", Nodes) && Says("tensormesh_queue_depth", 0) && Says("tensormesh_active_workers", 0)) return;
            await Task.Delay(Poll, TimeProvider.System, cancellation);

            bool Says(string metric, int value) => text.Contains($"{metric}{{kind=\"GpuNode\"}} {value}\n", StringComparison.Ordinal);
        }
    }
}
