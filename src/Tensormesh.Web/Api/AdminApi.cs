using Tensormesh.Billing;

namespace Tensormesh.Web;

/// <summary>What the platform's own people do with customers' accounts. In these requests <c>userId</c> is the operator's; who acted is taken from the token.</summary>
internal static class AdminApi
{
    public const int MostTargets = 100;
    public const int LongestReason = 500;

    private const string NotForTaking =
        "balances:add only adds. To take back a grant made in error, have it reversed in the ledger by a correcting movement (docs/runbook.md); "
        + "to stop spending, set spec.paused: true on the account's GpuDeployments.";

    public static void MapAdminApi(this IEndpointRouteBuilder routes)
    {
        var admin = routes.MapGroup("/v1/admin/billing").RequireAuthorization(Access.AdminPolicy).WithTags("admin");
        admin.MapPost("/balances", GetBalancesAsync).Produces<BalancesAnswer>();
        admin.MapPost("/balances:add", AddBalanceAsync).Produces<BalanceAnswer>();
    }

    private static async Task<IResult> GetBalancesAsync(BalancesRequest body, AccountLookup accounts, CancellationToken cancellation)
    {
        var targets = body.TargetUserIds ?? [];
        if (targets.Count is 0 or > MostTargets || targets.Any(string.IsNullOrEmpty))
        {
            return Problem.Invalid("targetUserIds", $"'targetUserIds' names 1 to {MostTargets} accounts.");
        }

        var balances = new List<AccountBalanceJson>(targets.Count);
        foreach (var target in targets.Distinct())
        {
            var account = new AccountId(target!);
            if (await accounts.FindAsync(account, cancellation) is not { } standing) return Problem.AccountUnknown(account, "targetUserIds");
            balances.Add(new AccountBalanceJson(target!, MoneyJson.From(accounts.BalanceOf(standing))));
        }

        return TypedResults.Ok(new BalancesAnswer(balances));
    }

    private static async Task<IResult> AddBalanceAsync(
        AddBalanceRequest body, HttpRequest request, Caller caller, AccountLookup accounts, Ledger ledger, WebMetrics metrics, ILogger<AddBalanceRequest> logger, CancellationToken cancellation)
    {
        if (!IdempotencyKey.TryRead(request, caller, "grant", out var key, out var refusal)) return refusal;
        if (string.IsNullOrEmpty(body.TargetUserId)) return Problem.Invalid("targetUserId", "'targetUserId' is missing: name the account to credit.");
        if (!MoneyJson.TryReadPositive(body.Amount, "amount", NotForTaking, out var amount, out refusal)) return refusal;
        var reason = body.Reason ?? "";
        if (reason.Length > LongestReason || reason.Any(char.IsControl))
        {
            return Problem.Invalid("reason", $"'reason' is one line of at most {LongestReason} characters.");
        }

        var account = new AccountId(body.TargetUserId);
        if (await accounts.FindAsync(account, cancellation) is null) return Problem.AccountUnknown(account, "targetUserId");
        switch (await ledger.PostAsync(Movements.CreditGrant(account, amount, key.Value, caller.Account.Value, reason), cancellation))
        {
            case PostResult.Refused refused:
                if (refused.Reason == LedgerRefusal.KeyReusedWithOtherContent) metrics.KeyConflicts.Inc();
                return LedgerRefusals.Describe(refused, account);
            case PostResult.Posted posted:
                AdminLog.Granted(logger, account, amount, caller.Account, posted.TransactionId);
                break;
            case PostResult.AlreadyPosted:
                break;
        }

        return await accounts.FindAsync(account, cancellation) is { } standing
            ? TypedResults.Ok(new BalanceAnswer(MoneyJson.From(accounts.BalanceOf(standing))))
            : Problem.AccountUnknown(account, "targetUserId");
    }
}

internal sealed record BalancesRequest(string? UserId, IReadOnlyList<string?>? TargetUserIds);

internal sealed record BalancesAnswer(IReadOnlyList<AccountBalanceJson> Balances);

internal sealed record AccountBalanceJson(string UserId, MoneyJson Balance);

/// <param name="Reason">Ours, optional: kept with the transaction.</param>
internal sealed record AddBalanceRequest(string? UserId, string? TargetUserId, MoneyJson? Amount, string? Reason);

internal static partial class AdminLog
{
    [LoggerMessage(Level = LogLevel.Information, Message = "Credit of {Amount} for {Account} by {By}: transaction {Transaction}")]
    public static partial void Granted(ILogger logger, AccountId account, Money amount, AccountId by, string transaction);
}
