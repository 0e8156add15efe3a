using Tensormesh.Agent.Allocating;
using Tensormesh.Agent.Reporting;
using Tensormesh.Devices;
using Tensormesh.Resources;

namespace Agent.Tests;

/// <summary>What rounds of a node of four GPUs see.</summary>
internal static class Seen
{
    public static readonly DateTimeOffset Start = new(2026, 11, 23, 8, 0, 0, TimeSpan.Zero);
    public static readonly TimeSpan Heartbeat = TimeSpan.FromSeconds(60);

    public static DateTimeOffset At(int second) => Start.AddSeconds(second);

    public static string Gpu(int index) => $"GPU-00000000-0000-0000-0000-00000000000{index}";

    public static Device Device(int index, DeviceHealth? health = null) => new()
    {
        Index = index,
        Uuid = new DeviceUuid(Gpu(index)),
        Health = health ?? DeviceHealth.Healthy,
        Name = "NVIDIA H100 80GB HBM3",
        PciBusId = $"00000000:{index + 1:X2}:00.0",
        TotalMemoryBytes = 85_520_809_984,
        ComputeCapability = new ComputeCapability(9, 0),
    };

    public static DeviceHealth Lost { get; } = new(HealthVerdict.Unhealthy, HealthReason.Lost, "NVML_ERROR_GPU_IS_LOST");
    public static DeviceHealth Ecc { get; } = new(HealthVerdict.Unhealthy, HealthReason.UncorrectedEcc, "1 uncorrected error");
    public static DeviceHealth Silent { get; } = new(HealthVerdict.Unknown, HealthReason.Unresponsive, "no answer within 5 s");

    public static Device[] Whole => [.. Enumerable.Range(0, 4).Select(index => Device(index))];

    public static Device[] With(int index, DeviceHealth health) => [.. Whole.Select(device => device.Index == index ? Device(index, health) : device)];

    public static NodeObservation Round(
        int second, Device[]? devices = null, DriverState driver = DriverState.Working, AllocationReading? allocations = null) =>
        new("gpu-a", Heartbeat,
            new DeviceInventory
            {
                ObservedAt = At(second),
                Driver = driver,
                Message = driver == DriverState.Working ? "" : $"the driver is {driver}",
                DriverVersion = driver == DriverState.Working ? "550.54.15" : null,
                CudaVersion = driver == DriverState.Working ? "12.4" : null,
                Devices = devices ?? Whole,
            },
            allocations ?? new AllocationReading.Known([]));

    public static AllocationReading Held(params (string Pod, string? Uid, string[] Gpus)[] holders) => new AllocationReading.Known(
        [.. holders.Select(each => new Allocation(new HeldGpus(new PodKey("team-a", each.Pod), "main", each.Gpus), each.Uid))]);

    /// <summary>Rounds one after the other, from a node of which nothing was known.</summary>
    public static GpuNodeStatus After(params NodeObservation[] rounds) =>
        rounds.Aggregate((GpuNodeStatus?)null, (before, seen) => NodeReport.Next(before, seen))!;
}
