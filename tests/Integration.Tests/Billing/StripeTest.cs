using System.Text.Json.Nodes;
using Tensormesh.Billing;
using Tensormesh.TestKit;

namespace Tensormesh.Integration.Tests.Billing;

/// <summary>The money core with Stripe as its payment company: the real client, and a Stripe of this machine.</summary>
public abstract class StripeTest(PostgresFixture postgres) : BillingTest(postgres)
{
    protected FakeStripe Stripe { get; private set; } = null!;
    protected StripePaymentProvider Provider { get; private set; } = null!;
    protected Customers Customers { get; private set; } = null!;
    protected PaymentEvents Events { get; private set; } = null!;
    protected PaymentReconciliation Reconciliation { get; private set; } = null!;
    protected PaymentMismatches Mismatches { get; private set; } = null!;

    public override async ValueTask InitializeAsync()
    {
        await base.InitializeAsync();
        Stripe = await FakeStripe.StartAsync(Time);
        Provider = new StripePaymentProvider(new StripeOptions(FakeStripe.SecretKey, Stripe.Address) { Timeout = TimeSpan.FromSeconds(2), Retries = 1 });
        (Cards, TopUps, Customers) = (new(Database, Provider, Time), new(Database, Provider, Time), new(Database, Provider, Time));
        (Events, Reconciliation, Mismatches) = (new(Database, Provider, Time), new(Database, Provider, Time), new(Database, Provider, Time));
    }

    public override async ValueTask DisposeAsync()
    {
        try
        {
            await base.DisposeAsync();
        }
        finally
        {
            Provider?.Dispose();
            if (Stripe is not null) await Stripe.DisposeAsync();
        }

        GC.SuppressFinalize(this);
    }

    /// <summary>An account with a card that was entered in a browser.</summary>
    protected async Task<string> OpenWithCardAsync(AccountId account, string token = "pm_card_visa")
    {
        await DeclareAsync(account);
        return await EnterCardAsync(account, token);
    }

    protected async Task<string> EnterCardAsync(AccountId account, string token)
    {
        var setup = (await Cards.BeginSetupAsync(account, Guid.NewGuid().ToString(), Cancellation))!;
        var card = Stripe.Books.ConfirmSetup(setup.SetupIntentId, token);
        Assert.Equal(AttachResult.Attached, await Cards.AttachAsync(account, card, Cancellation));
        return card;
    }

    protected Task<TopUpResult> TopUpAsync(string card, string dollars = "20.00", string key = "key", ChargeMode mode = ChargeMode.OnSession)
        => TopUps.ChargeAsync(Acme, Money.Parse(dollars), card, key, Cancellation, mode);

    /// <summary>The newest event of this type, as it would come.</summary>
    protected PaymentEvent Told(string type) => Read(Stripe.Webhooks.Events.Last(one => (string)one["type"]! == type));

    protected static PaymentEvent Read(JsonObject sent)
        => new(StripePaymentProvider.ProviderName, (string)sent["id"]!, (string)sent["type"]!, (string)sent["data"]!["object"]!["id"]!);
}
