using System.Text.Json;
using Tensormesh.Agent.Cluster;
using Tensormesh.Resources;

namespace Tensormesh.Agent.Reporting;

/// <summary>Whether there is anything to tell: every write wakes everyone who watches.</summary>
internal static class Telling
{
    public static bool IsDue(GpuNodeStatus? told, GpuNodeStatus now, TimeSpan heartbeat) =>
        told is null || SaysOther(told, now)
        // Also when the node's clock went back by as much.
        || (now.HeartbeatTime - told.HeartbeatTime)?.Duration() >= heartbeat;

    /// <summary>Whether the two differ in more than how late it is.</summary>
    public static bool SaysOther(GpuNodeStatus told, GpuNodeStatus now) => WithoutClock(told) != WithoutClock(now);

    private static string WithoutClock(GpuNodeStatus status) => JsonSerializer.Serialize(new GpuNodeStatus
    {
        NodeName = status.NodeName,
        HeartbeatSeconds = status.HeartbeatSeconds,
        Gpus = status.Gpus,
        HealthyGpus = status.HealthyGpus,
        FreeGpus = status.FreeGpus,
        Product = status.Product,
        DriverVersion = status.DriverVersion,
        CudaVersion = status.CudaVersion,
        Devices = [.. (status.Devices ?? []).Select(WithoutClock)],
        Allocations = status.Allocations ?? [],
        Outages = status.Outages ?? [],
        OutagesDroppedUntil = status.OutagesDroppedUntil,
        Conditions = status.Conditions ?? [],
    }, Shapes.Default.GpuNodeStatus);

    /// <summary>When a GPU was last seen healthy moves with every look, and matters once it is not.</summary>
    private static GpuDevice WithoutClock(GpuDevice device) => new()
    {
        Uuid = device.Uuid,
        Index = device.Index,
        Product = device.Product,
        MemoryMiB = device.MemoryMiB,
        ComputeCapability = device.ComputeCapability,
        PciBusId = device.PciBusId,
        Health = device.Health,
        Reason = device.Reason,
        Message = device.Message,
        Since = device.Since,
        LastHealthyTime = device.Health == GpuHealth.Healthy ? null : device.LastHealthyTime,
        HeldBy = device.HeldBy,
        MigInstances = device.MigInstances,
    };
}
