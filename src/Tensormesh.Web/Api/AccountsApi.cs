using System.Buffers.Text;
using System.Text;
using System.Text.Json.Serialization;
using Tensormesh.Billing;

namespace Tensormesh.Web;

/// <summary>All accounts, for the platform's own people: ours, the public API reads only accounts that one names.</summary>
internal static class AccountsApi
{
    private const int LongestSearch = 253;

    public static void MapAccountsApi(this IEndpointRouteBuilder routes)
        => routes.MapGet("/v1/admin/billing/accounts", ListAsync).Needing(Permission.Administer).WithTags("admin").Produces<AccountsAnswer>();

    /// <summary>In the order of their names.</summary>
    /// <param name="search">Part of a name or display name.</param>
    private static async Task<IResult> ListAsync(
        string? search, string? pageSize, string? pageToken, Accounts accounts, TimeProvider time, CancellationToken cancellation)
    {
        if (!Wire.TryReadPageSize(pageSize, out var size, out var refusal)) return refusal;
        if (search is { Length: > LongestSearch } || (search ?? "").Any(char.IsControl))
        {
            return Problem.Invalid("search", $"search is part of an account's name, at most {LongestSearch} characters.");
        }

        if (!TryReadToken(pageToken, out var after)) return Problem.BadPageToken();
        var rows = await accounts.SearchAsync(search, after, size + 1, cancellation);
        var (page, now) = (rows.Take(size).ToArray(), time.GetUtcNow());
        return TypedResults.Ok(new AccountsAnswer(
            [.. page.Select(standing => AccountJson.From(standing, now))],
            rows.Count > size ? Base64Url.EncodeToString(Encoding.UTF8.GetBytes(page[^1].Account.Value)) : "", now.UtcDateTime));
    }

    private static bool TryReadToken(string? token, out AccountId? after)
    {
        after = null;
        if (string.IsNullOrEmpty(token)) return true;
        if (token.Length > 2 * LongestSearch || !Base64Url.IsValid(token)) return false;
        var name = Encoding.UTF8.GetString(Base64Url.DecodeFromChars(token));
        if (!AccountLookup.IsName(name)) return false;
        after = new AccountId(name);
        return true;
    }
}

/// <param name="NextPageToken">Empty on the last page.</param>
/// <param name="AsOf">The instant of every amount.</param>
internal sealed record AccountsAnswer(IReadOnlyList<AccountJson> Accounts, string NextPageToken, DateTime AsOf);

/// <param name="CardState"><c>CARD_STATE_VALID</c>, <c>_EXPIRED</c>, <c>_DECLINED</c> or <c>_MISSING</c>.</param>
/// <param name="Refusal">What any new deployment of the account is refused for, as its condition would say it; empty: nothing.</param>
internal sealed record AccountJson(
    string UserId, string DisplayName, MoneyJson Balance, MoneyJson Held, MoneyJson Available, MoneyJson BurnPerHour, string CardState, string Refusal,
    string RefusalMessage)
{
    /// <summary>When the balance is used up as things run now; left out while nothing runs.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] public DateTime? ExhaustsAt { get; init; }

    public static AccountJson From(Standing standing, DateTimeOffset now)
    {
        var refusal = BillingGate.EvaluateAccount(standing, now);
        return new(
            standing.Account.Value, standing.Policy.DisplayName, MoneyJson.From(standing.Remaining(now)), MoneyJson.From(standing.Held(now)),
            MoneyJson.From(Money.Max(Money.Zero, standing.Available(now))), MoneyJson.From(standing.BurnPerHour),
            Wire.EnumName("CARD_STATE", standing.Cards.StateAt(now).ToString()), refusal?.Reason.ToString() ?? "", refusal?.Message ?? "")
        {
            ExhaustsAt = standing.ExhaustsAt?.UtcDateTime,
        };
    }
}
