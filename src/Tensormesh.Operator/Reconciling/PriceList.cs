using Tensormesh.Billing;
using Tensormesh.Operator.Telemetry;

namespace Tensormesh.Operator.Reconciling;

/// <summary>The prices in force, kept for a moment: they change a few times a year and are asked for at every reconcile.</summary>
internal sealed class PriceList(Prices prices, OperatorMetrics metrics, TimeProvider time)
{
    private static readonly TimeSpan Freshness = TimeSpan.FromSeconds(10);

    private sealed record Reading(IReadOnlyDictionary<GpuProduct, GpuPrice> Prices, long At);

    private volatile Reading? last;

    public async Task<IReadOnlyDictionary<GpuProduct, GpuPrice>> CurrentAsync(CancellationToken cancellation)
    {
        if (last is { } reading && time.GetElapsedTime(reading.At) < Freshness) return reading.Prices;
        var current = await prices.CurrentAsync(cancellation).ConfigureAwait(false);
        last = new Reading(current, time.GetTimestamp());
        Show(current);
        return current;
    }

    private void Show(IReadOnlyDictionary<GpuProduct, GpuPrice> current)
    {
        foreach (var (product, price) in current) metrics.GpuPrice.WithLabels(product.Name).Set(price.PerGpuHour.Nanos / (double)Money.NanosPerUnit);
        foreach (var gone in metrics.GpuPrice.GetAllLabelValues().Where(labels => !current.ContainsKey(new GpuProduct(labels[0]))).ToList()) metrics.GpuPrice.RemoveLabelled(gone);
    }

    /// <summary>To be called when this process published something.</summary>
    public void Forget() => last = null;
}
