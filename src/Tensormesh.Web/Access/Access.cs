using System.Threading.RateLimiting;
using System.Xml.Linq;
using Microsoft.AspNetCore.Authentication;
using Microsoft.AspNetCore.Authentication.JwtBearer;
using Microsoft.AspNetCore.Authorization;
using Microsoft.AspNetCore.DataProtection.KeyManagement;
using Microsoft.AspNetCore.DataProtection.Repositories;
using Microsoft.AspNetCore.DataProtection.XmlEncryption;
using Microsoft.IdentityModel.Tokens;

namespace Tensormesh.Web;

/// <summary>Who may come in, and how often. Everything asks for a token unless a route says otherwise.</summary>
internal static class Access
{
    private const string Either = "Either";

    private static readonly TimeSpan ClockSkew = TimeSpan.FromSeconds(30);
    private static readonly TimeSpan KeyRefresh = TimeSpan.FromSeconds(30);

    public static IServiceCollection AddAccess(this IServiceCollection services, WebSettings settings)
    {
        services.AddAuthentication(Either).AddPolicyScheme(Either, Either, either => either.ForwardDefaultSelector = context =>
            ConsoleRoute.IsMeant(context) ? ConsoleHost.Scheme : ApiKeyAuthentication.IsMeant(context) ? ApiKeyAuthentication.Scheme : JwtBearerDefaults.AuthenticationScheme)
        .AddScheme<AuthenticationSchemeOptions, ApiKeyAuthentication>(ApiKeyAuthentication.Scheme, null)
        .AddJwtBearer(bearer =>
        {
            bearer.MapInboundClaims = false;
            bearer.SaveToken = false;
            bearer.Events = Events();
            bearer.TokenValidationParameters = new TokenValidationParameters
            {
                NameClaimType = Caller.SubjectClaim,
                RoleClaimType = Caller.RoleClaim,
                ClockSkew = ClockSkew,
                RequireExpirationTime = true,
                RequireSignedTokens = true,
            };
            Trust(settings.Issuer, bearer);
        });
        // A key that the provider no longer publishes was withdrawn: what it signed is worth nothing, from the next time that we ask.
        services.PostConfigure<JwtBearerOptions>(JwtBearerDefaults.AuthenticationScheme, static bearer =>
        {
            if (bearer.ConfigurationManager is BaseConfigurationManager manager) manager.UseLastKnownGoodConfiguration = false;
        });
        if (settings.Console is null)
        {
            services.Configure<KeyManagementOptions>(keys =>
            {
                keys.XmlRepository = new ForgottenKeys();
                keys.XmlEncryptor = new NullXmlEncryptor();
            });
        }

        services.AddAuthorizationBuilder()
            .SetFallbackPolicy(new AuthorizationPolicyBuilder().RequireAuthenticatedUser().AddRequirements(new PermissionRequirement()).Build());
        services.AddSingleton<IAuthorizationHandler, PermissionRequirement>();
        services.AddRateLimiter(limiter =>
        {
            limiter.GlobalLimiter = PartitionedRateLimiter.Create<HttpContext, string>(context => BucketOf(context, settings));
            limiter.OnRejected = static async (rejected, _) =>
            {
                var wait = rejected.Lease.TryGetMetadata(MetadataName.RetryAfter, out var hint) ? hint : TimeSpan.FromSeconds(1);
                await Problem.TooManyRequests(wait).ExecuteAsync(rejected.HttpContext);
            };
        });
        return services;
    }

    private static void Trust(TokenIssuer issuer, JwtBearerOptions bearer)
    {
        var check = bearer.TokenValidationParameters;
        switch (issuer)
        {
            case TokenIssuer.Development development:
                check.ValidIssuer = TokenIssuer.Development.Name;
                check.ValidAudience = TokenIssuer.DefaultAudience;
                check.IssuerSigningKey = new SymmetricSecurityKey(development.Key);
                check.ValidAlgorithms = [SecurityAlgorithms.HmacSha256];
                break;
            case TokenIssuer.OpenIdConnect provider:
                bearer.Authority = provider.Authority;
                // How soon a token of a key that is not known yet makes us ask again, after the last time that we did.
                bearer.RefreshInterval = KeyRefresh;
                check.ValidAudience = provider.Audience;
                // Asymmetric only: with an HMAC algorithm allowed, the provider's public key would do as a secret.
                check.ValidAlgorithms =
                [
                    SecurityAlgorithms.RsaSha256, SecurityAlgorithms.RsaSha384, SecurityAlgorithms.RsaSsaPssSha256,
                    SecurityAlgorithms.EcdsaSha256, SecurityAlgorithms.EcdsaSha384,
                ];
                break;
        }
    }

    private static JwtBearerEvents Events() => new()
    {
        OnTokenValidated = context =>
        {
            if (Caller.From(context.Principal!) is null)
            {
                context.Fail($"it must name who it is for in '{Caller.SubjectClaim}' and one role of USER, ADMIN, SUPER_ADMIN in "
                    + $"'{Caller.RoleClaim}'; if they differ from their account, that in '{Caller.AccountClaim}', and OWNER or MEMBER in "
                    + $"'{Caller.AccountRoleClaim}'");
            }

            return Task.CompletedTask;
        },
        OnChallenge = async context =>
        {
            context.HandleResponse();
            if (context.AuthenticateFailure is not null && !await KnowsKeysAsync(context))
            {
                await Problem.SignInUnavailable().ExecuteAsync(context.HttpContext);
                return;
            }

            context.Response.Headers.WWWAuthenticate = context.AuthenticateFailure is null ? "Bearer" : "Bearer error=\"invalid_token\"";
            await Problem.Unauthenticated(WhyRefused(context.AuthenticateFailure)).ExecuteAsync(context.HttpContext);
        },
        OnForbidden = context => PermissionRequirement.Refuse(context.HttpContext).ExecuteAsync(context.HttpContext),
    };

    /// <summary>Without the provider's keys nothing is known about a token, and to say that it is wrong would be a guess.</summary>
    private static async Task<bool> KnowsKeysAsync(JwtBearerChallengeContext context)
    {
        if (context.Options.ConfigurationManager is not { } provider) return true;
        try
        {
            await provider.GetConfigurationAsync(context.HttpContext.RequestAborted);
            return true;
        }
        catch (Exception unreachable) when (unreachable is InvalidOperationException or HttpRequestException or IOException)
        {
            return false;
        }
    }

    /// <summary>Says enough to mend the call and nothing that helps to forge a token.</summary>
    private static string WhyRefused(Exception? failure) => failure switch
    {
        null => "No bearer token came with the request.",
        SecurityTokenExpiredException => "The bearer token has expired.",
        SecurityTokenException => "The bearer token is not one that this server trusts.",
        _ when failure.GetType() == typeof(Exception) => $"The bearer token cannot be used: {failure.Message}.",
        _ => "The bearer token could not be read.",
    };

    private static RateLimitPartition<string> BucketOf(HttpContext context, WebSettings settings)
    {
        var caller = Caller.From(context.User) is { } known ? $"caller/{known.Subject}" : $"address/{context.Connection.RemoteIpAddress}";
        return RateLimitPartition.GetTokenBucketLimiter(caller, _ => new TokenBucketRateLimiterOptions
        {
            TokenLimit = settings.RequestBurst,
            TokensPerPeriod = settings.RequestsPerSecond,
            ReplenishmentPeriod = TimeSpan.FromSeconds(1),
            QueueLimit = 0,
        });
    }

    /// <summary>
    /// Authentication brings data protection along, which bearer tokens have no use for; left to itself it writes a key file into the
    /// home directory at each first start. Its keys stay in memory here and end with the process.
    /// </summary>
    private sealed class ForgottenKeys : IXmlRepository
    {
        private readonly List<XElement> keys = [];

        public IReadOnlyCollection<XElement> GetAllElements()
        {
            lock (keys) return [.. keys];
        }

        public void StoreElement(XElement element, string friendlyName)
        {
            lock (keys) keys.Add(element);
        }
    }
}
