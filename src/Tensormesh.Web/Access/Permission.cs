using Microsoft.AspNetCore.Authorization;
using Tensormesh.Billing;

namespace Tensormesh.Web;

/// <summary>What a route asks of whoever calls it.</summary>
internal enum Permission
{
    /// <summary>Being known is enough.</summary>
    Identify,
    ReadBilling,
    ChangeBilling,
    ManageApiKeys,
    /// <summary>Report usage of any account, and ask whether it may go on.</summary>
    ReportUsage,
    Administer,
}

/// <summary>Which permission a route needs. A route that says nothing needs <see cref="Permission.ReadBilling"/> for GET, and
/// <see cref="Permission.ChangeBilling"/> for all else.</summary>
internal sealed record Needs(Permission Permission)
{
    public static Permission Of(HttpContext context)
        => context.GetEndpoint() is not { } endpoint ? Permission.Identify
        : endpoint.Metadata.GetMetadata<Needs>()?.Permission
            ?? (HttpMethods.IsGet(context.Request.Method) || HttpMethods.IsHead(context.Request.Method) ? Permission.ReadBilling : Permission.ChangeBilling);
}

internal static class PermissionRoutes
{
    public static TBuilder Needing<TBuilder>(this TBuilder routes, Permission permission) where TBuilder : IEndpointConventionBuilder
        => routes.WithMetadata(new Needs(permission));
}

/// <summary>Every route that is not open to all asks for it.</summary>
internal sealed class PermissionRequirement : AuthorizationHandler<PermissionRequirement, HttpContext>, IAuthorizationRequirement
{
    protected override Task HandleRequirementAsync(AuthorizationHandlerContext context, PermissionRequirement requirement, HttpContext resource)
    {
        if (Caller.From(context.User) is { } caller && caller.May(Needs.Of(resource))) context.Succeed(requirement);
        return Task.CompletedTask;
    }

    /// <summary>Why a caller who is known may not do this.</summary>
    public static Problem Refuse(HttpContext context) => (Needs.Of(context), Caller.From(context.User)) switch
    {
        (Permission.Administer, _) => Problem.AdminsOnly(),
        (Permission.ManageApiKeys, { ApiKey: not null }) => Problem.ScopeMissing(
            "API keys are managed by people: sign in, and send the bearer token of your sign-in."),
        (var needed, { ApiKey: { } key }) => Problem.ScopeMissing(
            $"This API key has {string.Join(" and ", key.Scopes.Select(scope => scope.ToName()))}, and this request needs {ScopeFor(needed).ToName()}. "
                + "Create a key that has it, with POST /v1/users/api-keys."),
        (Permission.ReportUsage, _) => Problem.ScopeMissing(
            $"Usage is reported with an API key that has {ApiKeyScope.UsageWrite.ToName()}, or by an administrator."),
        _ => Problem.OwnersOnly(),
    };

    private static ApiKeyScope ScopeFor(Permission permission) => permission switch
    {
        Permission.ChangeBilling => ApiKeyScope.BillingWrite,
        Permission.ReportUsage => ApiKeyScope.UsageWrite,
        _ => ApiKeyScope.BillingRead,
    };
}
