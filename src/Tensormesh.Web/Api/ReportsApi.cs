using System.Diagnostics.CodeAnalysis;
using System.Text.Json.Serialization;
using Tensormesh.Billing;

namespace Tensormesh.Web;

/// <summary>A month's statement, and files of what was moved and charged: ours, the public API has no paths for these.</summary>
internal static class ReportsApi
{
    private const string Csv = "text/csv; charset=utf-8";
    private const string Html = "text/html; charset=utf-8";

    public static void MapReportsApi(this IEndpointRouteBuilder routes)
    {
        var billing = routes.MapGroup("/v1/billing").WithTags("reports").Refusing(404);
        billing.MapGet("/transactions:export", ExportTransactionsAsync).Produces<string>(200, "text/csv");
        billing.MapGet("/charges:export", ExportChargesAsync).Produces<string>(200, "text/csv");
        billing.MapGet("/statements", ListStatementsAsync).Produces<StatementsAnswer>();
        billing.MapGet("/statements/{month}", GetStatementAsync).Produces<StatementAnswer>();
        billing.MapGet("/statements/{month}:print", PrintStatementAsync).Produces<string>(200, "text/html");
    }

    internal static async Task<IResult> ExportTransactionsAsync(
        string? userId, string? month, Caller caller, AccountLookup accounts, Exports exports, CancellationToken cancellation)
    {
        if (!caller.MayActFor(userId, out var account, out var refusal)) return refusal;
        if (!TryReadMonth(month, out var asked, out refusal)) return refusal;
        if (await accounts.FindAsync(account, cancellation) is not { } standing) return Problem.AccountUnknown(account);
        var period = AccountCalendar.Of(standing.Policy.TimeZone).MonthAt(asked);
        return TypedResults.Stream(
            body => exports.TransactionsAsync(account, period, body, cancellation), Csv, $"transactions-{asked}.csv");
    }

    internal static async Task<IResult> ExportChargesAsync(
        string? userId, string? month, Caller caller, AccountLookup accounts, Statements statements, Exports exports, TimeProvider time,
        CancellationToken cancellation)
    {
        var (statement, refusal) = await FindAsync(userId, month, caller, accounts, statements, time, cancellation);
        return statement is null
            ? refusal!
            : TypedResults.Stream(body => exports.FocusAsync(statement, body, cancellation), Csv, $"charges-{statement.Month}.csv");
    }

    private static async Task<IResult> ListStatementsAsync(
        string? userId, Caller caller, AccountLookup accounts, Statements statements, TimeProvider time, CancellationToken cancellation)
    {
        if (!caller.MayActFor(userId, out var account, out var refusal)) return refusal;
        return await accounts.FindAsync(account, cancellation) is not null
            && await statements.ReadAsync(account, time.GetUtcNow(), cancellation) is { } all
            ? TypedResults.Ok(new StatementsAnswer([.. all.Reverse().Select(StatementJson.From)]))
            : Problem.AccountUnknown(account);
    }

    private static async Task<IResult> GetStatementAsync(
        string? userId, string month, Caller caller, AccountLookup accounts, Statements statements, TimeProvider time, CancellationToken cancellation)
    {
        var (statement, refusal) = await FindAsync(userId, month, caller, accounts, statements, time, cancellation);
        return statement is null ? refusal! : TypedResults.Ok(new StatementAnswer(StatementJson.From(statement)));
    }

    internal static async Task<IResult> PrintStatementAsync(
        string? userId, string month, HttpContext context, Caller caller, AccountLookup accounts, Statements statements, BillingAddresses addresses,
        TimeProvider time, CancellationToken cancellation)
    {
        var (statement, refusal) = await FindAsync(userId, month, caller, accounts, statements, time, cancellation);
        if (statement is null) return refusal!;
        // A page of text: it runs nothing, loads nothing and is shown in no frame.
        context.Response.Headers.ContentSecurityPolicy = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'";
        return TypedResults.Text(StatementPage.Render(statement, await addresses.ReadAsync(statement.Account, cancellation)), Html);
    }

    private static async Task<(Statement? Statement, IResult? Refusal)> FindAsync(
        string? userId, string? month, Caller caller, AccountLookup accounts, Statements statements, TimeProvider time, CancellationToken cancellation)
    {
        if (!caller.MayActFor(userId, out var account, out var refusal)) return (null, refusal);
        if (!TryReadMonth(month, out var asked, out refusal)) return (null, refusal);
        if (await accounts.FindAsync(account, cancellation) is null) return (null, Problem.AccountUnknown(account));
        var all = await statements.ReadAsync(account, time.GetUtcNow(), cancellation) ?? [];
        return all.FirstOrDefault(one => one.Month == asked) is { } statement ? (statement, null) : (null, Problem.StatementUnknown(asked));
    }

    private static bool TryReadMonth(string? text, out BillingMonth month, [NotNullWhen(false)] out Problem? refusal)
    {
        refusal = BillingMonth.TryParse(text, out month) ? null : Problem.Invalid("month", "month is a year and a month, such as 2026-03.");
        return refusal is null;
    }
}

/// <param name="Statements">Newest first.</param>
internal sealed record StatementsAnswer(IReadOnlyList<StatementJson> Statements);

internal sealed record StatementAnswer(StatementJson Statement);

/// <param name="State">Open: it may still change.</param>
/// <param name="PeriodStart">What took effect later than this, and not later than the period's end, belongs to the month.</param>
/// <param name="Hash">SHA-256 of the statement and, by <paramref name="PreviousHash"/>, of those before; empty while it is open.</param>
internal sealed record StatementJson(
    string Month, string State, string TimeZone, DateTime PeriodStart, DateTime PeriodEnd, MoneyJson OpeningBalance, MoneyJson ClosingBalance,
    IReadOnlyList<StatementLineJson> Lines, string PreviousHash, string Hash)
{
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] public DateTime? ClosedAt { get; init; }

    public static StatementJson From(Statement statement) => new(
        statement.Month.ToString(), statement.ClosedAt is null ? "STATEMENT_STATE_OPEN" : "STATEMENT_STATE_CLOSED", statement.TimeZone,
        statement.Period.From.UtcDateTime, statement.Period.To.UtcDateTime,
        MoneyJson.From(statement.OpeningBalance), MoneyJson.From(statement.ClosingBalance),
        [.. statement.Lines.Select(line => new StatementLineJson(
            Wire.EnumName(TransactionJson.TypePrefix, line.Type), line.Correction, line.Transactions, MoneyJson.From(line.Amount)))],
        statement.PreviousHash, statement.Hash)
    {
        ClosedAt = statement.ClosedAt?.UtcDateTime,
    };
}

/// <param name="Correction">Of a month before, and posted after that was closed.</param>
internal sealed record StatementLineJson(string Type, bool Correction, long Transactions, MoneyJson Amount);
