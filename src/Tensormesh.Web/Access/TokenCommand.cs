using System.Globalization;
using Microsoft.IdentityModel.JsonWebTokens;
using Microsoft.IdentityModel.Tokens;
using Tensormesh.Billing;

namespace Tensormesh.Web;

/// <summary>
/// <c>tensormesh-web token --account acme --subject alice --role USER --account-role OWNER --lifetime 8h</c>: prints a bearer token of the development issuer,
/// from the same configuration as the server's.
/// </summary>
internal static class TokenCommand
{
    public static readonly TimeSpan LongestLifetime = TimeSpan.FromDays(30);

    private static readonly string[] Options = ["--account", "--subject", "--role", "--account-role", "--lifetime"];

    private const string Usage = "usage: tensormesh-web token --account NAME [--subject NAME] [--role USER|ADMIN|SUPER_ADMIN] "
        + "[--account-role OWNER|MEMBER] [--lifetime 8h]";

    /// <returns>The token.</returns>
    /// <exception cref="SettingsException">An argument or the configuration is wrong.</exception>
    public static string Run(string[] args, TimeProvider time)
    {
        RefuseUnknown(args);
        var account = Option(args, "--account") ?? throw new SettingsException($"name the account. {Usage}");
        var roleName = Option(args, "--role") ?? Role.User.ToName();
        var lifetimeText = Option(args, "--lifetime") ?? "8h";
        var accountRoleName = Option(args, "--account-role") ?? AccountRole.Owner.ToName();
        if (!RoleNames.TryParse(accountRoleName, out AccountRole accountRole)) throw new SettingsException($"'{accountRoleName}' is no role in an account. {Usage}");
        if (!RoleNames.TryParse(roleName, out Role role)) throw new SettingsException($"'{roleName}' is no role. {Usage}");
        if (!TryParseLifetime(lifetimeText, out var lifetime))
        {
            throw new SettingsException($"'{lifetimeText}' is no lifetime: write 90s, 30m, 8h or 7d, at most "
                + $"{LongestLifetime.TotalDays:0}d. {Usage}");
        }

        var configuration = WebApplication.CreateBuilder(args).Configuration;
        if (Secrets.Add(configuration) is { } problem) throw new SettingsException(problem);
        var issuer = WebSettings.ReadIssuer(configuration);
        return issuer is TokenIssuer.Development development
            ? Issue(development, new Caller(Option(args, "--subject") ?? account, new AccountId(account), role, accountRole), time.GetUtcNow(), lifetime)
            : throw new SettingsException("tokens come from Tensormesh__Authority here: sign in there. Only the development issuer "
                + "prints them");
    }

    public static string Issue(TokenIssuer.Development issuer, Caller caller, DateTimeOffset now, TimeSpan lifetime)
    {
        var key = new SymmetricSecurityKey(issuer.Key);
        return new JsonWebTokenHandler { SetDefaultTimesOnTokenCreation = false }.CreateToken(new SecurityTokenDescriptor
        {
            Issuer = TokenIssuer.Development.Name,
            Audience = TokenIssuer.DefaultAudience,
            IssuedAt = now.UtcDateTime,
            NotBefore = now.UtcDateTime,
            Expires = (now + lifetime).UtcDateTime,
            Claims = new Dictionary<string, object>
            {
                [Caller.SubjectClaim] = caller.Subject,
                [Caller.AccountClaim] = caller.Account.Value,
                [Caller.RoleClaim] = caller.Role.ToName(),
                [Caller.AccountRoleClaim] = caller.AccountRole.ToName(),
            },
            SigningCredentials = new SigningCredentials(key, SecurityAlgorithms.HmacSha256),
        });
    }

    private static string? Option(string[] args, string name)
    {
        for (var i = 0; i < args.Length; i++)
        {
            if (args[i].StartsWith(name + "=", StringComparison.Ordinal)) return args[i][(name.Length + 1)..];
            if (args[i] != name) continue;
            return i + 1 < args.Length && !args[i + 1].StartsWith("--", StringComparison.Ordinal)
                ? args[i + 1]
                : throw new SettingsException($"{name} needs a value. {Usage}");
        }

        return null;
    }

    /// <summary>
    /// A misspelt option would otherwise give a token other than the one meant. Configuration (--Section:Name=value) passes.
    /// </summary>
    private static void RefuseUnknown(string[] args)
    {
        var unknown = args.FirstOrDefault(arg => arg.StartsWith("--", StringComparison.Ordinal)
            && !arg.Contains(':', StringComparison.Ordinal) && !Options.Contains(arg.Split('=')[0]));
        if (unknown is not null) throw new SettingsException($"'{unknown}' is no option. {Usage}");
    }

    private static bool TryParseLifetime(string text, out TimeSpan lifetime)
    {
        lifetime = TimeSpan.Zero;
        if (text.Length is < 2 or > 8) return false;
        if (!int.TryParse(text.AsSpan(0, text.Length - 1), NumberStyles.None, CultureInfo.InvariantCulture, out var count)) return false;
        var unitSeconds = text[^1] switch { 's' => 1L, 'm' => 60, 'h' => 3_600, 'd' => 86_400, _ => 0 };
        lifetime = TimeSpan.FromSeconds(count * unitSeconds);
        return lifetime > TimeSpan.Zero && lifetime <= LongestLifetime;
    }
}
