using System.Collections.Concurrent;
using k8s.Models;

namespace Tensormesh.Operator.Watching;

/// <summary>
/// When this process saw each pod leave the cluster. A pod that keeps its finalizer until its end is recorded leaves no open run behind; this is for the
/// others, whose finalizer somebody took off by hand. The newest of them only: memory stays bounded, and whoever needs one asks within a round.
/// </summary>
internal sealed class Departures(TimeProvider time)
{
    private const int Kept = 10_000;

    private readonly ConcurrentDictionary<string, DateTimeOffset> seen = new(StringComparer.Ordinal);
    private readonly ConcurrentQueue<string> order = new();

    /// <summary>To be told of every change of a pod.</summary>
    public void Note(V1Pod? before, V1Pod? after)
    {
        if (before is null || before.Metadata.Uid == after?.Metadata.Uid) return;
        if (!seen.TryAdd(before.Metadata.Uid, time.GetUtcNow())) return;
        order.Enqueue(before.Metadata.Uid);
        while (order.Count > Kept && order.TryDequeue(out var oldest)) seen.TryRemove(oldest, out _);
    }

    /// <summary>Null for a pod that left before this process watched.</summary>
    public DateTimeOffset? Of(string podUid) => seen.TryGetValue(podUid, out var at) ? at : null;
}
