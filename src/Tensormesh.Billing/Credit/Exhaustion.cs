namespace Tensormesh.Billing;

/// <summary>Finds the exact microsecond at which accruing cost has used up an amount of money.</summary>
internal static class Exhaustion
{
    private static readonly long LastMicrosecond = DateTimeOffset.MaxValue.ToMicroseconds();

    /// <summary>
    /// The last microsecond at which a balance covers what accrues and the tokens that were accepted. What ran before these were
    /// was covered then, and stays so: they end a balance no earlier than they came.
    /// </summary>
    /// <returns>Null when nothing accrues, or when the balance outlasts the calendar.</returns>
    public static DateTimeOffset? At(IEnumerable<AccruingInterval> intervals, Money posted, TokensDue tokens)
    {
        var all = intervals as IReadOnlyCollection<AccruingInterval> ?? [.. intervals];
        var end = LastCovered(all, posted - tokens.Amount);
        if (end is not { } covered || tokens.At is not { } accepted || covered >= accepted) return end;
        return Instants.Later(covered, LastCovered(all, posted) is { } without ? Instants.Earlier(without, accepted) : accepted);
    }

    /// <summary>The last microsecond t at which the accrued cost of <paramref name="intervals"/> is at most
    /// <paramref name="funds"/>.</summary>
    /// <returns>
    /// Null when nothing accrues, or when the funds outlast the calendar. With negative funds, the instant from which nothing is
    /// covered: the earliest settled-until.
    /// </returns>
    /// <remarks>
    /// Accrued cost is a sum of floors, so it has no closed form; without the floors it is piecewise linear, never smaller, and less than
    /// one nano an interval larger. Solving that gives an instant that is surely covered and at most moments too early;
    /// doubling steps and bisection on the exact sum do the rest. The work is O(n log n), whatever the time span.
    /// </remarks>
    public static DateTimeOffset? LastCovered(IEnumerable<AccruingInterval> intervals, Money funds)
    {
        var lines = intervals.Where(interval => interval.BurnPerHour > Money.Zero).Select(Line.Of).ToArray();
        if (lines.Length == 0) return null;
        Array.Sort(lines, static (left, right) => left.SettledUntil.CompareTo(right.SettledUntil));
        var origin = lines[0].SettledUntil;
        if (funds.Nanos < 0) return Instants.FromMicroseconds(origin);

        var covered = CoveredWithoutFloors(lines, funds.Nanos);
        if (covered >= LastMicrosecond) return null;

        long step = 1;
        while (covered + step < LastMicrosecond && IsCovered(lines, covered + step, funds.Nanos))
        {
            covered += step;
            step *= 2;
        }

        var uncovered = Math.Min(covered + step, LastMicrosecond);
        if (uncovered == LastMicrosecond && IsCovered(lines, uncovered, funds.Nanos)) return null;
        while (uncovered - covered > 1)
        {
            var middle = covered + (uncovered - covered) / 2;
            if (IsCovered(lines, middle, funds.Nanos)) covered = middle;
            else uncovered = middle;
        }

        return Instants.FromMicroseconds(covered);
    }

    /// <summary>An instant at which the sum without floors is still within the funds, so that the exact sum is too.</summary>
    private static long CoveredWithoutFloors(Line[] lines, long funds)
    {
        checked
        {
            // While t lies between two settled-untils the cost is (slope x t - offset) / hour.
            Int128 slope = 0, offset = 0;
            for (var i = 0; i < lines.Length; i++)
            {
                slope += lines[i].PerHour;
                offset += (Int128)lines[i].RatedFrom * lines[i].PerHour + (Int128)lines[i].Rated * Rating.MicrosecondsPerHour;
                var t = ((Int128)funds * Rating.MicrosecondsPerHour + offset) / slope;
                var end = i + 1 < lines.Length ? lines[i + 1].SettledUntil : LastMicrosecond;
                if (t < end) return (long)Int128.Max(t, lines[i].SettledUntil);
            }

            return LastMicrosecond;
        }
    }

    private static bool IsCovered(Line[] lines, long t, long funds)
    {
        Int128 sum = 0;
        foreach (var line in lines)
        {
            if (line.SettledUntil >= t) break;
            sum += checked((Int128)(t - line.RatedFrom) * line.PerHour) / Rating.MicrosecondsPerHour - line.Rated;
            if (sum > funds) return false;
        }

        return true;
    }

    /// <summary>An interval in microseconds and nanos.</summary>
    private readonly record struct Line(long SettledUntil, long RatedFrom, long Rated, long PerHour)
    {
        public static Line Of(AccruingInterval interval) => new(
            interval.SettledUntil.ToMicroseconds(), interval.RatedFrom.ToMicroseconds(), interval.Rated.Nanos, interval.BurnPerHour.Nanos);
    }
}
