using OpenTelemetry.Resources;
using OpenTelemetry.Trace;

namespace Tensormesh;

/// <summary>
/// Compiled into each executable that has a web server. OpenTelemetry spans: of requests, of SQL, of the operator's loop, and of the money core, from a request with usage to its posting by the operator. Sent where OpenTelemetry's own
/// settings say (<c>OTEL_EXPORTER_OTLP_ENDPOINT</c>, and the others beside it); nowhere while they name no collector.
/// </summary>
internal static class Tracing
{
    public const string EndpointSetting = "OTEL_EXPORTER_OTLP_ENDPOINT";
    private const string OwnSources = "Tensormesh.*", SqlSource = "Npgsql";

    public static void AddTracing(this IServiceCollection services, IConfiguration configuration, string service)
    {
        if (string.IsNullOrEmpty(configuration[EndpointSetting])) return;
        services.AddOpenTelemetry().ConfigureResource(resource => resource.AddService(service)).WithTracing(traces => traces
            .AddAspNetCoreInstrumentation().AddSource(OwnSources).AddSource(SqlSource).AddOtlpExporter());
    }
}
