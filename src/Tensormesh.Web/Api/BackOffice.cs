using System.Text.Json.Nodes;
using Tensormesh.Billing;

namespace Tensormesh.Web;

/// <summary>
/// What the platform's own people do with customers' money, through the API and the console alike. Each is one transaction of the ledger, with a note of
/// who did it and why, and is done once for one key.
/// </summary>
internal sealed class BackOffice(Ledger ledger, Corrections corrections, WebMetrics metrics, MoneyLog log)
{
    public const int LongestReason = 500;

    private readonly Ledger ledger = ledger;
    private readonly Corrections corrections = corrections;
    private readonly WebMetrics metrics = metrics;
    private readonly MoneyLog log = log;

    /// <summary>The account is content here, not part of the key: one key for two accounts is a conflict, not two grants.</summary>
    /// <param name="amount">Above zero.</param>
    public async Task<PostResult> GrantAsync(AccountId account, Money amount, string reason, string key, Caller by, CancellationToken cancellation)
    {
        var grant = Movements.CreditGrant(account, amount, key, by.Subject, reason) with { Key = key };
        var result = await ledger.PostAsync(grant, by.AsActor(), AuditAction.BalanceAdded, account, Details(amount, reason), cancellation);
        if (result is PostResult.Posted posted) log.Granted(amount, account, by.Subject, posted.TransactionId);
        return Counted(result);
    }

    /// <summary>A correction by hand, of either sign. What it takes is never more than there is. The account is content here too.</summary>
    public async Task<PostResult> AdjustAsync(AccountId account, Money amount, string reason, string key, Caller by, CancellationToken cancellation)
    {
        var movement = Movements.Adjustment(account, amount, key, by.Subject, reason) with { Key = $"adjustment/{key}" };
        var result = await ledger.PostAsync(movement, by.AsActor(), AuditAction.BalanceAdjusted, account, Details(amount, reason), cancellation);
        if (result is PostResult.Posted posted) log.Adjusted(amount, account, by.Subject, posted.TransactionId);
        return Counted(result);
    }

    /// <summary>The exact mirror of a transaction, once: the same again changes nothing.</summary>
    public async Task<PostResult> ReverseAsync(AccountId account, string transactionId, string reason, Caller by, CancellationToken cancellation)
    {
        var result = await corrections.ReverseAsync(transactionId, by.AsActor(), reason, cancellation);
        if (result is PostResult.Posted posted) log.Reversed(transactionId, account, by.Subject, posted.TransactionId);
        return result;
    }

    /// <summary>Real money moved: only the payment company can move it back.</summary>
    public static bool IsOfPaymentCompany(MovementType type)
        => type is MovementType.TopUp or MovementType.Refund or MovementType.Dispute or MovementType.DisputeReversal;

    /// <summary>One line that is not too long, and not empty where one is needed.</summary>
    public static bool IsReason(string reason, bool isRequired)
        => reason.Length <= LongestReason && !reason.Any(char.IsControl) && !(isRequired && string.IsNullOrWhiteSpace(reason));

    private static JsonObject Details(Money amount, string reason) => new() { ["amount"] = amount.ToDecimalString(), ["reason"] = reason };

    private PostResult Counted(PostResult result)
    {
        if (result is PostResult.Refused { Reason: LedgerRefusal.KeyReusedWithOtherContent }) metrics.KeyConflicts.Inc();
        return result;
    }
}
