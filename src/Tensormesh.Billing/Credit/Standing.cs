namespace Tensormesh.Billing;

/// <summary>Money set aside for one deployment: placed when it is admitted, drawn down by its own cost, gone when it stops.
/// A deployment with a hold is authorized to run; one without is not.</summary>
/// <param name="Gpus">GPUs over all replicas that the hold covers.</param>
/// <param name="PerGpuHour">Price at which it was placed.</param>
/// <param name="Remaining">What is left after settled cost; see <see cref="Standing.Held"/> for the rest at an instant.</param>
public sealed record CreditHold(
    DeploymentId Deployment, AccountId Account, GpuProduct Product, int Gpus, Money PerGpuHour, Money Remaining, DateTimeOffset PlacedAt);

/// <summary>One pod's hold on its GPUs that still accrues: open, and not stopped for charging.</summary>
/// <param name="RatedFrom">Where the running total of this price began: the start, or the last price change.</param>
/// <param name="RatedNanos">Already posted to the ledger of this running total.</param>
public sealed record AccruingInterval(
    PodId Pod, DeploymentId Deployment, GpuProduct Product, int Gpus, Money PerGpuHour, DateTimeOffset RatedFrom, Money Rated,
    DateTimeOffset SettledUntil)
{
    /// <summary>Cost since the last settlement, as of <paramref name="t"/>; never negative.</summary>
    public Money Accrued(DateTimeOffset t) => t <= SettledUntil ? Money.Zero : Rating.Due(t - RatedFrom, PerGpuHour, Gpus) - Rated;

    public Money BurnPerHour => PerGpuHour * Gpus;
}

/// <summary>What tokens cost that were accepted, and that the ledger is not told of yet.</summary>
/// <param name="At">When the last of them were accepted; null: none ever were.</param>
public sealed record TokensDue(Money Amount, DateTimeOffset? At)
{
    public static readonly TokensDue None = new(Money.Zero, null);
}

/// <summary>
/// What an account can spend, as a function of time. GPU cost accrues linearly, so from one reading everything
/// follows for any later instant: accrued, held, available, and the instant at which the balance is used up.
/// </summary>
public sealed record Standing
{
    public required AccountId Account { get; init; }
    public required AccountPolicy Policy { get; init; }
    /// <summary>The ledger's balance: top-ups less everything settled.</summary>
    public required Money Posted { get; init; }
    public TokensDue Tokens { get; init; } = TokensDue.None;
    public required CardsOnFile Cards { get; init; }
    public required IReadOnlyList<AccruingInterval> Intervals { get; init; }
    public required IReadOnlyList<CreditHold> Holds { get; init; }

    /// <summary>Cost since the last settlement, over everything that accrues.</summary>
    public Money Accrued(DateTimeOffset t) => Intervals.Aggregate(Money.Zero, (sum, interval) => sum + interval.Accrued(t));

    public Money Accrued(DeploymentId deployment, DateTimeOffset t)
        => Intervals.Where(interval => interval.Deployment == deployment)
            .Aggregate(Money.Zero, (sum, interval) => sum + interval.Accrued(t));

    /// <summary>The sum over holds of what is left of each: remaining less its deployment's own accrued cost, at least zero.</summary>
    public Money Held(DateTimeOffset t)
    {
        var accrued = Intervals.ToLookup(interval => interval.Deployment);
        return Holds.Aggregate(Money.Zero, (sum, hold) =>
            sum + Money.Max(Money.Zero,
                hold.Remaining - accrued[hold.Deployment].Aggregate(Money.Zero, (own, interval) => own + interval.Accrued(t))));
    }

    /// <summary>What is left of one deployment's hold; zero when it has none.</summary>
    public Money Held(DeploymentId deployment, DateTimeOffset t) => Holds.FirstOrDefault(hold => hold.Deployment == deployment) is { } own
        ? Money.Max(Money.Zero, own.Remaining - Accrued(deployment, t))
        : Money.Zero;

    /// <summary>The ledger's balance less what tokens cost that it is not told of yet. Below zero when more tokens were used than there was money for:
    /// that is owed, and the next money in pays it.</summary>
    public Money Funds => Posted - Tokens.Amount;

    /// <summary>The ledger's balance less tokens and what has accrued since: what is there to spend or hold. Negative before a late
    /// suspension, and while tokens are owed.</summary>
    public Money Balance(DateTimeOffset t) => Funds - Accrued(t);

    /// <summary>
    /// What is left to show: <see cref="Balance"/>, but accrued cost alone never takes it below zero, because charging stops at the instant of
    /// exhaustion, also where the operator is a moment late in recording it. Below zero: owed for tokens.
    /// </summary>
    public Money Remaining(DateTimeOffset t) => Money.Max(Balance(t), Money.Min(Funds, Money.Zero));

    /// <summary>Posted less accrued less held: what a new deployment may claim. Can be negative.</summary>
    public Money Available(DateTimeOffset t) => Balance(t) - Held(t);

    /// <summary>Cost per hour of everything that accrues.</summary>
    public Money BurnPerHour => Intervals.Aggregate(Money.Zero, (sum, interval) => sum + interval.BurnPerHour);

    /// <summary>
    /// The last microsecond at which accrued cost is still covered by the balance; charging stops there, so a balance never
    /// goes below zero. Null when nothing accrues (or the balance outlasts the calendar). In the past when the balance was already used up.
    /// Computed at each call: keep the answer where it is needed twice.
    /// </summary>
    public DateTimeOffset? ExhaustsAt => Exhaustion.At(Intervals, Posted, Tokens);

    /// <summary>True from <see cref="ExhaustsAt"/> on, and when nothing is left without anything accruing.</summary>
    public bool IsExhausted(DateTimeOffset t) => ExhaustsAt is { } end ? t >= end : Funds <= Money.Zero;

    /// <summary>Time until exhaustion; null when nothing accrues; zero when exhausted.</summary>
    public TimeSpan? Runway(DateTimeOffset t) => ExhaustsAt is { } end ? (end > t ? end - t : TimeSpan.Zero) : null;

    /// <summary>
    /// When what runs must stop for want of a valid card: the loss of the last valid card plus the grace period. Cards expire, so
    /// there always is such an instant, ahead or past; null only when the account never had a card.
    /// </summary>
    public DateTimeOffset? CardGraceEndsAt(CreditPolicy policy) => Cards.InvalidFrom + (Policy.CardGracePeriod ?? policy.CardGracePeriod);
}

/// <summary>An account's standing, and one deployment in it.</summary>
/// <param name="Hold">Null when the deployment is not authorized to run.</param>
/// <param name="SettledCost">Everything posted for this deployment so far, over all its pods.</param>
public sealed record DeploymentStanding(Standing Account, DeploymentId Deployment, CreditHold? Hold, Money SettledCost)
{
    /// <summary>An account that was declared a moment ago and that the ledger has yet to open: no money, no card.</summary>
    public static DeploymentStanding Unopened(AccountId account, DeploymentId deployment) => new(
        new Standing
        {
            Account = account,
            Policy = new AccountPolicy(account.Value, null, null, "UTC"),
            Posted = Money.Zero,
            Cards = new CardsOnFile([], null),
            Intervals = [],
            Holds = [],
        },
        deployment, null, Money.Zero);

    public Money CostToDate(DateTimeOffset t) => SettledCost + Account.Accrued(Deployment, t);

    /// <summary>
    /// The last microsecond at which the deployment's cost is within <paramref name="budget"/>; null when nothing of it accrues. Never
    /// before what is settled, so that a budget lowered below what was spent stops the deployment and takes nothing back.
    /// </summary>
    public DateTimeOffset? BudgetExhaustsAt(Money budget)
        => Exhaustion.LastCovered(Account.Intervals.Where(interval => interval.Deployment == Deployment), budget - SettledCost);
}
