using Tensormesh.Billing;

namespace Tensormesh.Operator.Reconciling;

/// <summary>The prices in force, kept for a moment: they change a few times a year and are asked for at every reconcile.</summary>
internal sealed class PriceList(Prices prices, TimeProvider time)
{
    private static readonly TimeSpan Freshness = TimeSpan.FromSeconds(10);

    private sealed record Reading(IReadOnlyDictionary<GpuProduct, GpuPrice> Prices, long At);

    private volatile Reading? last;

    public async Task<IReadOnlyDictionary<GpuProduct, GpuPrice>> CurrentAsync(CancellationToken cancellation)
    {
        if (last is { } reading && time.GetElapsedTime(reading.At) < Freshness) return reading.Prices;
        var current = await prices.CurrentAsync(cancellation).ConfigureAwait(false);
        last = new Reading(current, time.GetTimestamp());
        return current;
    }

    /// <summary>To be called when this process published something.</summary>
    public void Forget() => last = null;
}
