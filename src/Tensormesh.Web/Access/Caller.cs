using System.Diagnostics.CodeAnalysis;
using System.Security.Claims;
using Tensormesh.Billing;

namespace Tensormesh.Web;

internal enum Role { User, Admin, SuperAdmin }

/// <summary>Who asks, as their token says.</summary>
/// <param name="Account">The token's <c>sub</c>: the account that this caller acts for unless a request names another.</param>
internal sealed record Caller(AccountId Account, Role Role)
{
    public const string AccountClaim = "sub";
    public const string RoleClaim = "role";
    public const int LongestSubject = 253;

    public bool IsAdmin => Role is Role.Admin or Role.SuperAdmin;

    /// <summary>Minimal APIs call this for each handler that takes a <see cref="Caller"/>.</summary>
    public static ValueTask<Caller?> BindAsync(HttpContext context) => ValueTask.FromResult(From(context.User));

    /// <summary>Null when the token names no account, or not exactly one role that we know: such a token is refused as a whole.</summary>
    public static Caller? From(ClaimsPrincipal principal)
    {
        var subjects = principal.FindAll(AccountClaim).Take(2).ToArray();
        var roles = principal.FindAll(RoleClaim).Take(2).ToArray();
        if (subjects is not [{ Value: { Length: > 0 and <= LongestSubject } subject }] || subject.Any(char.IsControl)) return null;
        return roles is [var role] && RoleNames.TryParse(role.Value, out var known) ? new Caller(new AccountId(subject), known) : null;
    }

    /// <summary>
    /// Which account a request is about: the one that it names, or the caller's own when it names none. Another's is
    /// refused to ordinary users, in the same words whether or not it exists.
    /// </summary>
    public bool MayActFor(string? userId, out AccountId account, [NotNullWhen(false)] out Problem? refusal)
    {
        account = string.IsNullOrEmpty(userId) ? Account : new AccountId(userId);
        refusal = account == Account || IsAdmin ? null : Problem.NotYourAccount(userId!, Account);
        return refusal is null;
    }
}

internal static class RoleNames
{
    public static string ToName(this Role role) => role switch
    {
        Role.User => "USER",
        Role.Admin => "ADMIN",
        Role.SuperAdmin => "SUPER_ADMIN",
    };

    /// <summary>As the public API writes it: <c>USER_ROLE_SUPER_ADMIN</c>.</summary>
    public static string ToWire(this Role role) => $"USER_ROLE_{role.ToName()}";

    public static bool TryParse(string name, out Role role)
    {
        foreach (var known in Enum.GetValues<Role>())
        {
            if (known.ToName() != name) continue;
            role = known;
            return true;
        }

        role = Role.User;
        return false;
    }
}
