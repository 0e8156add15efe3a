using System.Globalization;
using System.Text.Json;
using Tensormesh.Billing;

namespace Tensormesh.Web;

/// <summary>What a customer reads about their account and what things cost.</summary>
internal static class BillingApi
{
    public const int DefaultPageSize = 20;
    public const int LargestPageSize = 100;

    public static void MapBillingApi(this IEndpointRouteBuilder routes)
    {
        var billing = routes.MapGroup("/v1/billing").WithTags("billing");
        billing.MapGet("/balance", GetBalanceAsync).Produces<BalanceAnswer>();
        billing.MapGet("/transactions", ListTransactionsAsync).Produces<TransactionsAnswer>();
        billing.MapGet("/spending/summary", GetSpendingAsync).Produces<SpendingAnswer>();
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
        string? userId, string? pageSize, string? pageToken, Caller caller, AccountLookup accounts, Transactions transactions,
        CancellationToken cancellation)
    {
        if (!caller.MayActFor(userId, out var account, out var refusal)) return refusal;
        if (!TryReadPageSize(pageSize, out var size))
        {
            return Problem.Invalid("pageSize",
                $"pageSize must be a whole number from 1 to {LargestPageSize}; left out or 0, it is {DefaultPageSize}.");
        }

        if (!PageToken.TryRead(pageToken, account, out var before)) return Problem.BadPageToken();
        if (await accounts.FindAsync(account, cancellation) is null) return Problem.AccountUnknown(account);

        var rows = await transactions.ListAsync(account, before, size + 1, cancellation);
        var page = rows.Take(size).ToArray();
        var next = rows.Count > size ? PageToken.Write(page[^1].Position, account) : "";
        return TypedResults.Ok(new TransactionsAnswer([.. page.Select(TransactionJson.From)], next));
    }

    private static async Task<IResult> GetSpendingAsync(string? userId, Caller caller, AccountLookup accounts,
        CancellationToken cancellation)
    {
        if (!caller.MayActFor(userId, out var account, out var refusal)) return refusal;
        return await accounts.FindSpendingAsync(account, cancellation) is { } spending
            ? TypedResults.Ok(SpendingAnswer.From(spending))
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

    /// <summary>A size above the largest is served as the largest, as list methods of this family of APIs do.</summary>
    private static bool TryReadPageSize(string? text, out int size)
    {
        size = DefaultPageSize;
        if (string.IsNullOrEmpty(text)) return true;
        if (!int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out var asked)) return false;
        size = asked == 0 ? DefaultPageSize : Math.Min(asked, LargestPageSize);
        return true;
    }
}

internal sealed record BalanceAnswer(MoneyJson Balance);

/// <summary>Rolling windows of settled usage; positive amounts.</summary>
internal sealed record SpendingAnswer(MoneyJson Spend24h, MoneyJson Spend7d, MoneyJson Spend30d)
{
    public static SpendingAnswer From(SpendingSummary summary) =>
        new(MoneyJson.From(summary.Last24Hours), MoneyJson.From(summary.Last7Days), MoneyJson.From(summary.Last30Days));
}

/// <param name="NextPageToken">Empty on the last page.</param>
internal sealed record TransactionsAnswer(IReadOnlyList<TransactionJson> Transactions, string NextPageToken);

/// <param name="Amount">Above zero: money in. Below zero: a charge.</param>
/// <param name="StripePaymentIntentId">Empty where no payment is behind it.</param>
/// <param name="PaymentMethodId">Empty where no card is behind it.</param>
/// <param name="Details">An object; its members depend on the type.</param>
internal sealed record TransactionJson(
    string TransactionId, string StripePaymentIntentId, string PaymentMethodId, DateTime CreatedAt, MoneyJson Amount, string Description,
        string Status, string Type, JsonElement Details)
{
    /// <summary>The ledger holds only what has happened: there is no pending row and no failed one.</summary>
    private const string Succeeded = "TRANSACTION_STATUS_SUCCEEDED";

    private static readonly JsonElement NoDetails = JsonDocument.Parse("{}").RootElement;

    public static TransactionJson From(AccountTransaction row) => new(
        row.TransactionId,
        row.PaymentIntentId ?? "",
        row.PaymentMethodId ?? "",
        row.CreatedAt.UtcDateTime,
        MoneyJson.From(row.Amount),
        row.Description,
        Succeeded,
        Wire.EnumName("TRANSACTION_TYPE", row.Type),
        string.IsNullOrEmpty(row.Details) ? NoDetails : JsonElement.Parse(row.Details));
}

internal sealed record GpuPricingAnswer(IReadOnlyList<GpuPriceJson> Pricing);

/// <param name="GpuProduct">Ours, not in the public API: the product as node labels name it. Two products of one GPU type may differ in
/// price.</param>
internal sealed record GpuPriceJson(string GpuType, string CloudProvider, MoneyJson HourlyRate, bool IsActive, string GpuProduct)
{
    public static GpuPriceJson From(GpuPrice price) => new(
        GpuTypes.TypeOf(price.Product), GpuTypes.Ours, MoneyJson.From(price.PerGpuHour), IsActive: true, price.Product.Name);
}
