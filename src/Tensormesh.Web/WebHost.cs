using Microsoft.AspNetCore.Http.Metadata;
using Microsoft.Net.Http.Headers;
using Npgsql;
using Prometheus;
using Tensormesh.Billing;

namespace Tensormesh.Web;

/// <summary>Wiring only: what there is, and in which order a request meets it.</summary>
internal static class WebHost
{
    public const int LargestBodyBytes = 64 * 1024;

    private static readonly Func<ILogger, AccountId, IDisposable?> AccountScope = LoggerMessage.DefineScope<AccountId>("account {Account}");

    /// <exception cref="SettingsException">The configuration is wrong.</exception>
    public static WebApplication Build(string[] args)
    {
        var builder = WebApplication.CreateBuilder(new WebApplicationOptions
        {
            Args = args,
            // By which the pages' files are found, whoever hosts this.
            ApplicationName = typeof(WebHost).Assembly.GetName().Name,
            WebRootPath = Path.Combine(AppContext.BaseDirectory, "wwwroot"),
        });
        if (Secrets.Add(builder.Configuration) is { } problem) throw new SettingsException(problem);
        var settings = WebSettings.Read(builder.Configuration);
        var metrics = new WebMetrics();

        builder.Logging.AddLogs(builder.Configuration);
        builder.Logging.AddFilter("Microsoft.AspNetCore", LogLevel.Warning);
        // It warns of our own header, which says the same as its.
        builder.Logging.AddFilter("Microsoft.AspNetCore.Antiforgery", LogLevel.Error);
        builder.WebHost.ConfigureKestrel(kestrel =>
        {
            kestrel.AddServerHeader = false;
            kestrel.Limits.MaxRequestBodySize = LargestBodyBytes;
        });
        if (settings.Urls is { } urls) builder.WebHost.UseUrls(urls);

        builder.Services.AddSingleton(settings).AddSingleton(metrics);
        if (settings.Payments is PaymentSettings.Stripe stripe)
        {
            builder.Services.AddSingleton<IPaymentProvider>(_ => new StripePaymentProvider(stripe.Options));
            builder.Services.AddHostedService<PaymentReconciler>();
        }

        builder.Services.AddHostedService<AutoTopUpWorker>();
        builder.Services.AddHostedService<UsageKeeper>();
        builder.Services.AddSingleton<IngestionQueue>();
        builder.Services.AddBilling(settings.ConnectionString);
        builder.Services.AddAccess(settings);
        builder.Services.AddSingleton<AccountLookup>().AddSingleton<MoneyLog>().AddSingleton<Readiness>().AddSingleton<ProblemPages>()
            .AddSingleton<Till>().AddSingleton<BackOffice>();
        builder.Services.ConfigureHttpJsonOptions(json => Wire.Configure(json.SerializerOptions));
        builder.Services.Configure<RouteHandlerOptions>(handlers => handlers.ThrowOnBadRequest = true);
        builder.Services.AddApiDescription();
        if (settings.Console is not null)
        {
            builder.WebHost.UseStaticWebAssets();
            builder.Services.AddConsole(settings.Console);
        }

        builder.Services.AddTracing(builder.Configuration, "tensormesh-web");
        if (settings.MetricsUrl is { } metricsUrl)
        {
            builder.Services.AddMetricServer(server =>
            {
                server.Hostname = metricsUrl.Host;
                server.Port = (ushort)metricsUrl.Port;
                server.Registry = metrics.Registry;
            });
        }

        var web = builder.Build();
        var time = web.Services.GetRequiredService<TimeProvider>();
        var pages = web.Services.GetRequiredService<ProblemPages>();

        web.Use(next => context => metrics.MeasureAsync(context, next, time));
        web.UseExceptionHandler(new ExceptionHandlerOptions
        {
            ExceptionHandler = pages.ForExceptionAsync,
            SuppressDiagnosticsCallback = _ => true,
        });
        web.UseStatusCodePages(ProblemPages.ForStatusAsync);
        web.Use(NeverCached);
        web.UseApiPage();
        web.UseRouting();
        web.Use(Utf8Only);
        web.UseAuthentication();
        web.UseRateLimiter();
        web.UseAuthorization();
        var logger = web.Services.GetRequiredService<ILogger<Caller>>();
        web.Use(next => context => WithAccountAsync(next, context, logger));
        if (settings.Console is not null)
        {
            web.Use(next => ConsoleHost.Guarded(next, settings));
            web.UseConsole();
        }

        web.MapHealthApi();
        web.MapProfileApi();
        web.MapBillingApi();
        web.MapReportsApi();
        web.MapPaymentsApi();
        web.MapAutoTopUpApi();
        web.MapBillingAddressApi();
        web.MapDeploymentsApi();
        web.MapUsageApi();
        if (settings.Payments is PaymentSettings.Stripe) web.MapStripeWebhooks();
        web.MapApiKeysApi();
        web.MapAdminApi();
        web.MapAccountsApi();
        web.MapAuditApi();
        web.MapApiDescription();
        if (settings.Console is not null) web.MapConsole(settings);
        return web;
    }

    /// <summary>What has to be done before the first request: the schema, where this process is told to bring it up to date.</summary>
    public static async Task PrepareAsync(WebApplication web, CancellationToken cancellation)
    {
        if (!web.Services.GetRequiredService<WebSettings>().MigrateOnStart) return;
        await Migrator.MigrateAsync(web.Services.GetRequiredService<NpgsqlDataSource>(), cancellation);
    }

    /// <summary>JSON is UTF-8 (RFC 8259, section 8.1). The framework would read other encodings, and fail at those that it does not know.</summary>
    private static RequestDelegate Utf8Only(RequestDelegate next) => context =>
        context.GetEndpoint()?.Metadata.GetMetadata<IAcceptsMetadata>() is not null
            && MediaTypeHeaderValue.TryParse(context.Request.ContentType, out var type) && type.Charset is { Length: > 0 } charset
            && !charset.Equals("utf-8", StringComparison.OrdinalIgnoreCase)
        ? Problem.UnsupportedMediaType().ExecuteAsync(context)
        : next(context);

    /// <summary>Every line that a request leads to names who asked. Its trace is named by the framework.</summary>
    private static async Task WithAccountAsync(RequestDelegate next, HttpContext context, ILogger logger)
    {
        using var scope = Caller.From(context.User) is { } caller ? AccountScope(logger, caller.Account) : null;
        await next(context);
    }

    /// <summary>Answers about one account's money belong in no cache on the way.</summary>
    private static RequestDelegate NeverCached(RequestDelegate next) => context =>
    {
        context.Response.Headers.CacheControl = "no-store";
        context.Response.Headers.XContentTypeOptions = "nosniff";
        return next(context);
    };
}
