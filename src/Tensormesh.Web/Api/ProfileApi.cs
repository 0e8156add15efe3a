using Microsoft.AspNetCore.Http.HttpResults;

namespace Tensormesh.Web;

/// <summary>Who the token says that one is. Clients use it as a live check of their token; it asks the ledger nothing.</summary>
internal static class ProfileApi
{
    public static void MapProfileApi(this IEndpointRouteBuilder routes) =>
        routes.MapGet("/auth/profile", GetProfile).Needing(Permission.Identify).WithTags("profile");

    private static Ok<ProfileAnswer> GetProfile(Caller caller) =>
        TypedResults.Ok(new ProfileAnswer(new UserJson(caller.Account.Value, caller.Role.ToWire(), $"ACCOUNT_ROLE_{caller.AccountRole.ToName()}")));
}

internal sealed record ProfileAnswer(UserJson User);

/// <summary>The members of the public user object that are known here; names, e-mail and company live with the identity provider.</summary>
/// <param name="AccountRole">Ours: <c>ACCOUNT_ROLE_OWNER</c>, or <c>ACCOUNT_ROLE_MEMBER</c>, who reads only.</param>
internal sealed record UserJson(string Id, string UserRole, string AccountRole);
