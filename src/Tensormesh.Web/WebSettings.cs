using System.Globalization;
using System.Text;

namespace Tensormesh.Web;

/// <summary>The configuration is wrong: the message says which setting, and what to write. The process does not start.</summary>
internal sealed class SettingsException(string message) : Exception(message);

/// <summary>
/// Everything that is configured, read and checked once at start. Settings come from the environment
/// (<c>Tensormesh__MetricsUrl</c>), appsettings.json and the command line (<c>--Tensormesh:MetricsUrl=...</c>).
/// </summary>
internal sealed record WebSettings
{
    public const int MinimumKeyBytes = 32;

    /// <summary><c>ConnectionStrings:Billing</c>.</summary>
    public required string ConnectionString { get; init; }

    public required TokenIssuer Issuer { get; init; }

    /// <summary><c>Tensormesh:Urls</c>: where to listen, separated by semicolons. Null leaves it to ASPNETCORE_URLS.</summary>
    public string? Urls { get; init; }

    /// <summary>
    /// <c>Tensormesh:MetricsUrl</c>: a listener of its own for /metrics, which asks for no token, so keep it off public networks. Null:
    /// no metrics.
    /// </summary>
    public Uri? MetricsUrl { get; init; }

    /// <summary><c>Tensormesh:MigrateOnStart</c>: bring the database to this build's schema before listening.</summary>
    public bool MigrateOnStart { get; init; }

    /// <summary><c>Tensormesh:RequestsPerSecond</c>: sustained requests of one caller.</summary>
    public int RequestsPerSecond { get; init; } = 100;

    /// <summary><c>Tensormesh:RequestBurst</c>: requests that one caller may send at once after a rest.</summary>
    public int RequestBurst { get; init; } = 500;

    /// <summary><c>Tensormesh:AutoTopUpSeconds</c>: how often low balances are looked for.</summary>
    public TimeSpan AutoTopUpEvery { get; init; } = TimeSpan.FromSeconds(5);

    /// <summary><c>Tensormesh:UsageSeconds</c>: how often usage that has no price is counted, and old usage looked for.</summary>
    public TimeSpan UsageEvery { get; init; } = TimeSpan.FromSeconds(5);

    /// <summary><c>Tensormesh:Console:*</c>. Null: no console.</summary>
    public ConsoleSettings? Console { get; init; }

    /// <summary><c>Tensormesh:Payments:*</c>.</summary>
    public PaymentSettings Payments { get; init; } = new PaymentSettings.Sandbox();

    /// <exception cref="SettingsException">A setting is missing or wrong.</exception>
    public static WebSettings Read(IConfiguration configuration) => new()
    {
        ConnectionString = Text(configuration, "ConnectionStrings:Billing")
            ?? throw new SettingsException("set ConnectionStrings__Billing to the Postgres of the ledger, such as "
                + "'Host=127.0.0.1;Database=billing;Username=tensormesh'"),
        Issuer = ReadIssuer(configuration),
        Urls = Text(configuration, "Tensormesh:Urls"),
        MetricsUrl = ReadMetricsUrl(configuration),
        MigrateOnStart = Flag(configuration, "Tensormesh:MigrateOnStart"),
        RequestsPerSecond = Count(configuration, "Tensormesh:RequestsPerSecond", 100),
        RequestBurst = Count(configuration, "Tensormesh:RequestBurst", 500),
        AutoTopUpEvery = TimeSpan.FromSeconds(Count(configuration, "Tensormesh:AutoTopUpSeconds", 5)),
        UsageEvery = TimeSpan.FromSeconds(Count(configuration, "Tensormesh:UsageSeconds", 5)),
        Console = ConsoleSettings.Read(configuration, ReadIssuer(configuration)),
        Payments = PaymentSettings.Read(configuration),
    };

    /// <summary>Exactly one source of tokens: two would let a leaked development key into production, none would let nobody in.</summary>
    public static TokenIssuer ReadIssuer(IConfiguration configuration)
    {
        var key = Text(configuration, "Tensormesh:DevelopmentSigningKey");
        var authority = Text(configuration, "Tensormesh:Authority");
        switch (key, authority)
        {
            case (null, null):
                throw new SettingsException("nobody could sign in: set Tensormesh__Authority to your OpenID Connect issuer, or, for "
                    + "development only, "
                    + $"Tensormesh__DevelopmentSigningKey to at least {MinimumKeyBytes} random bytes (openssl rand -hex 32)");
            case ({ }, { }):
                throw new SettingsException("both Tensormesh__Authority and Tensormesh__DevelopmentSigningKey are set: remove the "
                    + "development key, "
                    + "with which anyone who knows it can sign in as anyone");
            case ({ }, null) when Encoding.UTF8.GetByteCount(key) < MinimumKeyBytes:
                throw new SettingsException($"Tensormesh__DevelopmentSigningKey is {Encoding.UTF8.GetByteCount(key)} bytes long: "
                    + $"give at least {MinimumKeyBytes} (openssl rand -hex 32)");
            case ({ }, null):
                return new TokenIssuer.Development(Encoding.UTF8.GetBytes(key));
            case (null, { }) when !Uri.TryCreate(authority, UriKind.Absolute, out var uri) || uri.Scheme != Uri.UriSchemeHttps:
                throw new SettingsException($"Tensormesh__Authority is '{authority}': write the issuer's https:// address");
            case (null, { }):
                return new TokenIssuer.OpenIdConnect(authority, Text(configuration, "Tensormesh:Audience") ?? TokenIssuer.DefaultAudience);
        }
    }

    /// <summary>From the setting, or from the file that the setting of the same name with "File" names; never from both.</summary>
    /// <param name="shown">The setting as an environment variable, for messages.</param>
    internal static string? SecretOf(IConfiguration configuration, string name, string shown)
    {
        var (given, file) = (Text(configuration, name), Text(configuration, $"{name}File"));
        if (given is not null && file is not null) throw new SettingsException($"both {shown} and {shown}File are set: keep the file");
        if (file is null) return given;
        try
        {
            return File.ReadAllText(file).Trim() is { Length: > 0 } text ? text : throw new SettingsException($"{shown}File is '{file}', which is empty");
        }
        catch (Exception unreadable) when (unreadable is IOException or UnauthorizedAccessException)
        {
            throw new SettingsException($"{shown}File is '{file}', which cannot be read: {unreadable.Message}");
        }
    }

    private static Uri? ReadMetricsUrl(IConfiguration configuration)
    {
        if (Text(configuration, "Tensormesh:MetricsUrl") is not { } text) return null;
        // Uri knows no host called '+', which is how one says "every address" here.
        var address = text.Replace("://+", "://0.0.0.0", StringComparison.Ordinal).Replace("://*", "://0.0.0.0", StringComparison.Ordinal);
        var parsed = Uri.TryCreate(address, UriKind.Absolute, out var uri);
        return parsed && uri!.Scheme == Uri.UriSchemeHttp && uri.AbsolutePath is "/" or "/metrics"
            ? uri
            : throw new SettingsException($"Tensormesh__MetricsUrl is '{text}': write an address to listen on, such as "
                + $"http://127.0.0.1:9464");
    }

    internal static string? Text(IConfiguration configuration, string name) => configuration[name] is { Length: > 0 } text ? text : null;

    internal static bool Flag(IConfiguration configuration, string name) => Text(configuration, name) is { } text
        && (bool.TryParse(text, out var flag) ? flag : throw new SettingsException($"{name} is '{text}': write true or false"));

    internal static int Count(IConfiguration configuration, string name, int otherwise)
    {
        if (Text(configuration, name) is not { } text) return otherwise;
        return int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out var count) && count > 0
            ? count
            : throw new SettingsException($"{name} is '{text}': write a whole number above zero");
    }
}

/// <summary>Who signs the tokens.</summary>
internal abstract record TokenIssuer
{
    public const string DefaultAudience = "tensormesh";

    private TokenIssuer() { }

    /// <summary>We do, with a shared key (HS256): for laptops and tests.</summary>
    public sealed record Development(byte[] Key) : TokenIssuer
    {
        public const string Name = "tensormesh-development";
    }

    /// <summary>An identity provider does, with keys that it publishes.</summary>
    public sealed record OpenIdConnect(string Authority, string Audience) : TokenIssuer;
}
