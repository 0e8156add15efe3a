namespace Tensormesh.Billing;

/// <summary>Instants as the ledger keeps them: UTC, in whole microseconds (what Postgres stores).</summary>
public static class Instants
{
    /// <summary>The same instant in UTC without the part of a microsecond. Every time passes through here where it enters.</summary>
    public static DateTimeOffset ToLedgerTime(this DateTimeOffset time)
        => new(time.UtcTicks - time.UtcTicks % TimeSpan.TicksPerMicrosecond, TimeSpan.Zero);

    public static DateTimeOffset Earlier(DateTimeOffset left, DateTimeOffset right) => left <= right ? left : right;

    public static DateTimeOffset Later(DateTimeOffset left, DateTimeOffset right) => left >= right ? left : right;

    internal static long ToMicroseconds(this DateTimeOffset time) => time.UtcTicks / TimeSpan.TicksPerMicrosecond;

    internal static DateTimeOffset FromMicroseconds(long microseconds) => new(microseconds * TimeSpan.TicksPerMicrosecond, TimeSpan.Zero);
}
