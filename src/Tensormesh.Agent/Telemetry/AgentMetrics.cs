using Prometheus;
using Tensormesh.Devices;
using Tensormesh.Resources;

namespace Tensormesh.Agent.Telemetry;

/// <summary>Every instrument of the agent in one place. Never the source of billing.</summary>
internal sealed class AgentMetrics
{
    private readonly MetricFactory factory;
    private HashSet<string> shown = [];

    public AgentMetrics(CollectorRegistry registry)
    {
        factory = Metrics.WithCustomRegistry(registry);
        Rounds = Counter("tensormesh_agent_rounds_total", "Looks at the node, by outcome (done, fault).", "outcome");
        ProbeSeconds = factory.CreateHistogram("tensormesh_agent_probe_seconds", "Time that one look at every GPU takes.",
            new HistogramConfiguration { Buckets = Histogram.ExponentialBuckets(0.001, 2, 15) });
        Told = Gauge("tensormesh_agent_told_timestamp_seconds", "When the GpuNode was last written.");
        DriverWorks = Gauge("tensormesh_agent_driver_up", "1 while CUDA and NVML both answer.");
        KubeletAnswers = Gauge("tensormesh_agent_kubelet_up", "1 while the kubelet says which pod holds which GPU.");
        Healthy = Gauge("tensormesh_gpu_healthy", "1 while the GPU is healthy.", "gpu");
        Allocated = Gauge("tensormesh_gpu_allocated", "1 while a pod holds the GPU.", "gpu");
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
    public Gauge Allocated { get; }
    public Gauge Utilization { get; }
    public Gauge MemoryUsed { get; }
    public Gauge Power { get; }
    public Gauge Temperature { get; }

    /// <summary>Shows the last look; a GPU that is gone is shown no longer, and a figure that was not read is not shown.</summary>
    public void Show(DeviceInventory inventory, GpuNodeStatus status)
    {
        DriverWorks.Set(inventory.Driver == DriverState.Working ? 1 : 0);
        KubeletAnswers.Set(status.Conditions!.Any(each => each is { Type: ConditionTypes.AllocationsKnown, Status: "True" }) ? 1 : 0);
        var held = status.Allocations!.SelectMany(allocation => allocation.Gpus).ToHashSet(StringComparer.Ordinal);
        HashSet<string> now = [];
        foreach (var device in status.Devices!.Where(device => device.Uuid is not null))
        {
            now.Add(device.Uuid!);
            Healthy.WithLabels(device.Uuid!).Set(device.Health == GpuHealth.Healthy ? 1 : 0);
            var isHeld = held.Contains(device.Uuid!) || (device.MigInstances ?? []).Any(instance => held.Contains(instance.Uuid));
            Allocated.WithLabels(device.Uuid!).Set(isHeld ? 1 : 0);
            var read = inventory.Devices.FirstOrDefault(each => each.Uuid?.Value == device.Uuid);
            Set(Utilization, device.Uuid!, read?.GpuUtilizationPercent / 100.0);
            Set(MemoryUsed, device.Uuid!, read?.TotalMemoryBytes - read?.FreeMemoryBytes);
            Set(Power, device.Uuid!, read?.PowerMilliwatts / 1000.0);
            Set(Temperature, device.Uuid!, read?.TemperatureCelsius);
        }

        foreach (var gone in shown.Except(now))
        {
            foreach (var gauge in new[] { Healthy, Allocated, Utilization, MemoryUsed, Power, Temperature }) gauge.RemoveLabelled(gone);
        }

        shown = now;
    }

    private static void Set(Gauge gauge, string gpu, double? value)
    {
        if (value is { } known) gauge.WithLabels(gpu).Set(known);
        else gauge.RemoveLabelled(gpu);
    }

    private Counter Counter(string name, string help, params string[] labels) => factory.CreateCounter(name, help, labels);
    private Gauge Gauge(string name, string help, params string[] labels) => factory.CreateGauge(name, help, labels);
}
