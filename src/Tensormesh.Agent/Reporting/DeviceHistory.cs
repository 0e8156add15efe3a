using Tensormesh.Devices;
using Tensormesh.Resources;

namespace Tensormesh.Agent.Reporting;

/// <summary>
/// How each GPU is and was. Money follows from it, so nothing is forgotten early: a GPU that is not listed any more stays, as lost, and a time
/// during which a GPU was not healthy stays after it is healthy again, also for a reader who was away for all of it.
/// </summary>
/// <param name="DroppedUntil">Outages that ended by then may have been dropped; null when none was.</param>
internal sealed record DeviceHistory(IReadOnlyList<GpuDevice> Devices, IReadOnlyList<GpuOutage> Outages, DateTimeOffset? DroppedUntil)
{
    /// <summary>Nobody looked for several heartbeats.</summary>
    public const string NotObserved = "NotObserved";
    /// <summary>Another GPU took its slot.</summary>
    public const string Replaced = "Replaced";

    /// <summary>How long a lost GPU that no pod holds stays in the list.</summary>
    private static readonly TimeSpan KeepLost = TimeSpan.FromHours(24);

    private sealed record Verdict(string Health, string? Reason, string? Message);

    /// <param name="unwatched">True when nobody looked since the heartbeat before.</param>
    public static DeviceHistory Next(GpuNodeStatus? before, NodeObservation seen, bool unwatched)
    {
        GpuDevice[] then = [.. (before?.Devices ?? []).Select(device => unwatched ? AfterNobodyLooked(device, before!) : device)];
        List<GpuOutage> outages = [.. before?.Outages ?? []];
        var named = seen.Inventory.Devices.Select(device => device.Uuid?.Value).OfType<string>().ToHashSet(StringComparer.Ordinal);
        var recognised = seen.Inventory.Devices.Take(Formats.MaxGpusPerNode).Select(device => Recognised(device, then.Where(was => !named.Contains(was.Uuid ?? ""))));
        List<GpuDevice> devices = [.. recognised.Select(device => Listed(device, Of(then, device.Uuid), seen.At))];
        foreach (var was in then.Where(device => device.Uuid is not null))
        {
            var listed = Of(devices, new DeviceUuid(was.Uuid!));
            var now = listed ?? Now(was, VerdictOnMissing(was, seen.Inventory), seen.At);
            if (was.Health != GpuHealth.Healthy && (was.Health, was.Reason) != (now.Health, now.Reason)) outages.Add(Ended(was, seen.At));
            if (listed is not null) continue;
            if (IsLeaving(now, before!, seen.At) || devices.Count >= Formats.MaxGpusPerNode) outages.Add(Ended(now, seen.At));
            else devices.Add(now);
        }

        return Bounded([.. devices.OrderBy(device => device.Index)], outages, before?.OutagesDroppedUntil);
    }

    private static GpuDevice? Of(IEnumerable<GpuDevice> devices, DeviceUuid? uuid) =>
        uuid is { } known ? devices.FirstOrDefault(device => device.Uuid == known.Value) : null;

    /// <summary>To a process that starts anew, a GPU that is lost has a number and no name: it is the missing one that had the number.</summary>
    private static Device Recognised(Device device, IEnumerable<GpuDevice> missing) =>
        device.Uuid is null && missing.FirstOrDefault(was => was.Index == device.Index)?.Uuid is { } uuid ? device with { Uuid = new DeviceUuid(uuid) } : device;

    private static GpuDevice Listed(Device device, GpuDevice? then, DateTimeOffset at)
    {
        var description = new GpuDevice
        {
            Uuid = device.Uuid?.Value,
            Index = device.Index,
            Product = Product(device.Name) ?? then?.Product,
            MemoryMiB = device.TotalMemoryBytes / (1024 * 1024) ?? then?.MemoryMiB,
            ComputeCapability = device.ComputeCapability?.ToString() ?? then?.ComputeCapability,
            PciBusId = device.PciBusId ?? then?.PciBusId,
            Health = then?.Health ?? "",
            Reason = then?.Reason,
            Since = then?.Since,
            LastHealthyTime = then?.LastHealthyTime,
            HeldBy = then?.HeldBy,
            MigInstances = device.MigInstances.Count == 0 ? null :
            [
                .. device.MigInstances.Take(Formats.MaxGpusPerNode).Select(instance => new GpuMigInstance
                {
                    Uuid = instance.Uuid.Value,
                    Name = instance.Name,
                    MemoryMiB = instance.TotalMemoryBytes / (1024 * 1024),
                }),
            ],
        };
        var health = device.Health.Verdict switch
        {
            HealthVerdict.Healthy => new Verdict(GpuHealth.Healthy, null, null),
            HealthVerdict.Unhealthy => new Verdict(GpuHealth.Unhealthy, device.Health.Reason.ToString(), device.Health.Message),
            HealthVerdict.Unknown => new Verdict(GpuHealth.Unknown, device.Health.Reason.ToString(), device.Health.Message),
        };
        return Now(description, health, at);
    }

    /// <summary>The device with its new health; its times follow from the old.</summary>
    private static GpuDevice Now(GpuDevice then, Verdict now, DateTimeOffset at) => new()
    {
        Uuid = then.Uuid,
        Index = then.Index,
        Product = then.Product,
        MemoryMiB = then.MemoryMiB,
        ComputeCapability = then.ComputeCapability,
        PciBusId = then.PciBusId,
        MigInstances = then.MigInstances,
        Health = now.Health,
        Reason = now.Reason,
        Message = now.Message is { } message ? NodeReport.Cut(message) : null,
        Since = (then.Health, then.Reason) == (now.Health, now.Reason) ? then.Since ?? at : at,
        LastHealthyTime = now.Health == GpuHealth.Healthy ? at : then.LastHealthyTime,
        HeldBy = now.Health == GpuHealth.Healthy ? null : then.HeldBy,
    };

    /// <summary>What is to be thought of a GPU that was known and that a probe does not name, as after a restart of this process.</summary>
    private static Verdict VerdictOnMissing(GpuDevice missing, DeviceInventory inventory)
    {
        if (inventory.Devices.FirstOrDefault(device => device.Replaces?.Value == missing.Uuid) is { } other)
        {
            return new(GpuHealth.Unhealthy, Replaced, $"{other.Uuid} is in its place");
        }

        return inventory.Driver switch
        {
            DriverState.Working or DriverState.Zombie or DriverState.NoDevice =>
                new(GpuHealth.Unhealthy, nameof(HealthReason.Lost), "the driver does not list it any more"),
            DriverState.Failed => new(GpuHealth.Unhealthy, nameof(DriverState.Failed), inventory.Message),
            DriverState.NoDriver or DriverState.Unresponsive => new(GpuHealth.Unknown, inventory.Driver.ToString(), inventory.Message),
        };
    }

    private static bool IsLeaving(GpuDevice missing, GpuNodeStatus before, DateTimeOffset at) =>
        missing.Reason == Replaced
        || (at - missing.Since > KeepLost && !(before.Allocations ?? []).Any(allocation => allocation.Gpus.Contains(missing.Uuid!)));

    /// <summary>A GPU that was healthy when somebody last looked was nothing that anyone could vouch for since.</summary>
    private static GpuDevice AfterNobodyLooked(GpuDevice device, GpuNodeStatus before) => device.Health != GpuHealth.Healthy
        ? device
        : Now(device, new Verdict(GpuHealth.Unknown, NotObserved, "the agent did not run, or could not tell what it saw"), before.HeartbeatTime!.Value);

    private static GpuOutage Ended(GpuDevice device, DateTimeOffset at) => new()
    {
        Uuid = device.Uuid!,
        Health = device.Health,
        Reason = device.Reason,
        Message = device.Message,
        LastHealthyTime = device.LastHealthyTime,
        HeldBy = device.HeldBy,
        From = device.Since,
        Until = at,
    };

    private static DeviceHistory Bounded(IReadOnlyList<GpuDevice> devices, List<GpuOutage> outages, DateTimeOffset? droppedUntil)
    {
        var surplus = Math.Max(0, outages.Count - Formats.MaxOutages);
        foreach (var dropped in outages.Take(surplus))
        {
            if (droppedUntil is null || dropped.Until > droppedUntil) droppedUntil = dropped.Until;
        }

        return new DeviceHistory(devices, [.. outages.Skip(surplus)], droppedUntil);
    }

    /// <summary>As GPU Feature Discovery writes it into the node's label: words joined by dashes, nothing that a label cannot hold.</summary>
    internal static string? Product(string? name)
    {
        if (name is null) return null;
        var words = string.Concat(name.Select(letter => char.IsAsciiLetterOrDigit(letter) || letter is '.' or '_' ? letter : '-'))
            .Split('-', StringSplitOptions.RemoveEmptyEntries);
        var product = string.Join('-', words);
        product = (product.Length > Formats.LabelValueMaxLength ? product[..Formats.LabelValueMaxLength] : product).Trim('-', '.', '_');
        return product.Length == 0 ? null : product;
    }
}
