using System.Diagnostics;
using System.Diagnostics.CodeAnalysis;
using System.Security.Claims;
using Tensormesh.Billing;

namespace Tensormesh.Web;

internal enum Role { User, Admin, SuperAdmin }

/// <summary>What a person is in their account: members read, owners also pay and change.</summary>
internal enum AccountRole { Owner, Member }

/// <summary>Who asks, as their token or API key says.</summary>
/// <param name="Subject">The person, or the id of the key.</param>
/// <param name="Account">The account that this caller acts for unless a request names another.</param>
/// <param name="ApiKey">Null: with a token.</param>
internal sealed record Caller(string Subject, AccountId Account, Role Role, AccountRole AccountRole = AccountRole.Owner, CallerKey? ApiKey = null)
{
    public const string SubjectClaim = "sub";
    /// <summary>Left out: the subject is the account.</summary>
    public const string AccountClaim = "account";
    public const string RoleClaim = "role";
    /// <summary><c>OWNER</c> or <c>MEMBER</c>; left out: an owner.</summary>
    public const string AccountRoleClaim = "account_role";
    public const int LongestSubject = 253;

    public bool IsAdmin => Role is Role.Admin or Role.SuperAdmin;

    public bool May(Permission permission) => (permission, ApiKey) switch
    {
        (Permission.Identify, _) => true,
        (Permission.ReadBilling, { } key) => key.Scopes.Any(scope => scope is ApiKeyScope.BillingRead or ApiKeyScope.BillingWrite),
        (Permission.ChangeBilling, { } key) => key.Scopes.Contains(ApiKeyScope.BillingWrite),
        (Permission.ReportUsage, { } key) => key.Scopes.Contains(ApiKeyScope.UsageWrite),
        (_, not null) => false,
        (Permission.ReadBilling, null) => true,
        (Permission.ChangeBilling or Permission.ManageApiKeys, null) => IsAdmin || AccountRole == AccountRole.Owner,
        (_, null) => IsAdmin,
    };

    public Actor AsActor() => new(Subject, Role.ToName(), ApiKey?.Id, Activity.Current?.TraceId.ToHexString());

    /// <summary>Minimal APIs call this for each handler that takes a <see cref="Caller"/>.</summary>
    public static ValueTask<Caller?> BindAsync(HttpContext context) => ValueTask.FromResult(From(context.User));

    /// <summary>Null when the token names nobody, or not exactly one role that we know: such a token is refused as a whole.</summary>
    public static Caller? From(ClaimsPrincipal principal)
    {
        if (principal.Identity is ApiKeyIdentity known) return known.Caller;
        if (!TryReadName(principal, SubjectClaim, null, out var subject) || !TryReadName(principal, AccountClaim, subject, out var account)) return null;
        var roles = principal.FindAll(RoleClaim).Take(2).ToArray();
        var accountRoles = principal.FindAll(AccountRoleClaim).Take(2).ToArray();
        if (roles is not [var role] || !RoleNames.TryParse(role.Value, out Role roleHere)) return null;
        var inAccount = AccountRole.Owner;
        return accountRoles is [] || (accountRoles is [var only] && RoleNames.TryParse(only.Value, out inAccount))
            ? new Caller(subject, new AccountId(account), roleHere, inAccount)
            : null;
    }

    private static bool TryReadName(ClaimsPrincipal principal, string claim, string? otherwise, [NotNullWhen(true)] out string? name)
    {
        name = principal.FindAll(claim).Take(2).Select(each => each.Value).ToArray() switch
        {
            [] => otherwise,
            [{ Length: > 0 and <= LongestSubject } one] when !one.Any(char.IsControl) => one,
            _ => null,
        };
        return name is not null;
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

internal sealed record CallerKey(string Id, IReadOnlyList<ApiKeyScope> Scopes);

internal static class RoleNames
{
    public static string ToName(this Role role) => role switch
    {
        Role.User => "USER",
        Role.Admin => "ADMIN",
        Role.SuperAdmin => "SUPER_ADMIN",
    };

    public static string ToName(this AccountRole role) => role switch
    {
        AccountRole.Owner => "OWNER",
        AccountRole.Member => "MEMBER",
    };

    /// <summary>As the public API writes it: <c>USER_ROLE_SUPER_ADMIN</c>.</summary>
    public static string ToWire(this Role role) => $"USER_ROLE_{role.ToName()}";

    public static bool TryParse(string name, out Role role) => TryFind(name, ToName, out role);

    public static bool TryParse(string name, out AccountRole role) => TryFind(name, ToName, out role);

    private static bool TryFind<T>(string name, Func<T, string> nameOf, out T role) where T : struct, Enum
    {
        var found = Enum.GetValues<T>().Where(known => nameOf(known) == name).ToArray();
        role = found.FirstOrDefault();
        return found.Length > 0;
    }
}
