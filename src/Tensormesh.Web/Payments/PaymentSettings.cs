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

    /// <param name="PublishableKey">With which a customer's browser opens Stripe's card form; null: cards cannot be added in the console.</param>
    public sealed record Stripe(StripeOptions Options, string WebhookSecret, TimeSpan ReconcileEvery, string? PublishableKey) : PaymentSettings
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
            return WebSettings.SecretOf(configuration, $"{Group}:StripeSecretKey", $"{Names}StripeSecretKey") is null
                ? new Sandbox()
                : throw new SettingsException($"a Stripe key is configured and {Names}Provider is Sandbox: write Stripe, or remove the key");
        }

        if (provider != nameof(Stripe)) throw new SettingsException($"{Names}Provider is '{provider}': write Sandbox or Stripe");
        var key = WebSettings.SecretOf(configuration, $"{Group}:StripeSecretKey", $"{Names}StripeSecretKey")
            ?? throw new SettingsException($"payments go to Stripe without a key: set {Names}StripeSecretKeyFile to a file that holds it");
        if (!key.StartsWith("sk_", StringComparison.Ordinal) && !key.StartsWith("rk_", StringComparison.Ordinal))
        {
            throw new SettingsException($"{Names}StripeSecretKey is not a secret key of Stripe's: those begin with sk_ or rk_");
        }

        var secret = WebSettings.SecretOf(configuration, $"{Group}:StripeWebhookSecret", $"{Names}StripeWebhookSecret") ?? throw new SettingsException(
            $"events of Stripe could not be told from forged ones: set {Names}StripeWebhookSecretFile to a file with the endpoint's signing secret");
        if (!secret.StartsWith("whsec_", StringComparison.Ordinal))
        {
            throw new SettingsException($"{Names}StripeWebhookSecret is not a signing secret of Stripe's: those begin with whsec_");
        }

        var seconds = WebSettings.Count(configuration, $"{Group}:ReconcileSeconds", DefaultReconcileSeconds);
        var publishable = WebSettings.Text(configuration, $"{Group}:StripePublishableKey");
        if (publishable is not null && !publishable.StartsWith("pk_", StringComparison.Ordinal))
        {
            throw new SettingsException($"{Names}StripePublishableKey is not a publishable key of Stripe's: those begin with pk_");
        }

        return new Stripe(new StripeOptions(key, ReadApiBase(configuration)), secret, TimeSpan.FromSeconds(seconds), publishable);
    }

    /// <summary>Plain HTTP would send the key in clear, so that it is for this machine only.</summary>
    private static Uri ReadApiBase(IConfiguration configuration)
    {
        if (WebSettings.Text(configuration, $"{Group}:StripeApiBase") is not { } text) return StripeOptions.DefaultApiBase;
        var fits = Uri.TryCreate(text, UriKind.Absolute, out var uri) && uri.AbsolutePath == "/" && (uri.Scheme == Uri.UriSchemeHttps
            || (uri.Scheme == Uri.UriSchemeHttp && IPAddress.TryParse(uri.Host.Trim('[', ']'), out var address) && IPAddress.IsLoopback(address)));
        return fits ? uri! : throw new SettingsException($"{Names}StripeApiBase is '{text}': write an https:// address without a path, or leave it out");
    }
}
