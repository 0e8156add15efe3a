namespace Tensormesh.Billing;

/// <summary>Why the ledger refuses a transaction, in the order in which it looks: the order is a tested contract.</summary>
public enum LedgerRefusal
{
    /// <summary>The idempotency key was used for other content: an error, never a charge, and an alert.</summary>
    KeyReusedWithOtherContent,
    AccountUnknown,
    CurrencyMismatch,
    NotBalanced,
    AmountOverflow,
    /// <summary>A customer's balance would go below zero.</summary>
    InsufficientBalance,
    /// <summary>It takes back what is not there, was taken back before or cannot be, or more than is left of it.</summary>
    CorrectionUnsound,
}

public abstract record PostResult
{
    private PostResult() { }
    public sealed record Posted(string TransactionId) : PostResult;
    /// <summary>Same key, same content: done before, nothing done now.</summary>
    public sealed record AlreadyPosted(string TransactionId) : PostResult;
    public sealed record Refused(LedgerRefusal Reason, string Message) : PostResult;
}
