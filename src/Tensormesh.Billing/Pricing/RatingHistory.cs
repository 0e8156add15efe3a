namespace Tensormesh.Billing;

/// <summary>What a run cost up to an instant, over the running totals of all its prices.</summary>
internal static class RatingHistory
{
    /// <param name="totals">At least one, in order of time; the first begins at the run's start.</param>
    /// <returns>The running total in force just before <paramref name="t"/>, what is due for it, and what is due over all.</returns>
    public static (RunRating InForce, Money Rated, Money Total) At(IReadOnlyList<RunRating> totals, int gpus, DateTimeOffset t)
    {
        var (inForce, rated, total) = (totals[0], Money.Zero, Money.Zero);
        for (var i = 0; i < totals.Count; i++)
        {
            if (i > 0 && totals[i].From >= t) break;
            var end = i + 1 < totals.Count ? Instants.Earlier(totals[i + 1].From, t) : t;
            inForce = totals[i];
            rated = Rating.Due(end - inForce.From, inForce.PerGpuHour, gpus);
            total += rated;
        }

        return (inForce, rated, total);
    }
}
