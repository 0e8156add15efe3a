using Tensormesh.Devices.Worker;

namespace Tensormesh.Devices;

/// <summary>
/// What earlier probes saw, so that a device that is gone, replaced or silent is told of under its own identity. It lives as long
/// as the probe: after a reboot nothing is missed.
/// </summary>
internal sealed class DeviceMemory(TimeSpan xidMemory)
{
    /// <summary>Bounds what a driver that hands out new UUIDs without end can cost.</summary>
    private const int MaxDevices = 64;

    private const int MaxXidsPerDevice = 16;

    private readonly Dictionary<DeviceUuid, Device> seen = [];
    private readonly Dictionary<DeviceUuid, List<XidError>> xids = [];

    public void Hear(IReadOnlyList<XidReading> heard, DateTimeOffset now)
    {
        foreach (var xid in heard)
        {
            if (!xids.TryGetValue(xid.Uuid, out var list)) xids[xid.Uuid] = list = [];
            if (list.Count == MaxXidsPerDevice) list.RemoveAt(0);
            list.Add(new XidError(xid.Code, now));
        }
    }

    public IReadOnlyList<XidError> Xids(DeviceUuid? uuid) => uuid is { } known && xids.TryGetValue(known, out var list) ? [.. list] : [];

    public IReadOnlyList<XidError> RecentXids(DeviceUuid? uuid, DateTimeOffset now) => [.. Xids(uuid).Where(xid => now - xid.SeenAt < xidMemory)];

    /// <summary>The devices of this probe, each under its identity, and those that were seen before and not now.</summary>
    /// <param name="ofMissing">What to say of the latter.</param>
    public IReadOnlyList<Device> Complete(IReadOnlyList<Device> told, DeviceHealth ofMissing)
    {
        var present = told.Select(device => device.Uuid).OfType<DeviceUuid>().ToHashSet();
        var missing = seen.Values.Where(device => !present.Contains(device.Uuid!.Value)).ToList();
        var complete = new List<Device>(told.Count);
        foreach (var device in told)
        {
            if (device.Uuid is null && missing.Find(other => other.Index == device.Index) is { } same)
            {
                // The driver does not say any more who this is.
                missing.Remove(same);
                complete.Add(Identity(same) with { Health = device.Health });
            }
            else if (device.PciBusId is not null && missing.Find(other => other.PciBusId == device.PciBusId) is { } before)
            {
                missing.Remove(before);
                seen.Remove(before.Uuid!.Value);
                complete.Add(device with { Replaces = before.Uuid });
            }
            else
            {
                complete.Add(device.Uuid is { } uuid && seen.TryGetValue(uuid, out var last) ? Keep(device, last) : device);
            }
        }

        foreach (var device in complete)
        {
            if (device.Uuid is { } uuid && (seen.ContainsKey(uuid) || seen.Count < MaxDevices)) seen[uuid] = Identity(device);
        }

        return [.. complete.Concat(missing.Select(device => device with { Health = ofMissing })).OrderBy(device => device.Index)];
    }

    /// <summary>A device that was lost half-way through its reading keeps what is known of it.</summary>
    private static Device Keep(Device device, Device last) => device with
    {
        Replaces = last.Replaces,
        Name = device.Name ?? last.Name,
        PciBusId = device.PciBusId ?? last.PciBusId,
        TotalMemoryBytes = device.TotalMemoryBytes ?? last.TotalMemoryBytes,
        ComputeCapability = device.ComputeCapability ?? last.ComputeCapability,
        Multiprocessors = device.Multiprocessors ?? last.Multiprocessors,
    };

    /// <summary>What does not change while a device is what it is.</summary>
    private static Device Identity(Device device) => new()
    {
        Index = device.Index,
        Uuid = device.Uuid,
        Replaces = device.Replaces,
        Health = device.Health,
        Name = device.Name,
        PciBusId = device.PciBusId,
        TotalMemoryBytes = device.TotalMemoryBytes,
        ComputeCapability = device.ComputeCapability,
        Multiprocessors = device.Multiprocessors,
    };
}
