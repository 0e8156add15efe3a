using Microsoft.AspNetCore.Components.Server.Circuits;

namespace Tensormesh.Web;

/// <summary>How many pages are open, or were a moment ago and may come back.</summary>
internal sealed class OpenPages : CircuitHandler
{
    private int count;

    public int Count => Volatile.Read(ref count);

    public override Task OnCircuitOpenedAsync(Circuit circuit, CancellationToken cancellationToken)
    {
        Interlocked.Increment(ref count);
        return Task.CompletedTask;
    }

    public override Task OnCircuitClosedAsync(Circuit circuit, CancellationToken cancellationToken)
    {
        Interlocked.Decrement(ref count);
        return Task.CompletedTask;
    }
}

/// <summary>
/// Has the heap collected while pages are open. What a page shows lives for seconds and is then replaced, which is long enough to become old: the runtime
/// collects old objects only when they have nearly doubled, and a page would cost more than twice what it holds.
/// </summary>
/// <remarks>The API alone never pays for it: without a page nothing is done here.</remarks>
internal sealed class PageHeap(OpenPages pages, TimeProvider time) : BackgroundService
{
    private static readonly TimeSpan Between = TimeSpan.FromSeconds(15);
    /// <summary>Bytes that are never worth the pause.</summary>
    private const long Least = 12 << 20;
    /// <summary>The part of what was kept that has to be new.</summary>
    private const int Part = 6;

    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        using var timer = new PeriodicTimer(Between, time);
        var kept = 0L;
        while (await timer.WaitForNextTickAsync(stoppingToken))
        {
            // As the last collection of any kind left it: what is new since is young, and will be collected anyway.
            var now = GC.GetGCMemoryInfo(GCKind.Any).HeapSizeBytes;
            kept = Math.Min(kept, now);
            if (pages.Count == 0 || now - kept < Math.Max(Least, kept / Part)) continue;
            // Aggressive is the one way of collecting that gives memory back to the system.
            GC.Collect(GC.MaxGeneration, GCCollectionMode.Aggressive, blocking: true, compacting: true);
            kept = GC.GetGCMemoryInfo(GCKind.FullBlocking).HeapSizeBytes;
        }
    }
}
