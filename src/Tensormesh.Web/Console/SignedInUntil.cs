using System.Globalization;
using System.Security.Claims;
using Microsoft.AspNetCore.Components.Authorization;
using Microsoft.AspNetCore.Components.Server;

namespace Tensormesh.Web;

/// <summary>An open page may outlive the cookie that it was opened with: from the cookie's end on its person is nobody.</summary>
internal sealed class SignedInUntil(ILoggerFactory loggers, TimeProvider time) : RevalidatingServerAuthenticationStateProvider(loggers)
{
    private const string Name = "until";

    private readonly TimeProvider time = time;

    protected override TimeSpan RevalidationInterval => TimeSpan.FromMinutes(1);

    public static Claim Claim(DateTimeOffset until) => new(Name, until.ToUnixTimeSeconds().ToString(CultureInfo.InvariantCulture));

    public static bool IsOver(ClaimsPrincipal principal, DateTimeOffset now)
        => !long.TryParse(principal.FindFirst(Name)?.Value, CultureInfo.InvariantCulture, out var until) || now.ToUnixTimeSeconds() >= until;

    protected override Task<bool> ValidateAuthenticationStateAsync(AuthenticationState authenticationState, CancellationToken cancellationToken)
        => Task.FromResult(!IsOver(authenticationState.User, time.GetUtcNow()));
}
