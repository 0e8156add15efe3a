using System.Net;
using Tensormesh.Billing;

namespace Tensormesh.Web;

/// <summary>Which payment company, and how it is reached.</summary>
internal abstract record PaymentSettings
{
    private const string Group = "Tensormesh:Payments";
    private const string Names = "Tensormesh__Payments__";
    private const int DefaultReconcileSeconds = 300;

    private PaymentSettings() { }

    /// <summary>Test cards only, and no real money.</summary>
    public sealed record Sandbox : PaymentSettings;

    public sealed record Stripe(StripeOptions Options, string WebhookSecret, TimeSpan ReconcileEvery) : PaymentSettings
    {
        /// <summary>Never a secret.</summary>
        public override string ToString() => Options.ToString();
    }

    /// <exception cref="SettingsException">A setting is missing or wrong.</exception>
    public static PaymentSettings Read(IConfiguration configuration)
    {
        // Left out by mistake where people sign in for real, anybody could add balance with a test card.
        var provider = WebSettings.Text(configuration, $"{Group}:Provider") ?? (WebSettings.Text(configuration, "Tensormesh:Authority") is null
            ? nameof(Sandbox)
            : throw new SettingsException($"{Names}Provider is not set: write Stripe, or Sandbox if every payment is to be play money"));
        if (provider == nameof(Sandbox))
        {
            // A key that is given and not used would be found out by customers whose payments are play money.
            return SecretOf(configuration, "StripeSecretKey") is null
                ? new Sandbox()
                : throw new SettingsException($"a Stripe key is configured and {Names}Provider is Sandbox: write Stripe, or remove the key");
        }

        if (provider != nameof(Stripe)) throw new SettingsException($"{Names}Provider is '{provider}': write Sandbox or Stripe");
        var key = SecretOf(configuration, "StripeSecretKey")
            ?? throw new SettingsException($"payments go to Stripe without a key: set {Names}StripeSecretKeyFile to a file that holds it");
        if (!key.StartsWith("sk_", StringComparison.Ordinal) && !key.StartsWith("rk_", StringComparison.Ordinal))
        {
            throw new SettingsException($"{Names}StripeSecretKey is not a secret key of Stripe's: those begin with sk_ or rk_");
        }

        var secret = SecretOf(configuration, "StripeWebhookSecret") ?? throw new SettingsException(
            $"events of Stripe could not be told from forged ones: set {Names}StripeWebhookSecretFile to a file with the endpoint's signing secret");
        if (!secret.StartsWith("whsec_", StringComparison.Ordinal))
        {
            throw new SettingsException($"{Names}StripeWebhookSecret is not a signing secret of Stripe's: those begin with whsec_");
        }

        var seconds = WebSettings.Count(configuration, $"{Group}:ReconcileSeconds", DefaultReconcileSeconds);
        return new Stripe(new StripeOptions(key, ReadApiBase(configuration)), secret, TimeSpan.FromSeconds(seconds));
    }

    /// <summary>Plain HTTP would send the key in clear, so that it is for this machine only.</summary>
    private static Uri ReadApiBase(IConfiguration configuration)
    {
        if (WebSettings.Text(configuration, $"{Group}:StripeApiBase") is not { } text) return StripeOptions.DefaultApiBase;
        var fits = Uri.TryCreate(text, UriKind.Absolute, out var uri) && uri.AbsolutePath == "/" && (uri.Scheme == Uri.UriSchemeHttps
            || (uri.Scheme == Uri.UriSchemeHttp && IPAddress.TryParse(uri.Host.Trim('[', ']'), out var address) && IPAddress.IsLoopback(address)));
        return fits ? uri! : throw new SettingsException($"{Names}StripeApiBase is '{text}': write an https:// address without a path, or leave it out");
    }

    /// <summary>From the setting, or from the file that the setting of the same name with "File" names; never from both.</summary>
    private static string? SecretOf(IConfiguration configuration, string name)
    {
        var (given, file) = (WebSettings.Text(configuration, $"{Group}:{name}"), WebSettings.Text(configuration, $"{Group}:{name}File"));
        if (given is not null && file is not null) throw new SettingsException($"both {Names}{name} and {Names}{name}File are set: keep the file");
        if (file is null) return given;
        try
        {
            return File.ReadAllText(file).Trim() is { Length: > 0 } text ? text : throw new SettingsException($"{Names}{name}File is '{file}', which is empty");
        }
        catch (Exception unreadable) when (unreadable is IOException or UnauthorizedAccessException)
        {
            throw new SettingsException($"{Names}{name}File is '{file}', which cannot be read: {unreadable.Message}");
        }
    }
}
