namespace Tensormesh.Billing;

/// <summary>Money set aside for one deployment: placed when it is admitted, drawn down by its own cost, gone when it stops.
/// A deployment with a hold is authorized to run; one without is not.</summary>
/// <param name="Gpus">GPUs over all replicas that the hold covers.</param>
/// <param name="PerGpuHour">Price at which it was placed.</param>
/// <param name="Remaining">What is left after settled cost; see <see cref="Standing.Held"/> for the rest at an instant.</param>
public sealed record CreditHold(DeploymentId Deployment, AccountId Account, GpuProduct Product, int Gpus, Money PerGpuHour, Money Remaining, DateTimeOffset PlacedAt);

/// <summary>One pod's hold on its GPUs that still accrues: open, and not stopped for charging.</summary>
/// <param name="RatedFrom">Where the running total of this price began: the start, or the last price change.</param>
/// <param name="RatedNanos">Already posted to the ledger of this running total.</param>
public sealed record AccruingInterval(
    PodId Pod, DeploymentId Deployment, GpuProduct Product, int Gpus, Money PerGpuHour, DateTimeOffset RatedFrom, Money Rated, DateTimeOffset SettledUntil)
{
    /// <summary>Cost since the last settlement, as of <paramref name="t"/>; never negative.</summary>
    public Money Accrued(DateTimeOffset t) => t <= SettledUntil ? Money.Zero : Rating.Due(t - RatedFrom, PerGpuHour, Gpus) - Rated;

    public Money BurnPerHour => PerGpuHour * Gpus;
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
    public required CardsOnFile Cards { get; init; }
    public required IReadOnlyList<AccruingInterval> Intervals { get; init; }
    public required IReadOnlyList<CreditHold> Holds { get; init; }

    public Money Accrued(DateTimeOffset t) => throw new NotImplementedException();
    public Money Accrued(DeploymentId deployment, DateTimeOffset t) => throw new NotImplementedException();

    /// <summary>The sum over holds of what is left of each: remaining less its deployment's own accrued cost, at least zero.</summary>
    public Money Held(DateTimeOffset t) => throw new NotImplementedException();

    /// <summary>Posted less accrued less held: what a new deployment may claim. Can be negative.</summary>
    public Money Available(DateTimeOffset t) => throw new NotImplementedException();

    public Money BurnPerHour => throw new NotImplementedException();

    /// <summary>
    /// The last microsecond at which accrued cost is still covered by the balance; charging stops there, so a balance never
    /// goes below zero. Null when nothing accrues. In the past when the balance was already used up.
    /// </summary>
    public DateTimeOffset? ExhaustsAt => throw new NotImplementedException();

    /// <summary>True from <see cref="ExhaustsAt"/> on, and when nothing is left without anything accruing.</summary>
    public bool IsExhausted(DateTimeOffset t) => throw new NotImplementedException();

    /// <summary>Time until exhaustion; null when nothing accrues; zero when exhausted.</summary>
    public TimeSpan? Runway(DateTimeOffset t) => throw new NotImplementedException();

    /// <summary>When what runs must stop for want of a valid card: the loss of the last valid card plus the grace period. Null while one is valid and unexpiring
    /// in the sense that no expiry lies ahead is impossible (cards expire): it is always the coming or past instant; null only when the account never had a card.</summary>
    public DateTimeOffset? CardGraceEndsAt(CreditPolicy policy) => throw new NotImplementedException();
}

/// <summary>An account's standing, and one deployment in it.</summary>
/// <param name="Hold">Null when the deployment is not authorized to run.</param>
/// <param name="SettledCost">Everything posted for this deployment so far, over all its pods.</param>
public sealed record DeploymentStanding(Standing Account, DeploymentId Deployment, CreditHold? Hold, Money SettledCost)
{
    public Money CostToDate(DateTimeOffset t) => SettledCost + Account.Accrued(Deployment, t);

    /// <summary>The last microsecond at which the deployment's cost is within <paramref name="budget"/>; null when nothing of it accrues.</summary>
    public DateTimeOffset? BudgetExhaustsAt(Money budget) => throw new NotImplementedException();
}
