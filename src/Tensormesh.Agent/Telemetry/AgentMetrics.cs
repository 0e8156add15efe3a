using Prometheus;
using Tensormesh.Agent.Allocating;
using Tensormesh.Devices;
using Tensormesh.Resources;

namespace Tensormesh.Agent.Telemetry;

/// <summary>Every instrument of the agent in one place. Never the source of billing.</summary>
internal sealed class AgentMetrics
{
    private readonly MetricFactory factory;
    private readonly TimeProvider time;
    private HashSet<(string Gpu, string PodUid)> idleBefore = [];
    private long lookedAt;

    public AgentMetrics(CollectorRegistry registry, TimeProvider time)
    {
        this.time = time;
        factory = Metrics.WithCustomRegistry(registry);
        Rounds = Counter("tensormesh_agent_rounds_total", "Looks at the node, by outcome (done, fault).", "outcome");
        ProbeSeconds = factory.CreateHistogram("tensormesh_agent_probe_seconds", "Time that one look at every GPU takes.",
            new HistogramConfiguration { Buckets = Histogram.ExponentialBuckets(0.001, 2, 15) });
        Told = Gauge("tensormesh_agent_told_timestamp_seconds", "When the GpuNode was last written.");
        DriverWorks = Gauge("tensormesh_agent_driver_up", "1 while CUDA and NVML both answer.");
        KubeletAnswers = Gauge("tensormesh_agent_kubelet_up", "1 while the kubelet says which pod holds which GPU.");
        Healthy = Gauge("tensormesh_gpu_healthy", "1 while the GPU is healthy.", "gpu");
        Allocated = Gauge("tensormesh_gpu_allocated", "1 while a pod holds the GPU.", "gpu");
        UnhealthyInfo = Gauge("tensormesh_gpu_unhealthy_info", "1 while the GPU is not healthy, with the reason.", "gpu", "reason");
        AllocationInfo = Gauge("tensormesh_gpu_allocation_info", "1 while a container of the pod holds the GPU.", "gpu", "namespace", "pod", "container");
        IdleAllocated = Counter("tensormesh_gpu_idle_allocated_seconds_total", "Seconds for which the pod held the GPU and its utilisation read 0.", "gpu", "namespace", "pod");
        Utilization = Gauge("tensormesh_gpu_utilization_ratio", "Share of the last sample period in which a kernel ran.", "gpu");
        MemoryUsed = Gauge("tensormesh_gpu_memory_used_bytes", "Memory in use.", "gpu");
        Power = Gauge("tensormesh_gpu_power_watts", "Power drawn.", "gpu");
        Temperature = Gauge("tensormesh_gpu_temperature_celsius", "Temperature.", "gpu");
    }

    public Counter Rounds { get; }
    public Histogram ProbeSeconds { get; }
    public Gauge Told { get; }
    public Gauge DriverWorks { get; }
    public Gauge KubeletAnswers { get; }
    public Gauge Healthy { get; }
    public Gauge UnhealthyInfo { get; }
    public Gauge Allocated { get; }
    public Gauge AllocationInfo { get; }
    public Counter IdleAllocated { get; }
    public Gauge Utilization { get; }
    public Gauge MemoryUsed { get; }
    public Gauge Power { get; }
    public Gauge Temperature { get; }

    /// <summary>Shows the last look; a GPU that is gone is shown no longer, and a figure that was not read is not shown.</summary>
    public void Show(DeviceInventory inventory, GpuNodeStatus status)
    {
        var kubeletAnswers = status.Conditions!.Any(each => each is { Type: ConditionTypes.AllocationsKnown, Status: "True" });
        DriverWorks.Set(inventory.Driver == DriverState.Working ? 1 : 0);
        KubeletAnswers.Set(kubeletAnswers ? 1 : 0);
        GpuDevice[] devices = [.. status.Devices!.Where(device => device.Uuid is not null)];
        var holdings = Holding.In(status);
        foreach (var device in devices)
        {
            Healthy.WithLabels(device.Uuid!).Set(device.Health == GpuHealth.Healthy ? 1 : 0);
            Allocated.WithLabels(device.Uuid!).Set(holdings.Any(holding => holding.Gpu == device.Uuid) ? 1 : 0);
            var read = inventory.Devices.FirstOrDefault(each => each.Uuid?.Value == device.Uuid);
            Set(Utilization, device.Uuid!, read?.GpuUtilizationPercent / 100.0);
            Set(MemoryUsed, device.Uuid!, read?.TotalMemoryBytes - read?.FreeMemoryBytes);
            Set(Power, device.Uuid!, read?.PowerMilliwatts / 1000.0);
            Set(Temperature, device.Uuid!, read?.TemperatureCelsius);
        }

        foreach (var gauge in new[] { Healthy, Allocated, Utilization, MemoryUsed, Power, Temperature })
            Forget(gauge, labels => !devices.Any(device => device.Uuid == labels[0]));
        ShowOnly(UnhealthyInfo, [.. devices.Where(device => device.Health != GpuHealth.Healthy).Select(device => (string[])[device.Uuid!, device.Reason ?? device.Health])]);
        ShowOnly(AllocationInfo, [.. holdings.Select(held => (string[])[held.Gpu, held.Pod.Namespace, held.Pod.Name, held.Container])]);
        CountIdle(inventory, holdings, kubeletAnswers);
    }

    /// <summary>What lies between two looks is idle when both saw the same pod hold an idle GPU. Nothing is counted of what was not known for certain.</summary>
    private void CountIdle(DeviceInventory inventory, IReadOnlyList<Holding> holdings, bool kubeletAnswers)
    {
        var now = time.GetTimestamp();
        var idleGpus = inventory.Devices.Where(device => device.GpuUtilizationPercent == 0).Select(device => device.Uuid?.Value).ToHashSet();
        HashSet<(string Gpu, string PodUid)> idle = [];
        foreach (var held in holdings.DistinctBy(held => (held.Gpu, held.Pod)))
        {
            // Shown from zero on, so that a rate has where to begin.
            var counter = IdleAllocated.WithLabels(held.Gpu, held.Pod.Namespace, held.Pod.Name);
            if (!kubeletAnswers || held.PodUid is null || !idleGpus.Contains(held.Gpu)) continue;
            idle.Add((held.Gpu, held.PodUid));
            if (idleBefore.Contains((held.Gpu, held.PodUid))) counter.Inc(time.GetElapsedTime(lookedAt, now).TotalSeconds);
        }

        Forget(IdleAllocated, labels => !holdings.Any(held => held.Gpu == labels[0] && held.Pod == new PodKey(labels[1], labels[2])));
        (idleBefore, lookedAt) = (idle, now);
    }

    private static void ShowOnly(Gauge gauge, IReadOnlyList<string[]> now)
    {
        foreach (var labels in now) gauge.WithLabels(labels).Set(1);
        Forget(gauge, labels => !now.Any(shown => shown.SequenceEqual(labels)));
    }

    private static void Forget<TChild>(Collector<TChild> collector, Func<string[], bool> isGone) where TChild : ChildBase
    {
        foreach (var labels in collector.GetAllLabelValues().Where(isGone).ToArray()) collector.RemoveLabelled(labels);
    }

    private static void Set(Gauge gauge, string gpu, double? value)
    {
        if (value is { } known) gauge.WithLabels(gpu).Set(known);
        else gauge.RemoveLabelled(gpu);
    }

    private Counter Counter(string name, string help, params string[] labels) => factory.CreateCounter(name, help, labels);
    private Gauge Gauge(string name, string help, params string[] labels) => factory.CreateGauge(name, help, labels);
}

/// <summary>One GPU in one container's hands. Who holds a part of a GPU holds that GPU, of which the driver tells how it is.</summary>
internal sealed record Holding(string Gpu, PodKey Pod, string Container, string? PodUid)
{
    public static IReadOnlyList<Holding> In(GpuNodeStatus status) =>
    [
        .. from allocation in status.Allocations
           from id in allocation.Gpus
           let whole = status.Devices!.FirstOrDefault(device => device.MigInstances?.Any(instance => instance.Uuid == id) == true)?.Uuid
           select new Holding(whole ?? id, new PodKey(allocation.PodNamespace, allocation.PodName), allocation.Container, allocation.PodUid),
    ];
}
