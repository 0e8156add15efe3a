using System.Security.Claims;
using Microsoft.AspNetCore.Authentication;
using Microsoft.AspNetCore.Authentication.Cookies;
using Microsoft.AspNetCore.Authentication.OpenIdConnect;
using Microsoft.AspNetCore.Components.Authorization;
using Microsoft.AspNetCore.Components.Server.Circuits;
using Microsoft.AspNetCore.DataProtection;
using Microsoft.AspNetCore.DataProtection.KeyManagement;
using Microsoft.AspNetCore.Http.HttpResults;
using Microsoft.AspNetCore.Mvc;
using Microsoft.AspNetCore.StaticAssets;
using Microsoft.Extensions.Options;
using MudBlazor.Services;
using Tensormesh.Billing;

namespace Tensormesh.Web;

/// <summary>A route that people reach with a browser: its callers are known by the console's cookie, and by nothing else.</summary>
internal sealed record ConsoleRoute
{
    /// <summary>Whether the cookie is what counts here. An API route never takes it, so that no page elsewhere can make a browser call the API.</summary>
    public static bool IsMeant(HttpContext context) => context.GetEndpoint()?.Metadata.GetMetadata<ConsoleRoute>() is not null;
}

/// <summary>The console: pages of components that run here, over one connection for each open page.</summary>
internal static class ConsoleHost
{
    public const string Scheme = CookieAuthenticationDefaults.AuthenticationScheme;
    public const string SignInPath = "/sign-in";
    public const string SignOutPath = "/sign-out";
    public const string HomePath = "/billing";
    public const string SignedOutPath = "/signed-out";
    private const string ThemeCookie = "tensormesh-theme";
    private const string StripeScript = "https://js.stripe.com";

    /// <summary>A sign-in lasts a working day, whatever happens in it: whoever lost a role yesterday does not have it today.</summary>
    private static readonly TimeSpan Lifetime = TimeSpan.FromHours(10);

    public static void AddConsole(this IServiceCollection services, ConsoleSettings settings)
    {
        services.AddSingleton(settings);
        services.AddRazorComponents().AddInteractiveServerComponents(circuits =>
        {
            // A page that lost its connection is kept for as long as a laptop needs to find another network, and not for much longer.
            circuits.DisconnectedCircuitMaxRetained = 50;
            circuits.DisconnectedCircuitRetentionPeriod = TimeSpan.FromMinutes(2);
        });
        services.AddMudServices();
        services.AddCascadingAuthenticationState();
        services.AddScoped<AuthenticationStateProvider, SignedInUntil>();
        services.AddScoped<ConsoleSession>();
        services.AddSingleton<OpenPages>().AddSingleton<CircuitHandler>(provider => provider.GetRequiredService<OpenPages>()).AddHostedService<PageHeap>();
        services.AddAntiforgery(forgery =>
        {
            forgery.Cookie.Name = "tensormesh-form";
            forgery.Cookie.SameSite = SameSiteMode.Strict;
            forgery.Cookie.SecurePolicy = Secure(settings);
        });
        services.AddDataProtection().SetApplicationName("tensormesh-web");
        services.AddSingleton<IConfigureOptions<KeyManagementOptions>, SharedKeys>();

        var signIn = services.AddAuthentication().AddCookie(Scheme, cookie =>
        {
            cookie.Cookie.Name = "tensormesh-session";
            cookie.Cookie.HttpOnly = true;
            cookie.Cookie.SameSite = SameSiteMode.Lax;
            cookie.Cookie.SecurePolicy = Secure(settings);
            cookie.ExpireTimeSpan = Lifetime;
            cookie.SlidingExpiration = false;
            cookie.LoginPath = SignInPath;
            cookie.LogoutPath = SignOutPath;
            cookie.AccessDeniedPath = SignInPath;
            cookie.ReturnUrlParameter = "returnUrl";
            if (settings is ConsoleSettings.OpenIdConnect) cookie.ForwardChallenge = OpenIdConnectDefaults.AuthenticationScheme;
        });
        if (settings is ConsoleSettings.OpenIdConnect provider) signIn.AddOpenIdConnect(options => Configure(options, provider));
    }

    public static void UseConsole(this WebApplication web) => web.UseAntiforgery();

    public static void MapConsole(this WebApplication web, WebSettings settings)
    {
        web.MapStaticAssets().AllowAnonymous();
        web.MapGet("/", () => TypedResults.LocalRedirect(HomePath)).AllowAnonymous().ExcludeFromDescription();
        web.MapRazorComponents<App>()
            .AddInteractiveServerRenderMode(server => server.ContentSecurityFrameAncestorsPolicy = null)
            .WithMetadata(new ConsoleRoute()).Needing(Permission.ReadBilling);

        var pages = web.MapGroup("").WithMetadata(new ConsoleRoute()).ExcludeFromDescription();
        pages.MapPost(SignOutPath, SignOut).Needing(Permission.Identify);
        pages.MapGet("/console/transactions.csv", ReportsApi.ExportTransactionsAsync).Needing(Permission.ReadBilling);
        pages.MapGet("/console/charges.csv", ReportsApi.ExportChargesAsync).Needing(Permission.ReadBilling);
        pages.MapGet("/console/statements/{month}", ReportsApi.PrintStatementAsync).Needing(Permission.ReadBilling);
        if (settings.Console is ConsoleSettings.Development) pages.MapPost(SignInPath, SignInAsync).AllowAnonymous();
    }

    /// <summary>Of every page: its own scripts and nothing in it, styles, this server's answers, and where cards are entered at Stripe its form.</summary>
    public static RequestDelegate Guarded(RequestDelegate next, WebSettings settings)
    {
        var (script, connect, frame) = settings.Payments is PaymentSettings.Stripe
            ? ($" {StripeScript}", " https://api.stripe.com", $"{StripeScript} https://hooks.stripe.com")
            : ("", "", "'none'");
        var form = settings.Console is ConsoleSettings.OpenIdConnect provider ? $" {new Uri(provider.Authority).GetLeftPart(UriPartial.Authority)}" : "";
        // The component library sizes and colours by style attributes; nothing it writes there comes from a customer.
        var policy = $"default-src 'none'; script-src 'self'{script}; style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self'; "
            + $"connect-src 'self'{connect}; frame-src {frame}; base-uri 'self'; form-action 'self'{form}; frame-ancestors 'none'";
        return context =>
        {
            // Files of the pages are named by their content and say themselves for how long they may be kept.
            if (context.GetEndpoint()?.Metadata.GetMetadata<StaticAssetDescriptor>() is not null) context.Response.Headers.Remove("Cache-Control");
            if (ConsoleRoute.IsMeant(context))
            {
                context.Response.Headers.ContentSecurityPolicy = policy;
                context.Response.Headers["Referrer-Policy"] = "same-origin";
            }

            return next(context);
        };
    }

    /// <summary>As the browser last said; light where it has not.</summary>
    public static bool WantsDark(HttpContext context) => context.Request.Cookies[ThemeCookie] == "dark";

    /// <summary>A path of this server, so that nobody is sent elsewhere after signing in.</summary>
    public static string Local(string? url)
        => url is { Length: > 0 } && url[0] == '/' && !url.StartsWith("//", StringComparison.Ordinal) && !url.Contains('\\') && !url.Any(char.IsControl) ? url : HomePath;

    private static CookieSecurePolicy Secure(ConsoleSettings settings)
        => settings is ConsoleSettings.Development ? CookieSecurePolicy.SameAsRequest : CookieSecurePolicy.Always;

    private static void Configure(OpenIdConnectOptions options, ConsoleSettings.OpenIdConnect provider)
    {
        options.SignInScheme = Scheme;
        options.Authority = provider.Authority;
        options.ClientId = provider.ClientId;
        options.ClientSecret = provider.ClientSecret;
        options.ResponseType = "code";
        options.ResponseMode = "query";
        options.UsePkce = true;
        options.CallbackPath = "/sign-in/done";
        options.SignedOutCallbackPath = "/sign-out/done";
        options.SignedOutRedirectUri = SignedOutPath;
        options.MapInboundClaims = false;
        options.SaveTokens = false;
        options.GetClaimsFromUserInfoEndpoint = false;
        options.CorrelationCookie.SecurePolicy = CookieSecurePolicy.Always;
        options.CorrelationCookie.SameSite = SameSiteMode.Lax;
        options.NonceCookie.SecurePolicy = CookieSecurePolicy.Always;
        options.NonceCookie.SameSite = SameSiteMode.Lax;
        options.TokenValidationParameters.NameClaimType = Caller.SubjectClaim;
        options.TokenValidationParameters.RoleClaimType = Caller.RoleClaim;
        options.Events = new OpenIdConnectEvents
        {
            OnTokenValidated = context =>
            {
                // What the cookie keeps is who it is, and nothing else of the token.
                if (Caller.From(context.Principal!) is not { } caller)
                {
                    context.Fail($"the identity provider's token must name one role of USER, ADMIN, SUPER_ADMIN in '{Caller.RoleClaim}'");
                    return Task.CompletedTask;
                }

                context.Principal = PrincipalOf(caller, context.Options.TimeProvider!.GetUtcNow() + Lifetime);
                return Task.CompletedTask;
            },
            OnRedirectToIdentityProviderForSignOut = context =>
            {
                // A provider that has no sessions to end, or does not say where.
                if (!string.IsNullOrEmpty(context.ProtocolMessage.IssuerAddress)) return Task.CompletedTask;
                context.HandleResponse();
                context.Response.Redirect(SignedOutPath);
                return Task.CompletedTask;
            },
            OnRemoteFailure = context =>
            {
                context.HandleResponse();
                return Problem.SignInFailed(context.Failure?.Message).ExecuteAsync(context.HttpContext);
            },
        };
    }

    private static ClaimsPrincipal PrincipalOf(Caller caller, DateTimeOffset until) => new(new ClaimsIdentity(
    [
        new(Caller.SubjectClaim, caller.Subject), new(Caller.AccountClaim, caller.Account.Value), new(Caller.RoleClaim, caller.Role.ToName()),
        new(Caller.AccountRoleClaim, caller.AccountRole.ToName()), SignedInUntil.Claim(until),
    ], Scheme, Caller.SubjectClaim, Caller.RoleClaim));

    /// <summary>Development only: the form says who one is.</summary>
    private static async Task<IResult> SignInAsync(
        [FromForm] string? account, [FromForm] string? role, [FromForm] string? returnUrl, HttpContext context, TimeProvider time)
    {
        var (name, kind) = ((account ?? "").Trim(), (role ?? "").Split('/'));
        if (!AccountLookup.IsName(name) || kind.Length != 2 || !RoleNames.TryParse(kind[0], out Role known) || !RoleNames.TryParse(kind[1], out AccountRole inAccount))
        {
            return TypedResults.LocalRedirect($"{SignInPath}?wrong=true&returnUrl={Uri.EscapeDataString(Local(returnUrl))}");
        }

        var until = time.GetUtcNow() + Lifetime;
        var caller = new Caller(name, new AccountId(name), known, inAccount);
        await context.SignInAsync(Scheme, PrincipalOf(caller, until));
        // The platform's own people mostly have no account of their own.
        return TypedResults.LocalRedirect(caller.IsAdmin && Local(returnUrl) == HomePath ? "/accounts" : Local(returnUrl));
    }

    private static SignOutHttpResult SignOut([FromForm] string? leaving, ConsoleSettings settings) => settings is ConsoleSettings.OpenIdConnect
        ? TypedResults.SignOut(new AuthenticationProperties { RedirectUri = SignedOutPath }, [Scheme, OpenIdConnectDefaults.AuthenticationScheme])
        : TypedResults.SignOut(new AuthenticationProperties { RedirectUri = SignInPath }, [Scheme]);
}
