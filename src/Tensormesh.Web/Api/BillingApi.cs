using System.Diagnostics.CodeAnalysis;
using System.Globalization;
using System.Text.Json;
using System.Text.Json.Serialization;
using Tensormesh.Billing;

namespace Tensormesh.Web;

/// <summary>What a customer reads about their account and what things cost.</summary>
internal static class BillingApi
{
    /// <summary>A month of any length, and today.</summary>
    public const int HistoryDays = 31;

    public static void MapBillingApi(this IEndpointRouteBuilder routes)
    {
        var billing = routes.MapGroup("/v1/billing").WithTags("billing").Refusing(404);
        billing.MapGet("/balance", GetBalanceAsync).Produces<BalanceAnswer>();
        billing.MapGet("/transactions", ListTransactionsAsync).Produces<TransactionsAnswer>();
        billing.MapGet("/transactions/{transactionId}", GetTransactionAsync).Produces<TransactionDetailJson>();
        billing.MapGet("/spending/summary", GetSpendingAsync).Produces<SpendingAnswer>();
        billing.MapGet("/spending/history", GetHistoryAsync).Produces<SpendingHistoryAnswer>();
        // Ours: what the Billing page opens with.
        billing.MapGet("/overview", GetOverviewAsync).Produces<OverviewAnswer>();
        billing.MapGet("/gpu-pricing", ListGpuPricingAsync).Produces<GpuPricingAnswer>();
    }

    private static async Task<IResult> GetBalanceAsync(string? userId, Caller caller, AccountLookup accounts,
        CancellationToken cancellation)
    {
        if (!caller.MayActFor(userId, out var account, out var refusal)) return refusal;
        return await accounts.FindAsync(account, cancellation) is { } standing
            ? TypedResults.Ok(new BalanceAnswer(MoneyJson.From(accounts.BalanceOf(standing))))
            : Problem.AccountUnknown(account);
    }

    /// <summary>Newest first. A page asks for one row more than it shows, so that the last page is known to be the last.</summary>
    private static async Task<IResult> ListTransactionsAsync(
        string? userId, string? pageSize, string? pageToken, string? type, string? from, string? until, Caller caller, AccountLookup accounts,
        Transactions transactions, CancellationToken cancellation)
    {
        if (!caller.MayActFor(userId, out var account, out var refusal)) return refusal;
        if (!Wire.TryReadPageSize(pageSize, out var size, out refusal)) return refusal;
        if (!TryReadFilter(type, from, until, out var filter, out refusal)) return refusal;
        var query = $"{type}/{filter.From:O}/{filter.Until:O}";
        if (!PageToken.TryRead(pageToken, account, query, out var before)) return Problem.BadPageToken();
        if (await accounts.FindAsync(account, cancellation) is not { } standing) return Problem.AccountUnknown(account);

        var calendar = AccountCalendar.Of(standing.Policy.TimeZone);
        var rows = await transactions.ListAsync(account, before, size + 1, cancellation, filter);
        var page = rows.Take(size).ToArray();
        var next = rows.Count > size ? PageToken.Write(page[^1].Position, account, query) : "";
        return TypedResults.Ok(new TransactionsAnswer([.. page.Select(row => TransactionJson.From(row, calendar))], next));
    }

    private static async Task<IResult> GetTransactionAsync(
        string transactionId, string? userId, Caller caller, AccountLookup accounts, Transactions transactions, CancellationToken cancellation)
    {
        if (!caller.MayActFor(userId, out var account, out var refusal)) return refusal;
        if (await accounts.FindAsync(account, cancellation) is not { } standing) return Problem.AccountUnknown(account);
        return await transactions.FindAsync(account, transactionId, cancellation) is { } found
            ? TypedResults.Ok(TransactionDetailJson.From(found, AccountCalendar.Of(standing.Policy.TimeZone)))
            : Problem.TransactionUnknown(transactionId);
    }

    private static async Task<IResult> GetSpendingAsync(string? userId, Caller caller, AccountLookup accounts,
        CancellationToken cancellation)
    {
        if (!caller.MayActFor(userId, out var account, out var refusal)) return refusal;
        return await accounts.FindSpendingAsync(account, cancellation) is { } spending
            ? TypedResults.Ok(SpendingAnswer.From(spending))
            : Problem.AccountUnknown(account);
    }

    private static async Task<IResult> GetHistoryAsync(string? userId, Caller caller, AccountLookup accounts, CancellationToken cancellation)
    {
        if (!caller.MayActFor(userId, out var account, out var refusal)) return refusal;
        return await accounts.FindHistoryAsync(account, HistoryDays, cancellation) is { } days
            ? TypedResults.Ok(new SpendingHistoryAnswer([.. days.Select(SpendingBucketJson.From)]))
            : Problem.AccountUnknown(account);
    }

    private static async Task<IResult> GetOverviewAsync(string? userId, Caller caller, AccountLookup accounts, CancellationToken cancellation)
    {
        if (!caller.MayActFor(userId, out var account, out var refusal)) return refusal;
        return await accounts.FindOverviewAsync(account, cancellation) is { } overview
            ? TypedResults.Ok(OverviewAnswer.From(overview))
            : Problem.AccountUnknown(account);
    }

    private static async Task<IResult> ListGpuPricingAsync(
        string? cloudProvider, string? gpuType, string? activeOnly, Prices prices, CancellationToken cancellation)
    {
        if (!GpuTypes.TryReadProvider(cloudProvider, out var ours))
        {
            return Problem.Invalid("cloudProvider",
                $"'{cloudProvider}' is no cloud provider: use one of {string.Join(", ", GpuTypes.CloudProviders)}, or leave it out.");
        }

        if (!GpuTypes.IsTypeName(gpuType))
        {
            return Problem.Invalid("gpuType",
                $"'{gpuType}' is no GPU type: write one as this list gives it, such as GPU_TYPE_H100, or leave it out.");
        }

        if (activeOnly is { Length: > 0 } && !bool.TryParse(activeOnly, out _))
        {
            return Problem.Invalid("activeOnly", "activeOnly is true or false.");
        }

        var current = ours ? await prices.CurrentAsync(cancellation) : new Dictionary<GpuProduct, GpuPrice>();
        return TypedResults.Ok(new GpuPricingAnswer([.. current.Values
            .Select(GpuPriceJson.From)
            .Where(price => gpuType is null or "" or GpuTypes.Unspecified || price.GpuType == gpuType)
            .OrderBy(price => price.GpuType, StringComparer.Ordinal).ThenBy(price => price.GpuProduct, StringComparer.Ordinal)]));
    }

    private static bool TryReadFilter(
        string? type, string? from, string? until, out TransactionFilter filter, [NotNullWhen(false)] out Problem? refusal)
    {
        filter = new();
        var types = Enum.GetValues<MovementType>().Where(each => Wire.EnumName(TransactionJson.TypePrefix, each.ToString()) == type).ToArray();
        if (!string.IsNullOrEmpty(type) && types.Length == 0)
        {
            var known = string.Join(", ", Enum.GetValues<MovementType>().Select(each => Wire.EnumName(TransactionJson.TypePrefix, each.ToString())));
            refusal = Problem.Invalid("type", $"'{type}' is no type of transaction: use one of {known}, or leave it out.");
            return false;
        }

        if (!Wire.TryReadInstant(from, "from", out var first, out refusal) || !Wire.TryReadInstant(until, "until", out var end, out refusal)) return false;
        if (first >= end) refusal = Problem.Invalid("until", "'until' is the first instant after the period: it must be later than 'from'.");
        filter = new(types.Length == 0 ? null : types, first, end);
        return refusal is null;
    }
}

internal sealed record BalanceAnswer(MoneyJson Balance);

/// <summary>Rolling windows of settled usage; positive amounts.</summary>
internal sealed record SpendingAnswer(MoneyJson Spend24h, MoneyJson Spend7d, MoneyJson Spend30d)
{
    public static SpendingAnswer From(SpendingSummary summary) =>
        new(MoneyJson.From(summary.Last24Hours), MoneyJson.From(summary.Last7Days), MoneyJson.From(summary.Last30Days));
}

/// <summary>The last month by the day, today last. Settled usage only; days without spending too.</summary>
internal sealed record SpendingHistoryAnswer(IReadOnlyList<SpendingBucketJson> Buckets);

/// <param name="BucketStart">The first instant of the day in the account's time zone.</param>
/// <param name="CostSaving">What a cheaper price for cached tokens saved; GPU time has no such price.</param>
/// <param name="GpuAmount">Ours, not in the public API: what of it was GPU time. The rest was serverless.</param>
internal sealed record SpendingBucketJson(DateTime BucketStart, MoneyJson Amount, MoneyJson CostSaving, MoneyJson GpuAmount)
{
    public static SpendingBucketJson From(SpendingDay day) => new(
        day.StartsAt.UtcDateTime, MoneyJson.From(day.Total), MoneyJson.From(day.Saved), MoneyJson.From(day.Gpu));
}

/// <summary>An account at one instant: every amount is of that instant, what accrued since the last settlement included.</summary>
/// <param name="Balance">What is left.</param>
/// <param name="Held">What of it is set aside for deployments that may run.</param>
/// <param name="Available">The rest, which a new deployment may claim; never below zero here.</param>
/// <param name="ExhaustsAt">When the balance is used up as things run now; left out while nothing runs.</param>
internal sealed record OverviewAnswer(
    DateTime AsOf, string TimeZone, MoneyJson Balance, MoneyJson Held, MoneyJson Available, MoneyJson BurnPerHour, CurrentBillingJson CurrentBilling,
    SpendingOverviewJson Spending)
{
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] public DateTime? ExhaustsAt { get; init; }

    public static OverviewAnswer From(AccountOverview overview)
    {
        var (standing, spending) = (overview.Standing, overview.Spending);
        return new(
            overview.At.UtcDateTime, standing.Policy.TimeZone, MoneyJson.From(overview.Balance), MoneyJson.From(overview.Held),
            MoneyJson.From(overview.Available), MoneyJson.From(standing.BurnPerHour),
            new(MoneyJson.From(overview.MonthToDate), spending.NextBillingAt.UtcDateTime),
            new(MoneyJson.From(overview.Today), MoneyJson.From(spending.LastWeek), MoneyJson.From(spending.LastMonth)))
        {
            ExhaustsAt = standing.ExhaustsAt?.UtcDateTime,
        };
    }
}

internal sealed record CurrentBillingJson(MoneyJson MonthToDate, DateTime NextBillingAt);

/// <summary>Today so far, the seven days before it, and the month before this one, in the account's time zone.</summary>
internal sealed record SpendingOverviewJson(MoneyJson Today, MoneyJson LastWeek, MoneyJson LastMonth);

/// <param name="NextPageToken">Empty on the last page.</param>
internal sealed record TransactionsAnswer(IReadOnlyList<TransactionJson> Transactions, string NextPageToken);

/// <param name="Amount">Above zero: money in. Below zero: a charge.</param>
/// <param name="StripePaymentIntentId">Empty where no payment is behind it.</param>
/// <param name="PaymentMethodId">Empty where no card is behind it.</param>
/// <param name="Details">An object; its members depend on the type.</param>
/// <param name="Month">Ours: under which month it is listed, <c>2026-03</c> in the account's time zone.</param>
internal sealed record TransactionJson(
    string TransactionId, string StripePaymentIntentId, string PaymentMethodId, DateTime CreatedAt, MoneyJson Amount, string Description,
        string Status, string Type, JsonElement Details, string Month)
{
    public const string TypePrefix = "TRANSACTION_TYPE";
    /// <summary>The ledger holds only what has happened: there is no pending row and no failed one.</summary>
    private const string Succeeded = "TRANSACTION_STATUS_SUCCEEDED";

    private static readonly JsonElement NoDetails = JsonDocument.Parse("{}").RootElement;

    public static TransactionJson From(AccountTransaction row, AccountCalendar calendar) => new(
        row.TransactionId,
        row.PaymentIntentId ?? "",
        row.PaymentMethodId ?? "",
        row.CreatedAt.UtcDateTime,
        MoneyJson.From(row.Amount),
        row.Description,
        Succeeded,
        Wire.EnumName(TypePrefix, row.Type),
        string.IsNullOrEmpty(row.Details) ? NoDetails : JsonElement.Parse(row.Details),
        MonthOf(row, calendar));

    /// <summary>Serverless usage is listed under the month in which it was used, everything else under that in which it was posted.</summary>
    internal static string MonthOf(AccountTransaction row, AccountCalendar calendar)
        => row.Type == nameof(MovementType.ServerlessUsage) && JsonElement.Parse(row.Details).TryGetProperty("month", out var month)
            ? month.GetString()!
            : calendar.MonthOf(row.CreatedAt).ToString();
}

/// <summary>A transaction as the list has it, and what it has to do with others.</summary>
/// <param name="EffectiveAt">For when it is: the end of a usage window.</param>
/// <param name="Corrects">The transaction that it takes back, whole or in part; empty for most.</param>
/// <param name="CorrectedBy">The transactions that take it back.</param>
internal sealed record TransactionDetailJson(TransactionJson Transaction, DateTime EffectiveAt, string Corrects, IReadOnlyList<string> CorrectedBy)
{
    public static TransactionDetailJson From(TransactionDetail detail, AccountCalendar calendar) => new(
        TransactionJson.From(detail.Transaction, calendar), detail.EffectiveAt.UtcDateTime, detail.Corrects ?? "", detail.CorrectedBy);
}

internal sealed record GpuPricingAnswer(IReadOnlyList<GpuPriceJson> Pricing);

/// <param name="GpuProduct">Ours, not in the public API: the product as node labels name it. Two products of one GPU type may differ in
/// price.</param>
internal sealed record GpuPriceJson(string GpuType, string CloudProvider, MoneyJson HourlyRate, bool IsActive, string GpuProduct)
{
    public static GpuPriceJson From(GpuPrice price) => new(
        GpuTypes.TypeOf(price.Product), GpuTypes.Ours, MoneyJson.From(price.PerGpuHour), IsActive: true, price.Product.Name);
}
