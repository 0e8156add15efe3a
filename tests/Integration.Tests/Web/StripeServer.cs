using System.Net;
using System.Net.Sockets;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting.Server;
using Microsoft.AspNetCore.Hosting.Server.Features;
using Microsoft.Extensions.DependencyInjection;
using Npgsql;
using Tensormesh.Billing;
using Tensormesh.TestKit;
using Tensormesh.Web;

namespace Tensormesh.Integration.Tests.Web;

/// <summary>The Web API with Stripe as its payment company, and a Stripe of this machine that sends its events to it.</summary>
public sealed class StripeServer : IAsyncLifetime
{
    public WebServer Web { get; } = new();
    public FakeStripe Stripe { get; private set; } = null!;
    public WebApplication Host { get; private set; } = null!;
    public Uri MetricsAddress { get; private set; } = null!;

    public Uri Address => new(Host.Services.GetRequiredService<IServer>().Features.Get<IServerAddressesFeature>()!.Addresses.Single());

    public async ValueTask InitializeAsync()
    {
        await Web.InitializeAsync();
        Stripe = await FakeStripe.StartAsync(TimeProvider.System);
        MetricsAddress = new Uri($"http://127.0.0.1:{FreePorts.Take(1)[0]}");
        Host = await Web.StartAnotherAsync([.. Settings(), $"--Tensormesh:MetricsUrl={MetricsAddress.GetLeftPart(UriPartial.Authority)}"]);
        Stripe.Webhooks.Address = new Uri(Address, StripeWebhooks.Path);
    }

    /// <summary>The comparison runs once at the start, and then no more in any test's time.</summary>
    public string[] Settings() =>
    [
        "--Tensormesh:Payments:Provider=Stripe", $"--Tensormesh:Payments:StripeSecretKey={FakeStripe.SecretKey}",
        $"--Tensormesh:Payments:StripeApiBase={Stripe.Address}", $"--Tensormesh:Payments:StripeWebhookSecret={FakeStripe.WebhookSecret}",
        "--Tensormesh:Payments:ReconcileSeconds=3600", "--Tensormesh:RequestsPerSecond=10000", "--Tensormesh:RequestBurst=10000",
    ];

    public WebClient As(string account) => Web.As(account, host: Host);

    /// <summary>An account with a card that was entered in a browser.</summary>
    public async Task<(string Account, WebClient Customer, string Card)> OpenAsync(string token = "pm_card_visa")
    {
        var account = await Web.OpenAccountAsync();
        var customer = As(account);
        var setup = (await customer.PostAsync("/v1/billing/stripe/setup-intents", "{}")).Ok();
        Assert.StartsWith("seti_", setup.GetProperty("stripeSetupIntentId").GetString(), StringComparison.Ordinal);
        Assert.Contains("_secret_", setup.GetProperty("clientSecret").GetString(), StringComparison.Ordinal);
        var card = Stripe.Books.ConfirmSetup(setup.GetProperty("stripeSetupIntentId").GetString()!, token);
        (await customer.AttachAsync(card)).Ok();
        return (account, customer, card);
    }

    public async Task<Money> BalanceAsync(string account)
        => (await Host.Services.GetRequiredService<Accounts>().ReadStandingAsync(new AccountId(account), CancellationToken.None))!.Posted;

    public async Task<T> ScalarAsync<T>(string sql, string parameter)
    {
        await using var connection = new NpgsqlConnection(Web.Database);
        await connection.OpenAsync();
        await using var command = new NpgsqlCommand(sql, connection) { Parameters = { new() { Value = parameter } } };
        return (T)(await command.ExecuteScalarAsync())!;
    }

    public async ValueTask DisposeAsync()
    {
        Stripe.Webhooks.Address = null;
        await Web.DisposeAsync();
        await Stripe.DisposeAsync();
    }
}
