namespace Tensormesh.Billing;

/// <summary>What the owner of an account allows: when its balance falls below the threshold, this amount is charged to its default card.</summary>
/// <param name="Threshold">Above zero and at most the amount, so that one top-up always lifts the balance to it.</param>
/// <param name="Amount">From <see cref="TopUps.Minimum"/> to <see cref="TopUps.Maximum"/>, whole cents.</param>
/// <param name="DailyCap">What may be charged in one day of the account's time zone; at least one amount.</param>
/// <param name="MonthlyCap">The same for one month; at least the daily cap.</param>
public sealed record AutoTopUpPlan(Money Threshold, Money Amount, Money DailyCap, Money MonthlyCap);

/// <summary>The last attempt, whatever came of it.</summary>
/// <param name="Outcome">Null while it is under way.</param>
/// <param name="Message">For the customer; null where there is nothing to say.</param>
public sealed record AutoTopUpAttempt(Money Amount, DateTimeOffset BegunAt, AutoTopUpOutcome? Outcome, string? Message);

/// <summary>The settings of an account, and what came of them so far.</summary>
/// <param name="Plan">Null where automatic top-up is off.</param>
/// <param name="ChargedToday">Charged, or perhaps charged, by attempts that were begun in the account's present day.</param>
/// <param name="ChargedThisMonth">The same for its present month.</param>
/// <param name="RetryAt">Not tried before this instant, after a decline.</param>
/// <param name="DisabledBecause">For the customer; null while it is not disabled.</param>
public sealed record AutoTopUp(
    AutoTopUpPlan? Plan, Money ChargedToday, Money ChargedThisMonth, bool IsInFlight, int DeclinesInARow = 0, DateTimeOffset? RetryAt = null,
    string? DisabledBecause = null, AutoTopUpAttempt? Last = null);

/// <summary>How an attempt ended.</summary>
public enum AutoTopUpOutcome
{
    Succeeded,
    Declined,
    /// <summary>The bank asks the holder, who is not there: no more use than a decline.</summary>
    AuthenticationRequired,
    /// <summary>Not tried: the card went, or expired, at that moment.</summary>
    Refused,
}

public enum AutoTopUpState
{
    Off,
    /// <summary>The balance is at or above the threshold.</summary>
    Watching,
    /// <summary>A charge is under way, or about to be.</summary>
    Charging,
    /// <summary>After a decline.</summary>
    Waiting,
    CardMissing,
    DailyCapReached,
    MonthlyCapReached,
    /// <summary>After too many declines in a row, until the settings are saved again.</summary>
    Disabled,
}

public abstract record AutoTopUpVerdict
{
    private AutoTopUpVerdict() { }
    public sealed record Charge(Money Amount, string PaymentMethodId) : AutoTopUpVerdict;
    /// <param name="Why">For the customer; empty where there is nothing to say.</param>
    public sealed record Idle(AutoTopUpState State, string Why) : AutoTopUpVerdict;
}

/// <summary>When a card is charged without anybody there. Pure: the same facts, the same verdict.</summary>
public static class AutoTopUpRule
{
    /// <summary>After so many declines in a row nobody's card is tried again.</summary>
    public const int MostDeclines = 3;

    /// <summary>The balance is looked at as it will be then, so that the money is there before it is missed, however fast it is spent.</summary>
    public static readonly TimeSpan LookAhead = TimeSpan.FromMinutes(1);

    private static readonly TimeSpan[] Backoff = [TimeSpan.FromHours(1), TimeSpan.FromHours(24)];
    private const long CentNanos = Money.NanosPerUnit / 100;

    /// <summary>How long a card is left alone after so many declines in a row, fewer than <see cref="MostDeclines"/>.</summary>
    public static TimeSpan WaitAfter(int declines) => Backoff[declines - 1];

    /// <param name="message">What came of the last attempt.</param>
    public static string WhyDisabled(string? message)
        => $"{MostDeclines} charges in a row failed. {message} Mend the card or add another, then save the settings of automatic top-up again.";

    public static AutoTopUpVerdict Decide(AutoTopUp auto, Standing standing, DateTimeOffset now)
    {
        if (auto.Plan is not { } plan) return new AutoTopUpVerdict.Idle(AutoTopUpState.Off, "");
        if (auto.DisabledBecause is { } disabled) return new AutoTopUpVerdict.Idle(AutoTopUpState.Disabled, disabled);
        if (auto.IsInFlight) return new AutoTopUpVerdict.Idle(AutoTopUpState.Charging, "A charge is under way.");
        if (auto.RetryAt > now)
        {
            return new AutoTopUpVerdict.Idle(
                AutoTopUpState.Waiting,
                $"{auto.Last?.Message ?? "The card was declined."} It is tried again at {auto.RetryAt:yyyy-MM-dd HH:mm} UTC if the balance is low then.");
        }

        if (standing.Balance(now + LookAhead) >= plan.Threshold) return new AutoTopUpVerdict.Idle(AutoTopUpState.Watching, "");
        if (standing.Cards.Cards.FirstOrDefault(card => card.IsDefault) is not { } card)
        {
            return new AutoTopUpVerdict.Idle(AutoTopUpState.CardMissing, "There is no card on file to charge: add one under Billing > Payment Methods.");
        }

        if (now >= card.ExpiresAt)
        {
            return new AutoTopUpVerdict.Idle(
                AutoTopUpState.CardMissing,
                $"The default card, {card.Brand} ending {card.Last4}, has expired: add another, or make another the default, under Billing > "
                    + "Payment Methods.");
        }

        // All of the amount or nothing: less might not lift the balance to the threshold, and would be tried again at once.
        if (auto.ChargedThisMonth + plan.Amount > plan.MonthlyCap)
        {
            return new AutoTopUpVerdict.Idle(
                AutoTopUpState.MonthlyCapReached,
                $"{auto.ChargedThisMonth} was charged this month, and another {plan.Amount} would pass the monthly cap of {plan.MonthlyCap}: "
                    + "raise the cap, or add balance by hand.");
        }

        if (auto.ChargedToday + plan.Amount > plan.DailyCap)
        {
            return new AutoTopUpVerdict.Idle(
                AutoTopUpState.DailyCapReached,
                $"{auto.ChargedToday} was charged today, and another {plan.Amount} would pass the daily cap of {plan.DailyCap}: raise the cap, "
                    + "or add balance by hand.");
        }

        return new AutoTopUpVerdict.Charge(plan.Amount, card.PaymentMethodId);
    }

    /// <summary>What is wrong with a plan, and in which of its fields (as the API names them); null when nothing is.</summary>
    public static (string Field, string Message)? Refuse(AutoTopUpPlan plan)
    {
        if (plan.Amount < TopUps.Minimum || plan.Amount > TopUps.Maximum)
        {
            return ("amount", $"A top-up is from {TopUps.Minimum} to {TopUps.Maximum}, not {plan.Amount}.");
        }

        if (plan.Amount.Nanos % CentNanos != 0) return ("amount", $"A card is charged in whole cents, not {plan.Amount.ToDecimalString()} dollars.");
        if (plan.Threshold <= Money.Zero) return ("threshold", "A balance is never below zero: write a threshold above zero.");
        if (plan.Threshold > plan.Amount)
        {
            return ("threshold", $"One top-up of {plan.Amount} would not lift every balance to {plan.Threshold}: make the amount at least the threshold.");
        }

        if (plan.DailyCap < plan.Amount) return ("dailyCap", $"A day's cap of {plan.DailyCap} leaves no room for one top-up of {plan.Amount}.");
        return plan.MonthlyCap < plan.DailyCap
            ? ("monthlyCap", $"A month's cap of {plan.MonthlyCap} is below the day's of {plan.DailyCap}.")
            : null;
    }
}
