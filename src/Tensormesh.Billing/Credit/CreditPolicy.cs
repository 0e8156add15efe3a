namespace Tensormesh.Billing;

/// <summary>The two thresholds, and the bounds around them. The start rule and the stop rule differ, so nothing flaps.</summary>
public sealed record CreditPolicy
{
    /// <summary>A deployment starts only when available money covers its own burn for this long; that much is then held for it.</summary>
    public TimeSpan HoldWindow { get; init; } = TimeSpan.FromMinutes(60);

    /// <summary>What is left of a total budget must cover at least this much burn, or the deployment does not start.</summary>
    public TimeSpan MinimumRun { get; init; } = TimeSpan.FromMinutes(1);

    /// <summary>Grace after a card is removed or expires, for accounts that state none.</summary>
    public TimeSpan CardGracePeriod { get; init; } = TimeSpan.FromHours(24);

    /// <summary>How often running work is settled to the ledger.</summary>
    public TimeSpan SettlementInterval { get; init; } = TimeSpan.FromSeconds(60);

    /// <summary>
    /// Settlement stays this far behind the clock, so that a pod's end that is reported a moment late seldom needs a correction.
    /// </summary>
    public TimeSpan SettlementLag { get; init; } = TimeSpan.FromSeconds(5);

    /// <summary>How long tokens may be unsettled: they are drawn on the standing when they are accepted, and this only sets how many transactions there are.</summary>
    public TimeSpan TokenSettlementInterval { get; init; } = TimeSpan.FromMinutes(5);

    /// <summary>
    /// A suspension later than this after the instant of exhaustion means that the operator was away: what ran in between
    /// is written off as uncollected. Within it, the time counts as draining, which nobody pays for.
    /// </summary>
    public TimeSpan SuspensionTolerance { get; init; } = TimeSpan.FromSeconds(5);
}

/// <summary>What a BillingAccount declares.</summary>
public sealed record AccountPolicy(string DisplayName, Money? LowBalanceAlert, TimeSpan? CardGracePeriod, string TimeZone);
