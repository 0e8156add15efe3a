using Tensormesh.Operator.Watching;
using Tensormesh.Resources;

namespace Tensormesh.Operator.Reconciling;

/// <summary>The GPUs that one pod holds, by the word of its node's agent.</summary>
/// <param name="Gpus">UUIDs of GPUs, or of parts of them.</param>
/// <param name="Amiss">Those that are not known to work, for people.</param>
/// <param name="Failed">There is evidence that work on one of them fails.</param>
internal sealed record HeldDevices(IReadOnlyList<string> Gpus, IReadOnlyList<string> Amiss, bool Failed)
{
    /// <summary>Null when the agent names no such pod.</summary>
    public static HeldDevices? Of(string podUid, string node, GpuNodeStatus status)
    {
        var gpus = GpusOf(podUid, status);
        if (gpus.Count == 0) return null;
        var amiss = (status.Devices ?? []).Where(device => device.Health != GpuHealth.Healthy && Uuids(device).Any(gpus.Contains)).ToList();
        return new HeldDevices(
            gpus,
            [.. amiss.Select(device => $"{device.Uuid} of {node} is {device.Health} ({device.Reason})")],
            amiss.Exists(device => device.Health == GpuHealth.Unhealthy));
    }

    /// <summary>Over all containers of the pod, in order.</summary>
    public static IReadOnlyList<string> GpusOf(string podUid, GpuNodeStatus status) =>
    [
        .. (status.Allocations ?? []).Where(allocation => allocation.PodUid == podUid).SelectMany(allocation => allocation.Gpus)
            .Distinct().Order(StringComparer.Ordinal),
    ];

    /// <summary>A GPU goes by its own UUID, and by those of its parts.</summary>
    public static IReadOnlyList<string> Uuids(GpuDevice device) =>
        device.Uuid is { } own ? [own, .. (device.MigInstances ?? []).Select(part => part.Uuid)] : [];

    /// <summary>Keys of the pods of which the agent says something else than before.</summary>
    public static IEnumerable<string> Changed(GpuNodeStatus? before, GpuNodeStatus? after)
    {
        var (then, now) = (Words(before), Words(after));
        return then.Keys.Union(now.Keys).Where(pod => then.GetValueOrDefault(pod) != now.GetValueOrDefault(pod));
    }

    private static Dictionary<string, string> Words(GpuNodeStatus? status) => (status?.Allocations ?? [])
        .Where(allocation => allocation.PodUid is not null)
        .GroupBy(allocation => ObjectKey.Of(allocation.PodNamespace, allocation.PodName), StringComparer.Ordinal)
        .ToDictionary(
            pod => pod.Key,
            pod => string.Join(' ', pod.Select(allocation => allocation.PodUid!).Distinct().Select(uid => Of(uid, "", status!)).OfType<HeldDevices>()
                .SelectMany(held => (string[])[.. held.Gpus, .. held.Amiss])),
            StringComparer.Ordinal);
}
