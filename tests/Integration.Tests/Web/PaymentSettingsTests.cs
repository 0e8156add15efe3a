using Microsoft.Extensions.Configuration;
using Tensormesh.Web;

namespace Tensormesh.Integration.Tests.Web;

public sealed class PaymentSettingsTests
{
    private const string Key = "sk_test_x";
    private const string Secret = "whsec_x";

    [Theory]
    [InlineData("paypal", null, null, null, "Provider is 'paypal'")]
    [InlineData("Stripe", null, Secret, null, "StripeSecretKeyFile")]
    [InlineData("Stripe", Key, null, null, "StripeWebhookSecretFile")]
    [InlineData("Stripe", "pk_test_x", Secret, null, "begin with sk_")]
    [InlineData("Stripe", Key, "secret", null, "begin with whsec_")]
    [InlineData("Stripe", Key, Secret, "http://stripe.example", "https://")]
    [InlineData("Stripe", Key, Secret, "https://stripe.example/v1", "https://")]
    [InlineData(null, Key, null, null, "Provider is Sandbox")]
    public void What_is_wrong_or_missing_is_said_at_the_start(string? provider, string? key, string? secret, string? apiBase, string says)
    {
        var wrong = Assert.Throws<SettingsException>(() => Read(("Provider", provider), ("StripeSecretKey", key), ("StripeWebhookSecret", secret),
            ("StripeApiBase", apiBase)));
        Assert.Contains(says, wrong.Message, StringComparison.Ordinal);
        Assert.DoesNotContain(Key, wrong.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Secrets_come_from_files_and_never_from_both()
    {
        var file = Path.GetTempFileName();
        try
        {
            File.WriteAllText(file, Key + "\n");
            var stripe = Assert.IsType<PaymentSettings.Stripe>(Read(("Provider", "Stripe"), ("StripeSecretKeyFile", file), ("StripeWebhookSecret", Secret)));
            Assert.Equal((Key, "https://api.stripe.com/", Secret), (stripe.Options.SecretKey, stripe.Options.ApiBase.ToString(), stripe.WebhookSecret));
            Assert.DoesNotContain(Key, stripe.ToString(), StringComparison.Ordinal);
            Assert.Throws<SettingsException>(() =>
                Read(("Provider", "Stripe"), ("StripeSecretKeyFile", file), ("StripeSecretKey", Key), ("StripeWebhookSecret", Secret)));
            Assert.Throws<SettingsException>(() =>
                Read(("Provider", "Stripe"), ("StripeSecretKeyFile", file + ".none"), ("StripeWebhookSecret", Secret)));
        }
        finally
        {
            File.Delete(file);
        }
    }

    [Fact]
    public void Without_a_word_payments_are_the_sandboxs()
    {
        Assert.IsType<PaymentSettings.Sandbox>(Read());
        Assert.IsType<PaymentSettings.Sandbox>(Read(("Provider", "Sandbox")));
    }

    private static PaymentSettings Read(params (string Name, string? Value)[] settings) => PaymentSettings.Read(
        new ConfigurationBuilder().AddInMemoryCollection(settings.Select(one => KeyValuePair.Create($"Tensormesh:Payments:{one.Name}", one.Value))).Build());
}
