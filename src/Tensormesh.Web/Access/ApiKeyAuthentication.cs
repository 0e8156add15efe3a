using System.Security.Claims;
using System.Text.Encodings.Web;
using Microsoft.AspNetCore.Authentication;
using Microsoft.Extensions.Options;
using Tensormesh.Billing;

namespace Tensormesh.Web;

/// <summary>Whoever came with an API key. Only this server makes one: no claim of a token can pass for it.</summary>
internal sealed class ApiKeyIdentity(Caller caller) : ClaimsIdentity(ApiKeyAuthentication.Scheme)
{
    public Caller Caller { get; } = caller;
}

/// <summary>
/// <c>Authorization: Bearer ak-...</c>. A key is looked for on every request, so that a deleted one opens nothing from the next request on.
/// </summary>
internal sealed class ApiKeyAuthentication(
    IOptionsMonitor<AuthenticationSchemeOptions> options, ILoggerFactory logger, UrlEncoder encoder, ApiKeys keys, TimeProvider time)
    : AuthenticationHandler<AuthenticationSchemeOptions>(options, logger, encoder)
{
    public new const string Scheme = "ApiKey";
    private const string Start = $"Bearer {ApiKeys.Prefix}";

    private readonly ApiKeys keys = keys;
    private readonly TimeProvider time = time;

    public static bool IsMeant(HttpContext context) =>
        context.Request.Headers.Authorization is [{ } sent] && sent.StartsWith(Start, StringComparison.OrdinalIgnoreCase);

    protected override async Task<AuthenticateResult> HandleAuthenticateAsync()
    {
        var sent = Request.Headers.Authorization.ToString()[(Start.Length - ApiKeys.Prefix.Length)..];
        var key = await keys.FindAsync(sent, Context.RequestAborted);
        if (key is null) return AuthenticateResult.Fail("The API key is not one that this server knows.");
        if (key.DeletedAt is not null) return AuthenticateResult.Fail("The API key was deleted. Create another with POST /v1/users/api-keys.");
        if (key.ExpiresAt <= time.GetUtcNow()) return AuthenticateResult.Fail("The API key has expired. Create another with POST /v1/users/api-keys.");
        var role = key.Scopes.Contains(ApiKeyScope.BillingWrite) ? AccountRole.Owner : AccountRole.Member;
        var caller = new Caller(key.Id, key.Account, Role.User, role, new(key.Id, key.Scopes));
        return AuthenticateResult.Success(new(new ClaimsPrincipal(new ApiKeyIdentity(caller)), Scheme));
    }

    protected override async Task HandleChallengeAsync(AuthenticationProperties properties)
    {
        var failure = (await HandleAuthenticateOnceSafeAsync()).Failure;
        Response.Headers.WWWAuthenticate = "Bearer error=\"invalid_token\"";
        await Problem.Unauthenticated(failure?.Message ?? "The API key could not be read.").ExecuteAsync(Context);
    }

    protected override Task HandleForbiddenAsync(AuthenticationProperties properties) => PermissionRequirement.Refuse(Context).ExecuteAsync(Context);
}
