namespace Tensormesh;

/// <summary>
/// Compiled into each executable. What it tells goes to its output, a line each: as text for whoever reads along, or as JSON for what collects the logs of containers.
/// </summary>
internal static class Logs
{
    public const string Setting = "Tensormesh:Logs";
    private const string Json = "json", Text = "text";

    /// <summary>Set by the images of .NET.</summary>
    private const string InContainer = "DOTNET_RUNNING_IN_CONTAINER";

    private static readonly Func<ILogger, string, string?, string?, IDisposable?> Scope =
        LoggerMessage.DefineScope<string, string?, string?>("deployment {Deployment}, account {Account}, trace {Trace}");

    /// <exception cref="InvalidOperationException">The setting is neither of the two.</exception>
    public static void AddLogs(this ILoggingBuilder logging, IConfiguration configuration)
    {
        logging.ClearProviders();
        if (IsJson(configuration))
        {
            logging.AddJsonConsole(console =>
            {
                console.IncludeScopes = true;
                console.UseUtcTimestamp = true;
                console.TimestampFormat = "yyyy-MM-ddTHH:mm:ss.fffZ";
            });
            return;
        }

        logging.AddSimpleConsole(console =>
        {
            console.SingleLine = true;
            console.TimestampFormat = "HH:mm:ss.fff ";
            console.UseUtcTimestamp = true;
        });
    }

    /// <summary>What every line says, until this is disposed of, beside its own words: where JSON is written.</summary>
    /// <param name="deployment">namespace/name.</param>
    /// <param name="trace">The trace in which this happens, or would, were it traced.</param>
    public static IDisposable? Concerning(ILogger logger, string deployment, string? account, string? trace) => Scope(logger, deployment, account, trace);

    internal static bool IsJson(IConfiguration configuration) => configuration[Setting] switch
    {
        Json => true,
        Text => false,
        null or "" => configuration[InContainer] == "true",
        var other => throw new InvalidOperationException($"{Setting} is '{other}': use {Json} or {Text}"),
    };
}
