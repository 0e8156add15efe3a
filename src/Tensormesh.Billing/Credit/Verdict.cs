namespace Tensormesh.Billing;

/// <summary>Why a deployment may not run. The names are API: they are condition reasons.</summary>
public enum RefusalReason
{
    AccountMissing,
    NoValidCard,
    CardExpired,
    NoMatchingGpu,
    PriceMissing,
    HourlyRateAboveBudget,
    BudgetExhausted,
    InsufficientBalance,
}

/// <summary>The gate's answer.</summary>
public abstract record Verdict
{
    private Verdict() { }

    /// <summary>May run. For a running deployment <paramref name="StopsAt"/> is the known instant at which it must stop, and
    /// <paramref name="StopReason"/> why.</summary>
    public sealed record Admit(
        Money HourlyRate, Money HoldAmount, DateTimeOffset? StopsAt = null, RefusalReason? StopReason = null) : Verdict;

    /// <summary>May not run, and the message says what to do. <paramref name="Since"/>: the instant from which the refusal held, when it
    /// ends running work; charging stops there.</summary>
    public sealed record Refuse(RefusalReason Reason, string Message, DateTimeOffset? Since = null) : Verdict;

    /// <summary>The ledger could not be read: start nothing, stop nothing.</summary>
    public sealed record Hold(string Message) : Verdict
    {
        public const string Reason = "LedgerUnavailable";
    }
}
