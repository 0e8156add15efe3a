using System.Globalization;

namespace Tensormesh.Billing;

/// <summary>What a deployment asks to run.</summary>
public sealed record LaunchRequest
{
    public required DeploymentId Deployment { get; init; }
    /// <summary>Null when the namespace carries no account label.</summary>
    public required AccountId? Account { get; init; }
    /// <summary>For messages: the namespace whose label names the account.</summary>
    public required string Namespace { get; init; }
    /// <summary>GPUs over all replicas.</summary>
    public required int Gpus { get; init; }
    /// <summary>The product chosen for it; null when no node of the cluster satisfies the constraints.</summary>
    public required GpuProduct? Product { get; init; }
    /// <summary>For the message of NoMatchingGpu: what was asked ("2 GPUs of product X on one node") and what there is.</summary>
    public required string GpuConstraint { get; init; }
    public required string GpusInCluster { get; init; }
    /// <summary>Price in force for the product; null when the PriceBooks name none.</summary>
    public required Money? PerGpuHour { get; init; }
    public Money? MaxHourlyRate { get; init; }
    public Money? MaxTotalCost { get; init; }

    public Money? HourlyRate => PerGpuHour * Gpus;
}

/// <summary>
/// The gate: an ordered list of pure rules; the first with an opinion wins. Used by the webhook (advice) and by
/// the reconciler (law), and once more under the account's lock when the hold is placed.
/// </summary>
public static class BillingGate
{
    private const string AddCard = "add one under Billing > Payment Methods, or POST /v1/billing/stripe/customers/payment-methods";
    private const string AddBalance = "add balance under Billing > Overview";

    /// <summary>The start rule: may this deployment start, scale up or resume at <paramref name="now"/>?</summary>
    /// <param name="standing">Null when the ledger knows no such account.</param>
    public static Verdict EvaluateStart(LaunchRequest request, DeploymentStanding? standing, CreditPolicy policy, DateTimeOffset now)
    {
        if (AccountMissing(request, standing) is { } missing) return missing;
        // Nothing is asked for, so nothing is to be paid: a deployment at zero replicas is in order whatever the account's state.
        if (request.Gpus == 0) return new Verdict.Admit(Money.Zero, Money.Zero);
        return CardInvalid(standing!, now)                         // a valid card on file
            ?? NoMatchingGpu(request, standing!)                   // silicon that satisfies what was asked
            ?? PriceMissing(request, standing!)                    // a price for it
            ?? HourlyRateAboveBudget(request, standing!)           // the customer's own limit on cost per hour
            ?? BudgetExhausted(request, standing!, policy, now)    // the customer's own limit on cost in all
            ?? InsufficientBalance(request, standing!, policy, now) // money for the hold
            ?? (Verdict)new Verdict.Admit(request.HourlyRate!.Value, HoldAmount(request.PerGpuHour!.Value, request.Gpus, policy));
    }

    /// <summary>What any new deployment of the account is refused for, whatever it asks: null when that depends on what it asks.</summary>
    public static Verdict.Refuse? EvaluateAccount(Standing standing, DateTimeOffset now)
        => CardInvalid(new DeploymentStanding(standing, default, null, Money.Zero), now)
            ?? (standing.Available(now) > Money.Zero ? null : Refuse(
                RefusalReason.InsufficientBalance,
                $"account {standing.Account} has nothing available (balance {standing.Remaining(now)}, held {standing.Held(now)}): {AddBalance}"));

    /// <summary>The stop rule, for a deployment that has a hold: may it go on, and until when?</summary>
    /// <remarks>A price that was withdrawn stops nothing: what runs keeps the price of its hold.</remarks>
    public static Verdict EvaluateRunning(LaunchRequest request, DeploymentStanding standing, CreditPolicy policy, DateTimeOffset now)
    {
        var account = standing.Account;
        var rate = (request.PerGpuHour ?? standing.Hold?.PerGpuHour ?? Money.Zero) * request.Gpus;
        var exhausts = account.ExhaustsAt;
        var paid = rate > Money.Zero || account.Accrued(request.Deployment, now) > Money.Zero;
        if (paid && (exhausts is { } end ? now >= end : account.Funds <= Money.Zero))
        {
            return new Verdict.Refuse(
                RefusalReason.InsufficientBalance,
                $"account {account.Account} has used up its balance: {request.Gpus} x {request.Product} cost {rate}/h: {AddBalance}",
                exhausts ?? now);
        }

        var (graceEnds, cardReason) = (
            account.CardGraceEndsAt(policy), CardReason(account.Cards));
        if (account.Cards.StateAt(now) != CardState.Valid && (graceEnds is null || now >= graceEnds))
        {
            return new Verdict.Refuse(cardReason, CardMessage(account, now), graceEnds ?? now);
        }

        var spent = request.MaxTotalCost is { } budget ? standing.BudgetExhaustsAt(budget) : null;
        if (request.MaxTotalCost is { } limit && (spent is { } at ? now >= at : rate > Money.Zero && standing.CostToDate(now) >= limit))
        {
            return new Verdict.Refuse(
                RefusalReason.BudgetExhausted,
                $"account {account.Account} has spent spec.budget.maxTotalCost {limit} on this deployment "
                    + $"({standing.CostToDate(now)}): raise it to go on", spent ?? now);
        }

        (DateTimeOffset? At, RefusalReason Why)[] stops =
            [(paid ? exhausts : null, RefusalReason.InsufficientBalance), (graceEnds, cardReason), (spent, RefusalReason.BudgetExhausted)];
        var first = stops.Where(stop => stop.At is not null).OrderBy(stop => stop.At).FirstOrDefault();
        return new Verdict.Admit(rate, account.Held(request.Deployment, now), first.At, first.At is null ? null : first.Why);
    }

    /// <summary>Money set aside for GPUs at a price: their cost over the policy's hold window.</summary>
    internal static Money HoldAmount(Money perGpuHour, int gpus, CreditPolicy policy) => Rating.Due(policy.HoldWindow, perGpuHour, gpus);

    private static Verdict.Refuse? AccountMissing(LaunchRequest request, DeploymentStanding? standing) => (request.Account, standing) switch
    {
        (null, _) => Refuse(
            RefusalReason.AccountMissing,
            $"namespace {request.Namespace} has no label tensormesh.ai/account: ask your platform team to name the paying account"),
        ({ } account, null) => Refuse(
            RefusalReason.AccountMissing,
            $"account {account}, which namespace {request.Namespace} names in its label tensormesh.ai/account, does not exist: ask "
            + "your platform team to create its BillingAccount"),
        _ => null,
    };

    private static Verdict.Refuse? CardInvalid(DeploymentStanding standing, DateTimeOffset now)
        => standing.Account.Cards.StateAt(now) switch
        {
            CardState.Valid => null,
            CardState.Missing or CardState.Declined => Refuse(RefusalReason.NoValidCard, CardMessage(standing.Account, now)),
            CardState.Expired => Refuse(RefusalReason.CardExpired, CardMessage(standing.Account, now)),
        };

    private static Verdict.Refuse? NoMatchingGpu(LaunchRequest request, DeploymentStanding standing)
        => request.Product is not null ? null : Refuse(
        RefusalReason.NoMatchingGpu,
        $"account {standing.Account.Account} cannot be given {request.GpuConstraint}: the cluster has {request.GpusInCluster}: change "
        + "spec.gpu to what there is");

    private static Verdict.Refuse? PriceMissing(LaunchRequest request, DeploymentStanding standing)
        => request.PerGpuHour is not null ? null : Refuse(
        RefusalReason.PriceMissing,
        $"account {standing.Account.Account} cannot be charged for {request.Product}: no PriceBook names a price for it: ask your "
        + "platform team to add one, or choose another product");

    private static Verdict.Refuse? HourlyRateAboveBudget(LaunchRequest request, DeploymentStanding standing)
        => request.MaxHourlyRate is not { } limit || request.HourlyRate!.Value <= limit ? null : Refuse(
            RefusalReason.HourlyRateAboveBudget,
            $"account {standing.Account.Account} would pay {request.HourlyRate}/h for {request.Gpus} x {request.Product} at "
            + $"{request.PerGpuHour} per GPU-hour, above spec.budget.maxHourlyRate {limit}: "
            + "lower replicas or gpu.count, or raise the budget");

    private static Verdict.Refuse? BudgetExhausted(
        LaunchRequest request, DeploymentStanding standing, CreditPolicy policy, DateTimeOffset now)
    {
        if (request.MaxTotalCost is not { } limit) return null;
        var cost = standing.CostToDate(now);
        var left = Money.Max(Money.Zero, limit - cost);
        if (left >= Rating.Due(policy.MinimumRun, request.PerGpuHour!.Value, request.Gpus)) return null;
        return Refuse(
            RefusalReason.BudgetExhausted,
            $"account {standing.Account.Account} has spent {cost} of spec.budget.maxTotalCost {limit} on this deployment: "
            + $"the {left} left do not cover {Span(policy.MinimumRun)} at {request.HourlyRate}/h: raise the budget");
    }

    private static Verdict.Refuse? InsufficientBalance(
        LaunchRequest request, DeploymentStanding standing, CreditPolicy policy, DateTimeOffset now)
    {
        var account = standing.Account;
        var (rate, hold) = (request.PerGpuHour!.Value, standing.Hold);
        if (rate == Money.Zero) return null;

        // A hold for the same product counts: only the GPUs that it does not cover need more. One for another product is exchanged.
        var sameProduct = hold is not null && hold.Product == request.Product;
        var gpus = sameProduct ? Math.Max(0, request.Gpus - hold!.Gpus) : request.Gpus;
        var (available, needed) = (account.Available(now), HoldAmount(rate, gpus, policy));
        if (!sameProduct && hold is not null) available += account.Held(request.Deployment, now);
        if (gpus == 0 || (available >= needed && account.Balance(now) > Money.Zero)) return null;

        // With a hold window of zero nothing need be held, but an empty account still starts nothing.
        var shortBy = Money.Max(needed - available, new Money(1)).CeilingToCent();
        var more = gpus < request.Gpus ? " more" : "";
        return Refuse(
            RefusalReason.InsufficientBalance,
            $"account {account.Account} is short by {shortBy}: {gpus}{more} x {request.Product} at {rate} per GPU-hour need {needed} "
            + $"available ({Span(policy.HoldWindow)} at {rate * gpus}/h), {available} is available (balance {account.Balance(now)}, held "
            + $"{account.Held(now)}): {AddBalance}");
    }

    /// <summary>What the account lacks, or will lack, once none of its cards is valid.</summary>
    private static RefusalReason CardReason(CardsOnFile cards)
        => cards.InvalidFrom is { } end && cards.StateAt(end) == CardState.Expired ? RefusalReason.CardExpired : RefusalReason.NoValidCard;

    private static string CardMessage(Standing account, DateTimeOffset now) => (account.Cards.StateAt(now), account.Cards.LastToExpire) switch
    {
        (CardState.Expired, { } card) => $"account {account.Account} has no valid card on file, {card.Brand} ending {card.Last4} expired at "
            + $"the end of {Month(card)}: {AddCard}",
        (CardState.Declined, { } card) => $"account {account.Account} has no valid card on file, {card.Brand} ending {card.Last4} was declined "
            + $"when it was last charged: {AddCard}",
        _ => $"account {account.Account} has no valid card on file: {AddCard}",
    };

    private static string Month(Card card) => string.Create(CultureInfo.InvariantCulture, $"{card.ExpYear:0000}-{card.ExpMonth:00}");

    /// <summary>Whole minutes where they fit, else seconds: <c>60 minutes</c>, <c>1 minute</c>, <c>20 seconds</c>.</summary>
    private static string Span(TimeSpan span)
    {
        var (count, unit) = span.Ticks % TimeSpan.TicksPerMinute == 0
            ? (span.Ticks / TimeSpan.TicksPerMinute, "minute") : ((long)span.TotalSeconds, "second");
        return string.Create(CultureInfo.InvariantCulture, $"{count} {unit}{(count == 1 ? "" : "s")}");
    }

    private static Verdict.Refuse Refuse(RefusalReason reason, string message) => new(reason, message);
}
