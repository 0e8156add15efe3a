using Tensormesh.Billing;

namespace Tensormesh.Web;

/// <summary>The address on statements: ours, the public API has no path for it.</summary>
internal static class BillingAddressApi
{
    private const string Path = "/v1/billing/address";

    public static void MapBillingAddressApi(this IEndpointRouteBuilder routes)
    {
        var group = routes.MapGroup("").WithTags("payments").Refusing(404);
        group.MapGet(Path, GetAsync).Produces<BillingAddressAnswer>();
        group.MapPut(Path, SaveAsync).Produces<BillingAddressAnswer>().RememberingAnswers();
    }

    private static async Task<IResult> GetAsync(
        string? userId, Caller caller, AccountLookup accounts, BillingAddresses addresses, CancellationToken cancellation)
    {
        if (!caller.MayActFor(userId, out var account, out var refusal)) return refusal;
        return await accounts.FindAsync(account, cancellation) is null
            ? Problem.AccountUnknown(account)
            : TypedResults.Ok(new BillingAddressAnswer(BillingAddressJson.From(await addresses.ReadAsync(account, cancellation))));
    }

    private static async Task<IResult> SaveAsync(
        BillingAddressRequest body, Caller caller, AccountLookup accounts, BillingAddresses addresses, CancellationToken cancellation)
    {
        if (!caller.MayActFor(body.UserId, out var account, out var refusal)) return refusal;
        if (body.Address is null) return Problem.Invalid("address", "'address' is missing: send at least its name, line1, city and country.");
        var address = body.Address.ToAddress();
        if (address.Refuse() is var (field, message)) return Problem.Invalid($"address.{field}", message);
        if (await accounts.FindAsync(account, cancellation) is null) return Problem.AccountUnknown(account);
        return await addresses.SaveAsync(account, address, cancellation, caller.AsActor())
            ? TypedResults.Ok(new BillingAddressAnswer(BillingAddressJson.From(address)))
            : Problem.AccountUnknown(account);
    }
}

internal sealed record BillingAddressRequest(string? UserId, BillingAddressJson? Address);

/// <param name="Address">All empty where none was given.</param>
internal sealed record BillingAddressAnswer(BillingAddressJson Address);

/// <param name="Country">ISO 3166-1 alpha-2.</param>
internal sealed record BillingAddressJson(
    string? Name, string? Line1, string? Line2, string? City, string? Region, string? PostalCode, string? Country, string? TaxId)
{
    public static BillingAddressJson From(BillingAddress? address) => address is null
        ? new("", "", "", "", "", "", "", "")
        : new(address.Name, address.Line1, address.Line2, address.City, address.Region, address.PostalCode, address.Country, address.TaxId);

    public BillingAddress ToAddress() => new(Name ?? "", Line1 ?? "", Line2 ?? "", City ?? "", Region ?? "", PostalCode ?? "", Country ?? "", TaxId ?? "");
}
