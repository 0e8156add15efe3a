using Tensormesh.Billing;

namespace Tensormesh.Web;

/// <summary>
/// What the platform's own people do with customers' accounts. In these requests <c>userId</c> is the operator's; who acted is taken from
/// the token.
/// </summary>
internal static class AdminApi
{
    public const int MostTargets = 100;
    public const int LongestReason = 500;

    private const string NotForTaking =
        "balances:add only adds, and credit that was granted cannot be taken back yet (docs/runbook.md, \"A grant was made in error\"); "
        + "to stop spending, set spec.paused: true on the account's GpuDeployments.";

    public static void MapAdminApi(this IEndpointRouteBuilder routes)
    {
        var admin = routes.MapGroup("/v1/admin/billing").RequireAuthorization(Access.AdminPolicy).WithTags("admin");
        admin.MapPost("/balances", GetBalancesAsync).Produces<BalancesAnswer>();
        admin.MapPost("/balances:add", AddBalanceAsync).Produces<BalanceAnswer>();
        admin.MapPost("/spending/summary", GetSpendingAsync).Produces<SpendingsAnswer>();
    }

    private static async Task<IResult> GetBalancesAsync(TargetsRequest body, AccountLookup accounts, CancellationToken cancellation)
    {
        if (body.WhyNotReadable() is { } refusal) return refusal;
        var balances = new List<AccountBalanceJson>();
        foreach (var account in body.Targets())
        {
            var standing = await accounts.FindAsync(account, cancellation);
            if (standing is null) return Problem.AccountUnknown(account, "targetUserIds");
            balances.Add(new AccountBalanceJson(account.Value, MoneyJson.From(accounts.BalanceOf(standing))));
        }

        return TypedResults.Ok(new BalancesAnswer(balances));
    }

    private static async Task<IResult> GetSpendingAsync(TargetsRequest body, AccountLookup accounts, CancellationToken cancellation)
    {
        if (body.WhyNotReadable() is { } refusal) return refusal;
        var summaries = new List<AccountSpendingJson>();
        foreach (var account in body.Targets())
        {
            var spending = await accounts.FindSpendingAsync(account, cancellation);
            if (spending is null) return Problem.AccountUnknown(account, "targetUserIds");
            var (day, week, month) = SpendingAnswer.From(spending);
            summaries.Add(new AccountSpendingJson(account.Value, day, week, month));
        }

        return TypedResults.Ok(new SpendingsAnswer(summaries));
    }

    private static async Task<IResult> AddBalanceAsync(
        AddBalanceRequest body, HttpContext context, Caller caller, AccountLookup accounts, Ledger ledger, WebMetrics metrics,
        MoneyLog log, CancellationToken cancellation)
    {
        if (!IdempotencyKey.TryRead(context, caller, "api-grant", out var key, out var refusal)) return refusal;
        if (string.IsNullOrEmpty(body.TargetUserId))
        {
            return Problem.Invalid("targetUserId", "'targetUserId' is missing: name the account to credit.");
        }

        if (!MoneyJson.TryReadPositive(body.Amount, "amount", NotForTaking, out var amount, out refusal)) return refusal;
        var reason = body.Reason ?? "";
        if (reason.Length > LongestReason || reason.Any(char.IsControl))
        {
            return Problem.Invalid("reason", $"'reason' is one line of at most {LongestReason} characters.");
        }

        var account = new AccountId(body.TargetUserId);
        if (await accounts.FindAsync(account, cancellation) is null) return Problem.AccountUnknown(account, "targetUserId");
        // The account is content here, not part of the key: one key for two accounts is a conflict, not two grants.
        var grant = Movements.CreditGrant(account, amount, key.Value, caller.Account.Value, reason) with { Key = key.Value };
        switch (await ledger.PostAsync(grant, cancellation))
        {
            case PostResult.Refused refused:
                if (refused.Reason == LedgerRefusal.KeyReusedWithOtherContent) metrics.KeyConflicts.Inc();
                return LedgerRefusals.Describe(refused, account);
            case PostResult.Posted posted:
                log.Granted(amount, account, caller.Account, posted.TransactionId);
                break;
            case PostResult.AlreadyPosted:
                break;
        }

        return await accounts.FindAsync(account, cancellation) is { } standing
            ? TypedResults.Ok(new BalanceAnswer(MoneyJson.From(accounts.BalanceOf(standing))))
            : Problem.AccountUnknown(account, "targetUserId");
    }
}

/// <summary>A batch read. Each account is read once, in the order of its first mention.</summary>
internal sealed record TargetsRequest(string? UserId, IReadOnlyList<string?>? TargetUserIds)
{
    public Problem? WhyNotReadable() => TargetUserIds is { Count: > 0 and <= AdminApi.MostTargets } targets
        && !targets.Any(string.IsNullOrEmpty)
        ? null
        : Problem.Invalid("targetUserIds", $"'targetUserIds' names 1 to {AdminApi.MostTargets} accounts.");

    public IEnumerable<AccountId> Targets() => TargetUserIds!.Distinct().Select(target => new AccountId(target!));
}

internal sealed record BalancesAnswer(IReadOnlyList<AccountBalanceJson> Balances);

internal sealed record AccountBalanceJson(string UserId, MoneyJson Balance);

internal sealed record SpendingsAnswer(IReadOnlyList<AccountSpendingJson> Summaries);

internal sealed record AccountSpendingJson(string UserId, MoneyJson Spend24h, MoneyJson Spend7d, MoneyJson Spend30d);

/// <param name="Reason">Ours, optional: kept with the transaction.</param>
internal sealed record AddBalanceRequest(string? UserId, string? TargetUserId, MoneyJson? Amount, string? Reason);

/// <summary>The ledger's refusals as answers.</summary>
internal static class LedgerRefusals
{
    public static Problem Describe(PostResult.Refused refused, AccountId account) => refused.Reason switch
    {
        LedgerRefusal.KeyReusedWithOtherContent => Problem.KeyReused("This Idempotency-Key was used before for another amount or account."),
        LedgerRefusal.AccountUnknown => Problem.AccountUnknown(account),
        LedgerRefusal.AmountOverflow => Problem.Invalid("amount",
            "With this amount the balance would not fit the ledger any more: use a smaller one."),
        LedgerRefusal.CurrencyMismatch or LedgerRefusal.NotBalanced or LedgerRefusal.InsufficientBalance
            or LedgerRefusal.CorrectionUnsound =>
            throw new InvalidOperationException($"adding money was refused as {refused.Reason}: {refused.Message}"),
    };
}
