using k8s;
using k8s.Models;

namespace Tensormesh.Operator.Watching;

/// <summary>
/// Versions of objects that this process itself wrote last. A write comes back through the watch, and what a loop wrote is no news to it: every deployment
/// would be looked at twice more for each time that its finalizer or its status is written.
/// </summary>
internal sealed class OwnWrites
{
    /// <summary>Echoes come within moments. One that comes after this many other writes is taken for news, which costs a look and no more.</summary>
    private const int Remembered = 4096;

    private readonly Lock gate = new();
    private readonly HashSet<(string Uid, string Version)> written = [];
    private readonly Queue<(string Uid, string Version)> order = new();

    public void Add(string uid, string version)
    {
        lock (gate)
        {
            if (!written.Add((uid, version))) return;
            order.Enqueue((uid, version));
            if (order.Count > Remembered) written.Remove(order.Dequeue());
        }
    }

    /// <summary>True when nothing but our own write separates the two: the same spec, not deleted meanwhile, and the version that we wrote.</summary>
    public bool IsEcho(IMetadata<V1ObjectMeta> before, IMetadata<V1ObjectMeta> after)
    {
        if (before.Metadata.Uid != after.Metadata.Uid || before.Metadata.Generation != after.Metadata.Generation
            || before.Metadata.DeletionTimestamp != after.Metadata.DeletionTimestamp) return false;
        lock (gate) return written.Contains((after.Metadata.Uid, after.Metadata.ResourceVersion));
    }
}
