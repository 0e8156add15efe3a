namespace Tensormesh.Operator.Watching;

/// <summary>Has the heap collected when a good part of it may be versions of objects that were replaced.</summary>
/// <remarks>The copies of the cluster's objects live long, so what replaces them makes garbage where the runtime collects last, and it would
/// rather ask the system for more memory. A settlement replaces every object that runs, once a minute.</remarks>
internal sealed class HeapKeeper(TimeProvider clock) : BackgroundService
{
    private static readonly TimeSpan Between = TimeSpan.FromSeconds(10);
    /// <summary>Bytes that are never worth the pause.</summary>
    private const long Least = 12 << 20;
    /// <summary>The part of what was kept that has to be new.</summary>
    private const int Part = 8;

    /// <summary>True when a heap that held <paramref name="kept"/> bytes after its last collection and holds <paramref name="now"/> is worth another.</summary>
    public static bool IsDue(long kept, long now) => now - kept >= Math.Max(Least, kept / Part);

    protected override async Task ExecuteAsync(CancellationToken stopping)
    {
        using var timer = new PeriodicTimer(Between, clock);
        var kept = GC.GetTotalMemory(forceFullCollection: false);
        while (await timer.WaitForNextTickAsync(stopping))
        {
            if (!IsDue(kept, GC.GetTotalMemory(forceFullCollection: false))) continue;

            // Aggressive is the one way of collecting that gives memory back to the system.
            GC.Collect(GC.MaxGeneration, GCCollectionMode.Aggressive, blocking: true, compacting: true);
            kept = GC.GetTotalMemory(forceFullCollection: false);
        }
    }
}
