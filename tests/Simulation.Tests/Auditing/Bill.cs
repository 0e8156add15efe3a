namespace Tensormesh.Simulation.Tests;

/// <summary>
/// What one pod costs, from what is true of it and nothing that the product computed: when it began, its GPUs, and each price with the instant from which
/// it counted. A price counts a running total of its own, in whole microseconds and whole nano-dollars, rounded down.
/// </summary>
internal sealed class Bill(DateTimeOffset start, int gpus, IEnumerable<(DateTimeOffset From, long PerGpuHour)> prices)
{
    private static readonly Int128 MicrosecondsPerHour = 3_600_000_000;

    private readonly List<(DateTimeOffset From, long PerGpuHour)> prices = [.. prices];

    public void Reprice(DateTimeOffset from, long perGpuHour) => prices.Add((from, perGpuHour));

    /// <summary>Nano-dollars from the start to <paramref name="t"/>.</summary>
    public long Due(DateTimeOffset t)
    {
        Int128 due = 0;
        for (var i = 0; i < prices.Count && (i == 0 || prices[i].From < t); i++)
        {
            var from = i == 0 ? start : prices[i].From;
            var to = i + 1 < prices.Count && prices[i + 1].From < t ? prices[i + 1].From : t;
            if (to > from) due += (Int128)((to - from).Ticks / TimeSpan.TicksPerMicrosecond) * gpus * prices[i].PerGpuHour / MicrosecondsPerHour;
        }

        return (long)due;
    }

    /// <summary>More than one more microsecond can cost, roundings included.</summary>
    public long OneMicrosecond => prices.Max(price => (long)((Int128)price.PerGpuHour * gpus / MicrosecondsPerHour)) + 2;

    /// <summary>The prices that a run which began then has: the last of before, and every one after.</summary>
    public static IEnumerable<(DateTimeOffset From, long PerGpuHour)> PricesSince(IReadOnlyList<(DateTimeOffset From, long PerGpuHour)> timeline, DateTimeOffset start)
    {
        var first = timeline.Any(price => price.From <= start) ? timeline.Last(price => price.From <= start) : timeline[0];
        return timeline.Where(price => price.From > start && price != first).Prepend(first);
    }
}
