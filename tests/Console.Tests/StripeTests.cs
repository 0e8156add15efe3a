using Microsoft.Playwright;
using Tensormesh.Billing;
using Tensormesh.TestKit;
using static Microsoft.Playwright.Assertions;

namespace Tensormesh.Console.Tests;

/// <summary>
/// With Stripe as the payment company. Its HTTP API is <see cref="FakeStripe"/>, and its script is one of ours that the browser is given in place of it: what
/// a real one does inside its frames is not tried here.
/// </summary>
public sealed class StripeTests(ConsoleFixture fixture) : ConsoleTest(fixture)
{
    private const string FakeStripeScript = """
        window.Stripe = key => ({
          elements: ({ clientSecret }) => ({
            secret: clientSecret,
            create: kind => ({ mount: place => { place.innerHTML = `<label>${kind} number <input></label>`; place.dataset.key = key; } }),
          }),
          confirmSetup: async ({ elements }) => {
            const answer = await window.fakeConfirmSetup(elements.secret);
            return answer.startsWith("pm_") ? { setupIntent: { payment_method: answer } } : { error: { message: answer } };
          },
          handleNextAction: async ({ clientSecret }) => {
            const answer = await window.fakeAuthenticate(clientSecret);
            return answer ? { error: { message: answer } } : { paymentIntent: { status: "succeeded" } };
          },
        });
        """;

    private FakeStripe stripe = null!;
    private ConsoleSite site = null!;

    public override async ValueTask InitializeAsync()
    {
        stripe = await FakeStripe.StartAsync(TimeProvider.System);
        site = await ConsoleSite.StartAsync(ConsoleFixture.Directory(), Cancellation,
        [
            "--Tensormesh:Payments:Provider=Stripe", $"--Tensormesh:Payments:StripeSecretKey={FakeStripe.SecretKey}", $"--Tensormesh:Payments:StripeApiBase={stripe.Address}",
            $"--Tensormesh:Payments:StripeWebhookSecret={FakeStripe.WebhookSecret}", "--Tensormesh:Payments:StripePublishableKey=pk_test_of_the_fake",
            "--Tensormesh:Payments:ReconcileSeconds=3600",
        ]);
        stripe.Webhooks.Address = new Uri(site.Address, "/v1/billing/stripe/webhooks");
        await new SampleAccounts(site.Database).OpenAsync(new("acme"), "Acme", "UTC", Cancellation);
    }

    public override async ValueTask DisposeAsync()
    {
        await base.DisposeAsync();
        stripe.Webhooks.Address = null;
        await site.DisposeAsync();
        await stripe.DisposeAsync();
        GC.SuppressFinalize(this);
    }

    [Fact]
    public async Task A_card_is_entered_in_Stripes_form_and_one_that_its_bank_asks_about_pays_once_its_holder_agreed()
    {
        var (token, agrees) = ("declined", true);
        var page = await site.SignInAsync(Fixture.Chromium, "acme", path: "/billing/payment-methods");
        CloseAtTheEnd(page);
        var policyBroken = new List<string>();
        page.Console += (_, message) =>
        {
            if (message.Text.Contains("Content Security Policy", StringComparison.Ordinal)) policyBroken.Add(message.Text);
        };
        await page.RouteAsync("https://js.stripe.com/**", route => route.FulfillAsync(new() { ContentType = "text/javascript", Body = FakeStripeScript }));
        await page.ExposeFunctionAsync("fakeConfirmSetup", (string secret) => token == "declined" ? "Your card number is incorrect." : stripe.Books.ConfirmSetup(secret.Split("_secret_")[0], token));
        await page.ExposeFunctionAsync("fakeAuthenticate", (string secret) =>
        {
            if (!agrees) return "You did not confirm the payment.";
            stripe.Books.Authenticate(secret.Split("_secret_")[0], agrees: true);
            return "";
        });

        await page.GetByRole(AriaRole.Button, new() { Name = "Add Card" }).ClickAsync();
        var dialog = page.GetByRole(AriaRole.Dialog);
        await dialog.GetByLabel("payment number").FillAsync("4000");
        Assert.Equal("pk_test_of_the_fake", await page.Locator("#card-form").GetAttributeAsync("data-key"));
        await dialog.GetByRole(AriaRole.Button, new() { Name = "Add Card" }).ClickAsync();
        await Expect(dialog.Locator("[data-test=problem]")).ToContainTextAsync("Your card number is incorrect.");
        token = "pm_card_authenticationRequired";
        await dialog.GetByRole(AriaRole.Button, new() { Name = "Add Card" }).ClickAsync();
        await Expect(Test(page, "card")).ToContainTextAsync("3184");

        await page.GetByRole(AriaRole.Link, new() { Name = "Overview" }).ClickAsync();
        dialog = await PreparePaymentAsync(page, "40");
        await dialog.GetByRole(AriaRole.Button, new() { Name = "Pay $40.00" }).ClickAsync();
        await Expect(dialog.Locator("[data-test=authenticate]")).ToContainTextAsync("asks you to confirm this payment. Nothing is charged until you do");
        agrees = false;
        await dialog.GetByRole(AriaRole.Button, new() { Name = "Confirm with your bank" }).ClickAsync();
        await Expect(dialog.Locator("[data-test=problem]")).ToContainTextAsync("You did not confirm the payment.");
        Assert.Equal("0.00", await AmountAsync(Test(page, "balance")));
        agrees = true;
        await dialog.GetByRole(AriaRole.Button, new() { Name = "Confirm with your bank" }).ClickAsync();
        await Expect(Test(page, "balance").Locator(".amount")).ToHaveAttributeAsync("data-amount", "40.00");
        Assert.Equal(4_000, stripe.Books.NetCents);
        Assert.Empty(policyBroken);
    }

    [Fact]
    public async Task A_payment_that_nobody_knows_the_end_of_is_asked_for_again_and_charged_once()
    {
        var page = await site.SignInAsync(Fixture.Chromium, "acme", path: "/billing/payment-methods");
        CloseAtTheEnd(page);
        await page.RouteAsync("https://js.stripe.com/**", route => route.FulfillAsync(new() { ContentType = "text/javascript", Body = FakeStripeScript }));
        await page.ExposeFunctionAsync("fakeConfirmSetup", (string secret) => stripe.Books.ConfirmSetup(secret.Split("_secret_")[0], "pm_card_visa"));
        await page.GetByRole(AriaRole.Button, new() { Name = "Add Card" }).ClickAsync();
        await page.GetByRole(AriaRole.Dialog).GetByLabel("payment number").FillAsync("4242");
        await page.GetByRole(AriaRole.Dialog).GetByRole(AriaRole.Button, new() { Name = "Add Card" }).ClickAsync();
        await Expect(Test(page, "card")).ToHaveCountAsync(1);
        await page.GetByRole(AriaRole.Link, new() { Name = "Overview" }).ClickAsync();
        var dialog = await PreparePaymentAsync(page, "15");
        // The company's books hear of nothing by another way meanwhile.
        stripe.Webhooks.Address = null;
        stripe.Next(FakeStripeFault.ResetAfter, "/v1/payment_intents", times: 3);
        await dialog.GetByRole(AriaRole.Button, new() { Name = "Pay $15.00" }).ClickAsync();
        await Expect(dialog.Locator("[data-test=problem]")).ToContainTextAsync("not known whether", new() { Timeout = 60_000 });
        Assert.Equal(1_500, stripe.Books.NetCents);
        await dialog.GetByRole(AriaRole.Button, new() { Name = "Try again" }).ClickAsync();
        await Expect(Test(page, "balance").Locator(".amount")).ToHaveAttributeAsync("data-amount", "15.00", new() { Timeout = 60_000 });
        Assert.Equal((1_500L, 1), (stripe.Books.NetCents, stripe.Books.SucceededPayments));
    }

    [Fact]
    public async Task Where_the_form_cannot_be_loaded_that_is_said()
    {
        var page = await site.SignInAsync(Fixture.Chromium, "acme", path: "/billing/payment-methods");
        CloseAtTheEnd(page);
        await page.RouteAsync("https://js.stripe.com/**", route => route.AbortAsync());
        await page.GetByRole(AriaRole.Button, new() { Name = "Add Card" }).ClickAsync();
        await Expect(page.GetByRole(AriaRole.Dialog).Locator("[data-test=problem]")).ToContainTextAsync("could not be loaded");
        await Expect(page.GetByRole(AriaRole.Dialog).GetByRole(AriaRole.Button, new() { Name = "Add Card" })).ToBeDisabledAsync();
        Assert.Equal(0, await new Accounts(site.Database).ReadStandingAsync(new("acme"), Cancellation) is { } standing ? standing.Cards.Cards.Count : -1);
    }
}
