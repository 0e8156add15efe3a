using System.Text.Json.Serialization;
using Tensormesh.Billing;

namespace Tensormesh.Web;

/// <summary>Automatic top-up: ours, in the public API's style, which names no path for it.</summary>
internal static class AutoTopUpApi
{
    private const string Path = "/v1/billing/auto-top-up";

    public static void MapAutoTopUpApi(this IEndpointRouteBuilder routes)
    {
        var group = routes.MapGroup("").WithTags("payments").Refusing(404);
        group.MapGet(Path, GetAsync).Produces<AutoTopUpAnswer>();
        group.MapPut(Path, SaveAsync).Produces<AutoTopUpAnswer>().RememberingAnswers();
        group.MapDelete(Path, RemoveAsync).Produces<Done>().RememberingAnswers();
    }

    private static async Task<IResult> GetAsync(
        string? userId, Caller caller, AccountLookup accounts, AutoTopUps autoTopUps, CancellationToken cancellation)
    {
        if (!caller.MayActFor(userId, out var account, out var refusal)) return refusal;
        return await AnswerAsync(account, accounts, autoTopUps, cancellation);
    }

    private static async Task<IResult> SaveAsync(
        AutoTopUpRequest body, Caller caller, AccountLookup accounts, AutoTopUps autoTopUps, Till till, CancellationToken cancellation)
    {
        if (!caller.MayActFor(body.UserId, out var account, out var refusal)) return refusal;
        const string instead = "Write an amount above zero.";
        if (!MoneyJson.TryReadPositive(body.Threshold, "threshold", instead, out var threshold, out refusal)) return refusal;
        if (!MoneyJson.TryReadPositive(body.Amount, "amount", instead, out var amount, out refusal)) return refusal;
        if (!MoneyJson.TryReadPositive(body.DailyCap, "dailyCap", instead, out var dailyCap, out refusal)) return refusal;
        if (!MoneyJson.TryReadPositive(body.MonthlyCap, "monthlyCap", instead, out var monthlyCap, out refusal)) return refusal;
        var plan = new AutoTopUpPlan(threshold, amount, dailyCap, monthlyCap);
        if (AutoTopUpRule.Refuse(plan) is var (field, message)) return Problem.Invalid(field, message);
        if (await accounts.FindAsync(account, cancellation) is null) return Problem.AccountUnknown(account);
        return await till.SaveAutoTopUpAsync(account, plan, caller, cancellation)
            ? await AnswerAsync(account, accounts, autoTopUps, cancellation)
            : Problem.AccountUnknown(account);
    }

    private static async Task<IResult> RemoveAsync(
        string? userId, Caller caller, AccountLookup accounts, Till till, CancellationToken cancellation)
    {
        if (!caller.MayActFor(userId, out var account, out var refusal)) return refusal;
        if (await accounts.FindAsync(account, cancellation) is null) return Problem.AccountUnknown(account);
        await till.RemoveAutoTopUpAsync(account, caller, cancellation);
        return Done.Result;
    }

    private static async Task<IResult> AnswerAsync(
        AccountId account, AccountLookup accounts, AutoTopUps autoTopUps, CancellationToken cancellation)
        => await accounts.FindAsync(account, cancellation) is not null && await autoTopUps.ReadAsync(account, cancellation) is var (settings, verdict)
            ? TypedResults.Ok(new AutoTopUpAnswer(AutoTopUpJson.From(settings, verdict)))
            : Problem.AccountUnknown(account);
}

internal sealed record AutoTopUpRequest(string? UserId, MoneyJson? Threshold, MoneyJson? Amount, MoneyJson? DailyCap, MoneyJson? MonthlyCap);

internal sealed record AutoTopUpAnswer(AutoTopUpJson AutoTopUp);

/// <summary>What is not set is left out.</summary>
/// <param name="State"><c>AUTO_TOP_UP_STATE_</c> and the name of an <see cref="AutoTopUpState"/>.</param>
/// <param name="Reason">Why nothing is charged, for people; empty where there is nothing to say.</param>
/// <param name="ChargedToday">Since the account's present day began, in its own time zone; not yet certain amounts included.</param>
internal sealed record AutoTopUpJson(string State, string Reason, MoneyJson ChargedToday, MoneyJson ChargedThisMonth)
{
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] public MoneyJson? Threshold { get; init; }
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] public MoneyJson? Amount { get; init; }
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] public MoneyJson? DailyCap { get; init; }
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] public MoneyJson? MonthlyCap { get; init; }

    /// <summary>Not before then is a declined card tried again.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] public DateTime? RetryAt { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] public AutoTopUpAttemptJson? LastAttempt { get; init; }

    public static AutoTopUpJson From(AutoTopUp settings, AutoTopUpVerdict verdict)
    {
        var (state, reason) = verdict is AutoTopUpVerdict.Idle idle ? (idle.State, idle.Why) : (AutoTopUpState.Charging, "");
        return new(
            Wire.EnumName("AUTO_TOP_UP_STATE", state.ToString()), reason, MoneyJson.From(settings.ChargedToday), MoneyJson.From(settings.ChargedThisMonth))
        {
            Threshold = settings.Plan is { } plan ? MoneyJson.From(plan.Threshold) : null,
            Amount = settings.Plan is { } same ? MoneyJson.From(same.Amount) : null,
            DailyCap = settings.Plan is { } daily ? MoneyJson.From(daily.DailyCap) : null,
            MonthlyCap = settings.Plan is { } monthly ? MoneyJson.From(monthly.MonthlyCap) : null,
            RetryAt = settings.RetryAt?.UtcDateTime,
            LastAttempt = settings.Last is { } last ? AutoTopUpAttemptJson.From(last) : null,
        };
    }
}

/// <param name="Outcome"><c>AUTO_TOP_UP_OUTCOME_</c> and the name of an <see cref="AutoTopUpOutcome"/>, or <c>IN_FLIGHT</c>.</param>
internal sealed record AutoTopUpAttemptJson(MoneyJson Amount, DateTime BegunAt, string Outcome, string Message)
{
    public static AutoTopUpAttemptJson From(AutoTopUpAttempt attempt) => new(
        MoneyJson.From(attempt.Amount), attempt.BegunAt.UtcDateTime, Wire.EnumName("AUTO_TOP_UP_OUTCOME", attempt.Outcome?.ToString() ?? "InFlight"),
        attempt.Message ?? "");
}
