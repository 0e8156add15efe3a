using System.Security.Cryptography;
using System.Text;
using Tensormesh.MockDevicePlugin.V1Beta1;

namespace Tensormesh.MockDevicePlugin;

/// <summary>The mock GPUs of one node and their health. Thread safe.</summary>
internal sealed class GpuInventory
{
    private readonly Lock _lock = new();
    private readonly Dictionary<string, int> _indexOf;
    private HashSet<string> _unhealthy = [];
    private TaskCompletionSource _changed = new(TaskCreationOptions.RunContinuationsAsynchronously);

    public GpuInventory(IEnumerable<string> uuids)
    {
        Uuids = [.. uuids];
        _indexOf = Uuids.Select((uuid, index) => (uuid, index)).ToDictionary(pair => pair.uuid, pair => pair.index, StringComparer.Ordinal);
    }

    /// <summary>In the order of the device index.</summary>
    public IReadOnlyList<string> Uuids { get; }

    /// <summary>A node's GPUs where there is no mock driver that has them.</summary>
    public static GpuInventory OfNode(string node, int count) => new(Enumerable.Range(0, count).Select(index => Uuid(node, index)));

    /// <summary>
    /// The UUID of a node's GPU: a hash of the node's name and the index, so that it survives restarts as silicon does.
    /// </summary>
    public static string Uuid(string node, int index)
    {
        var hash = SHA256.HashData(Encoding.UTF8.GetBytes($"{node}/{index}"));
        return "GPU-" + new Guid(hash.AsSpan(0, 16), bigEndian: true).ToString("D");
    }

    public bool Contains(string uuid) => _indexOf.ContainsKey(uuid);

    /// <summary>The same UUIDs in the order of their device index. All must be known.</summary>
    public IEnumerable<string> InIndexOrder(IEnumerable<string> uuids) => uuids.OrderBy(uuid => _indexOf[uuid]);

    /// <summary>The list as the kubelet wants it, and a task that completes when that list is out of date.</summary>
    public (ListAndWatchResponse List, Task Changed) Snapshot()
    {
        lock (_lock)
        {
            var list = new ListAndWatchResponse();
            list.Devices.AddRange(Uuids.Select(uuid => new Device { ID = uuid, Health = _unhealthy.Contains(uuid) ? "Unhealthy" : "Healthy" }));
            return (list, _changed.Task);
        }
    }

    /// <summary>Replaces the set of unhealthy GPUs; unknown UUIDs are ignored. Returns the UUIDs whose health changed.</summary>
    public IReadOnlyList<string> SetUnhealthy(IEnumerable<string> uuids)
    {
        TaskCompletionSource changed;
        string[] difference;
        lock (_lock)
        {
            var next = uuids.Where(Contains).ToHashSet(StringComparer.Ordinal);
            difference = [.. InIndexOrder(next.Except(_unhealthy).Concat(_unhealthy.Except(next)))];
            if (difference.Length == 0)
            {
                return difference;
            }

            _unhealthy = next;
            changed = _changed;
            _changed = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        }

        changed.SetResult();
        return difference;
    }

    public bool IsHealthy(string uuid)
    {
        lock (_lock)
        {
            return !_unhealthy.Contains(uuid);
        }
    }
}
