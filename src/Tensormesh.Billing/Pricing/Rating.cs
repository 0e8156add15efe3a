namespace Tensormesh.Billing;

/// <summary>
/// Cumulative rating: price the running total and post the difference, so that slicing never changes a bill.
/// Time is counted in whole microseconds (what Postgres keeps); money in whole nano-dollars, rounded down.
/// </summary>
public static class Rating
{
    public const long MicrosecondsPerHour = 3_600_000_000;

    /// <summary>What is due for a running total: <c>floor(microseconds x gpus x rate / hour)</c>.</summary>
    /// <param name="held">How long the GPUs have been held since the running total began; whole microseconds count.</param>
    /// <param name="ratePerGpuHour">Price of one GPU for one hour.</param>
    /// <param name="gpus">GPUs held.</param>
    /// <exception cref="OverflowException">The amount does not fit 64 bits of nano-dollars.</exception>
    public static Money Due(TimeSpan held, Money ratePerGpuHour, int gpus)
    {
        if (held <= TimeSpan.Zero) return Money.Zero;
        var microseconds = held.Ticks / TimeSpan.TicksPerMicrosecond;
        return new Money(checked((long)((Int128)microseconds * gpus * ratePerGpuHour.Nanos / MicrosecondsPerHour)));
    }
}
