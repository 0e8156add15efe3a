using System.Diagnostics.CodeAnalysis;
using Tensormesh.Billing;

namespace Tensormesh.Web;

/// <summary>
/// What the platform's own people do with customers' accounts. In these requests <c>userId</c> is the operator's; who acted is taken from
/// the token.
/// </summary>
internal static class AdminApi
{
    public const int MostTargets = 100;

    private const string NotForTaking = "balances:add only adds: to take something off by hand use balances:adjust, and to undo a transaction its :reverse.";

    public static void MapAdminApi(this IEndpointRouteBuilder routes)
    {
        var admin = routes.MapGroup("/v1/admin/billing").Needing(Permission.Administer).WithTags("admin");
        admin.MapPost("/balances", GetBalancesAsync).Produces<BalancesAnswer>().Refusing(404);
        admin.MapPost("/balances:add", AddBalanceAsync).Produces<BalanceAnswer>().Refusing(404).TakingIdempotencyKey();
        admin.MapPost("/balances:adjust", AdjustBalanceAsync).Produces<BalanceAnswer>().Refusing(404).TakingIdempotencyKey();
        admin.MapPost("/transactions/{transactionId}:reverse", ReverseAsync).Produces<BalanceAnswer>().Refusing(404).RememberingAnswers();
        admin.MapPost("/spending/summary", GetSpendingAsync).Produces<SpendingsAnswer>().Refusing(404);
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
        AddBalanceRequest body, HttpContext context, Caller caller, AccountLookup accounts, BackOffice office, CancellationToken cancellation)
    {
        if (!IdempotencyKey.TryRead(context, caller, "api-grant", out var key, out var refusal)) return refusal;
        if (string.IsNullOrEmpty(body.TargetUserId))
        {
            return Problem.Invalid("targetUserId", "'targetUserId' is missing: name the account to credit.");
        }

        if (!MoneyJson.TryReadPositive(body.Amount, "amount", NotForTaking, out var amount, out refusal)) return refusal;
        if (!TryReadReason(body.Reason, isRequired: false, out var reason, out refusal)) return refusal;
        var account = new AccountId(body.TargetUserId);
        if (await accounts.FindAsync(account, cancellation) is null) return Problem.AccountUnknown(account, "targetUserId");
        return await office.GrantAsync(account, amount, reason, key.Value, caller, cancellation) is PostResult.Refused refused
            ? LedgerRefusals.Describe(refused, account)
            : await BalanceAsync(account, accounts, cancellation);
    }

    private static async Task<IResult> AdjustBalanceAsync(
        AddBalanceRequest body, HttpContext context, Caller caller, AccountLookup accounts, BackOffice office, CancellationToken cancellation)
    {
        if (!IdempotencyKey.TryRead(context, caller, "api-adjust", out var key, out var refusal)) return refusal;
        if (string.IsNullOrEmpty(body.TargetUserId)) return Problem.Invalid("targetUserId", "'targetUserId' is missing: name the account to adjust.");
        if (!MoneyJson.TryRead(body.Amount, "amount", out var amount, out refusal)) return refusal;
        if (!TryReadReason(body.Reason, isRequired: true, out var reason, out refusal)) return refusal;
        var account = new AccountId(body.TargetUserId);
        if (await accounts.FindAsync(account, cancellation) is null) return Problem.AccountUnknown(account, "targetUserId");
        return await office.AdjustAsync(account, amount, reason, key.Value, caller, cancellation) switch
        {
            PostResult.Refused { Reason: LedgerRefusal.InsufficientBalance } =>
                Problem.BalanceTooLow($"The balance of '{account}' is less than {(-amount).ToDecimalString()}: nothing was taken. Take what is there, or less."),
            PostResult.Refused refused => LedgerRefusals.Describe(refused, account),
            _ => await BalanceAsync(account, accounts, cancellation),
        };
    }

    private static async Task<IResult> ReverseAsync(
        string transactionId, ReverseRequest body, Caller caller, AccountLookup accounts, BackOffice office, Transactions transactions,
        CancellationToken cancellation)
    {
        if (!TryReadReason(body.Reason, isRequired: true, out var reason, out var refusal)) return refusal;
        if (transactionId.Any(char.IsControl) || await transactions.FindOwnerAsync(transactionId, cancellation) is not var (account, type))
        {
            return Problem.NoTransactionOfACustomer(transactionId);
        }

        if (BackOffice.IsOfPaymentCompany(type))
        {
            return Problem.CannotBeTakenBack($"'{transactionId}' is a {type}: real money moved. Refund it at the payment company, which tells us, and it is posted.");
        }

        return await office.ReverseAsync(account, transactionId, reason, caller, cancellation) switch
        {
            PostResult.Refused { Reason: LedgerRefusal.InsufficientBalance } => Problem.BalanceTooLow(
                $"The balance of '{account}' is less than what '{transactionId}' gave: nothing was taken back. Take what is there with balances:adjust."),
            PostResult.Refused { Reason: LedgerRefusal.CorrectionUnsound } refused => Problem.CannotBeTakenBack($"{refused.Message}. Nothing was changed."),
            PostResult.Refused refused => LedgerRefusals.Describe(refused, account),
            _ => await BalanceAsync(account, accounts, cancellation),
        };
    }

    private static bool TryReadReason(string? text, bool isRequired, out string reason, [NotNullWhen(false)] out Problem? refusal)
    {
        reason = text ?? "";
        refusal = BackOffice.IsReason(reason, isRequired)
            ? null
            : Problem.Invalid("reason", $"'reason' is {(isRequired ? "required: " : "")}one line of at most {BackOffice.LongestReason} characters.");
        return refusal is null;
    }

    private static async Task<IResult> BalanceAsync(AccountId account, AccountLookup accounts, CancellationToken cancellation)
        => await accounts.FindAsync(account, cancellation) is { } standing
        ? TypedResults.Ok(new BalanceAnswer(MoneyJson.From(accounts.BalanceOf(standing))))
        : Problem.AccountUnknown(account, "targetUserId");
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

internal sealed record ReverseRequest(string? UserId, string? Reason);

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
