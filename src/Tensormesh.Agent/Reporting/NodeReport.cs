using k8s.Models;
using Tensormesh.Agent.Allocating;
using Tensormesh.Devices;
using Tensormesh.Resources;

namespace Tensormesh.Agent.Reporting;

/// <summary>From what was known and what was seen to what is known now; pure, and the only place that decides it.</summary>
internal static class NodeReport
{
    /// <summary>Heartbeats without any word after which nobody may claim to have watched.</summary>
    private const int MissedHeartbeats = 3;

    /// <param name="before">What was known after the round before, or what the object said when this process started; null on a new node.</param>
    public static GpuNodeStatus Next(GpuNodeStatus? before, NodeObservation seen)
    {
        var health = DeviceHistory.Next(before, seen, unwatched: Unwatched(before, seen));
        var allocations = Allocations(before, seen);
        foreach (var device in health.Devices.Where(device => !IsHealthy(device))) device.HeldBy = Holders(device, [.. before?.Allocations ?? [], .. allocations]);
        var allocationsKnown = AllocationsKnown(seen);
        var devicesRead = DevicesRead(seen.Inventory);
        return new GpuNodeStatus
        {
            NodeName = seen.NodeName,
            HeartbeatTime = seen.At,
            HeartbeatSeconds = (int)seen.Heartbeat.TotalSeconds,
            Gpus = health.Devices.Count,
            HealthyGpus = health.Devices.Count(IsHealthy),
            FreeGpus = allocationsKnown.Status == "True" ? Free(health.Devices, allocations) : null,
            Product = Products(health.Devices),
            // A driver that does not answer is the one that was there.
            DriverVersion = seen.Inventory.DriverVersion ?? before?.DriverVersion,
            CudaVersion = seen.Inventory.CudaVersion ?? before?.CudaVersion,
            Devices = [.. health.Devices],
            Allocations = [.. allocations],
            Outages = [.. health.Outages],
            OutagesDroppedUntil = health.DroppedUntil,
            Conditions =
            [
                Since(before, seen, Ready(devicesRead, health.Devices)),
                Since(before, seen, devicesRead),
                Since(before, seen, allocationsKnown),
            ],
        };
    }

    private static bool Unwatched(GpuNodeStatus? before, NodeObservation seen) =>
        before?.HeartbeatTime is { } heard && seen.At - heard > MissedHeartbeats * seen.Heartbeat;

    private static bool IsHealthy(GpuDevice device) => device.Health == GpuHealth.Healthy;

    private static int Free(IReadOnlyList<GpuDevice> devices, IReadOnlyList<GpuAllocation> allocations)
    {
        var held = allocations.SelectMany(allocation => allocation.Gpus).ToHashSet(StringComparer.Ordinal);
        return devices.Count(device => IsHealthy(device)
            && !held.Contains(device.Uuid ?? "") && !(device.MigInstances ?? []).Any(instance => held.Contains(instance.Uuid)));
    }

    /// <summary>With whom it had before: a pod may come and go while nobody reads of it.</summary>
    private static string[]? Holders(GpuDevice device, IReadOnlyList<GpuAllocation> allocations)
    {
        var parts = (device.MigInstances ?? []).Select(instance => instance.Uuid).ToHashSet(StringComparer.Ordinal);
        var now = allocations.Where(allocation => allocation.Gpus.Any(gpu => gpu == device.Uuid || parts.Contains(gpu))).Select(allocation => allocation.PodUid).OfType<string>();
        string[] all = [.. (device.HeldBy ?? []).Concat(now).Distinct().TakeLast(Formats.MaxHolders)];
        return all.Length == 0 ? null : all;
    }

    private static string? Products(IReadOnlyList<GpuDevice> devices)
    {
        var products = string.Join(",", devices.Select(device => device.Product).OfType<string>().Distinct());
        return products.Length == 0 ? null : Cut(products);
    }

    private static IReadOnlyList<GpuAllocation> Allocations(GpuNodeStatus? before, NodeObservation seen)
    {
        if (seen.Allocations is not AllocationReading.Known known) return [.. before?.Allocations ?? []];
        return
        [
            .. known.Allocations.Take(Formats.MaxAllocations).Select(now => new GpuAllocation
            {
                PodUid = now.PodUid,
                PodNamespace = now.Held.Pod.Namespace,
                PodName = now.Held.Pod.Name,
                Container = now.Held.Container,
                Gpus = [.. now.Held.Gpus.Take(Formats.MaxGpusPerNode)],
                Since = before?.Allocations?.FirstOrDefault(then => IsSame(then, now))?.Since ?? seen.At,
            }),
        ];
    }

    private static bool IsSame(GpuAllocation then, Allocation now) =>
        then.PodUid == now.PodUid && then.PodNamespace == now.Held.Pod.Namespace && then.PodName == now.Held.Pod.Name
        && then.Container == now.Held.Container && then.Gpus.SequenceEqual(now.Held.Gpus.Take(Formats.MaxGpusPerNode));

    private static V1Condition Ready(V1Condition devicesRead, IReadOnlyList<GpuDevice> devices)
    {
        if (devicesRead.Status != "True") return Condition(ConditionTypes.Ready, "False", devicesRead.Reason, devicesRead.Message);
        var sick = devices.Where(device => !IsHealthy(device)).Select(Describe).ToArray();
        return sick.Length == 0
            ? Condition(ConditionTypes.Ready, "True", ConditionReasons.AllHealthy, $"all {devices.Count} GPUs are healthy")
            : Condition(ConditionTypes.Ready, "False", ConditionReasons.SomeNotHealthy,
                $"{sick.Length} of {devices.Count} GPUs: {string.Join("; ", sick)}");
    }

    private static string Describe(GpuDevice device) => $"{device.Uuid ?? $"number {device.Index}"} is {device.Health} ({device.Reason})";

    private static V1Condition DevicesRead(DeviceInventory inventory)
    {
        var status = inventory.Driver switch
        {
            DriverState.Working => "True",
            DriverState.NoDevice or DriverState.Zombie or DriverState.Failed => "False",
            // Where no driver is found, its libraries may as well not have been mounted into this container.
            DriverState.NoDriver or DriverState.Unresponsive => "Unknown",
        };
        return Condition(ConditionTypes.DevicesRead, status, inventory.Driver.ToString(), inventory.Message.Length > 0 ? inventory.Message : "CUDA and NVML answer");
    }

    private static V1Condition AllocationsKnown(NodeObservation seen) => seen.Allocations is AllocationReading.Unknown unknown
        ? Condition(ConditionTypes.AllocationsKnown, "Unknown", ConditionReasons.KubeletSilent, unknown.Why)
        : Condition(ConditionTypes.AllocationsKnown, "True", ConditionReasons.KubeletAnswered, "the kubelet says which pod holds which GPU");

    /// <param name="message">Never empty: API servers before 1.21 take an applied empty text for none, and refuse that.</param>
    private static V1Condition Condition(string type, string status, string reason, string message) =>
        new() { Type = type, Status = status, Reason = reason, Message = Cut(message) };

    private static V1Condition Since(GpuNodeStatus? before, NodeObservation seen, V1Condition now)
    {
        var then = before?.Conditions?.FirstOrDefault(condition => condition.Type == now.Type);
        now.LastTransitionTime = then?.Status == now.Status ? then.LastTransitionTime : seen.At.UtcDateTime;
        return now;
    }

    internal static string Cut(string text) => text.Length <= Formats.MessageMaxLength ? text : text[..Formats.MessageMaxLength];
}
