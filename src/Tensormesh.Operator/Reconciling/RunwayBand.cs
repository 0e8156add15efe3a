namespace Tensormesh.Operator.Reconciling;

/// <summary>How soon an account's money ends at what runs now. Accounts are too many for a label; these are five.</summary>
internal enum RunwayBand
{
    UnderAnHour,
    UnderADay,
    UnderAWeek,
    Longer,

    /// <summary>Nothing runs, so nothing ends.</summary>
    Idle,
}

internal static class RunwayBands
{
    private static readonly (TimeSpan Below, RunwayBand Band)[] Steps =
    [
        (TimeSpan.FromHours(1), RunwayBand.UnderAnHour), (TimeSpan.FromDays(1), RunwayBand.UnderADay), (TimeSpan.FromDays(7), RunwayBand.UnderAWeek),
        (TimeSpan.MaxValue, RunwayBand.Longer),
    ];

    /// <param name="runway">As <see cref="Billing.Standing.Runway"/> gives it: null when nothing accrues.</param>
    public static RunwayBand Of(TimeSpan? runway) => runway is { } left ? Steps.First(step => left < step.Below || step.Band == RunwayBand.Longer).Band : RunwayBand.Idle;
}
