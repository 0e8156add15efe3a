using Deque.AxeCore.Commons;
using Deque.AxeCore.Playwright;
using Microsoft.Playwright;
using Tensormesh.TestKit;
using static Microsoft.Playwright.Assertions;

namespace Tensormesh.Console.Tests;

/// <summary>Pages that everybody can use: with a keyboard, a screen reader, a small telephone, in the dark, with nothing there and with the ledger away.</summary>
public sealed class LooksTests(ConsoleFixture fixture) : ConsoleTest(fixture)
{
    private static readonly string[] Pages = ["/billing", "/billing/payment-methods", "/billing/transactions", "/billing/serverless-usage", "/deployments", "/accounts"];

    [Theory]
    [InlineData(ColorScheme.Light, 1280)]
    [InlineData(ColorScheme.Dark, 1280)]
    [InlineData(ColorScheme.Light, 320)]
    public async Task Axe_finds_nothing_serious_on_any_page_or_in_any_dialog(ColorScheme scheme, int width)
    {
        var page = await OpenAsync("platform", "/accounts", "ADMIN/OWNER", new() { ViewportSize = new() { Width = width, Height = 900 }, ColorScheme = scheme, ReducedMotion = ReducedMotion.Reduce });
        if (scheme == ColorScheme.Dark) Assert.True(await page.EvaluateAsync<bool>("() => document.documentElement.classList.contains('dark')"));
        foreach (var path in Pages)
        {
            await page.GotoAsync(new Uri(Site.Address, $"{path}?account={SampleAccounts.Customer}").ToString());
            await ConsoleSite.LiveAsync(page);
            await CheckAsync(page, path);
        }

        foreach (var (path, button) in new[]
        {
            ("/billing", "Add Balance"), ("/billing/payment-methods", "Add Card"), ("/billing/payment-methods", "Remove Visa ending 4242"),
            ("/billing/transactions", "Export & statements"), ("/billing/transactions", "Welcome credit"), ("/accounts", $"Grant or adjust {SampleAccounts.Customer}"),
        })
        {
            await page.GotoAsync(new Uri(Site.Address, $"{path}?account={SampleAccounts.Customer}").ToString());
            await ConsoleSite.LiveAsync(page);
            if (button == "Welcome credit") await page.GetByLabel("Type").SelectOptionAsync("CreditGrant");
            await (button == "Welcome credit" ? Test(page, "transaction").First.GetByRole(AriaRole.Button) : page.GetByRole(AriaRole.Button, new() { Name = button })).ClickAsync();
            await Expect(page.GetByRole(AriaRole.Dialog)).ToBeVisibleAsync();
            await CheckAsync(page, $"{path}, {button}");
        }
    }

    [Theory]
    [InlineData(SampleAccounts.Customer)]
    [InlineData(SampleAccounts.LongName)]
    [InlineData(SampleAccounts.Empty)]
    public async Task Nothing_is_wider_than_a_small_telephone(string account)
    {
        var page = await OpenAsync("platform", "/accounts", "ADMIN/OWNER", new() { ViewportSize = new() { Width = 320, Height = 700 }, ReducedMotion = ReducedMotion.Reduce });
        foreach (var path in Pages)
        {
            await page.GotoAsync(new Uri(Site.Address, $"{path}?account={account}").ToString());
            await ConsoleSite.LiveAsync(page);
            await Expect(page.GetByRole(AriaRole.Heading, new() { Level = 1 })).ToBeVisibleAsync();
            // The title may go beyond an edge of its own, which hides it; nothing else may.
            var wide = await page.EvaluateAsync<string[]>(
                "() => document.documentElement.scrollWidth <= 320 ? [] : [...document.querySelectorAll('main *')].filter(one => one.getBoundingClientRect().right > 321).map(one => one.outerHTML.slice(0, 120))");
            Assert.True(wide.Length == 0, $"{path}: {string.Join('\n', wide.Take(5))}");
        }
    }

    [Fact]
    public async Task An_account_without_anything_is_told_what_will_be_there()
    {
        var page = await OpenAsync(SampleAccounts.Empty);
        await Expect(Test(page, "balance").Locator(".amount")).ToHaveAttributeAsync("data-amount", "0.00");
        await Expect(page.GetByText("Nothing was spent in these days")).ToBeVisibleAsync();
        await Expect(page.GetByText("Nothing runs.")).ToBeVisibleAsync();
        foreach (var (path, said) in new[]
        {
            ("/billing/payment-methods", "No card is on file."), ("/billing/transactions", "Top-ups, charges and credits appear here"),
            ("/billing/serverless-usage", "No tokens were used in this period"), ("/deployments", "Apply a GpuDeployment with kubectl"),
        })
        {
            await page.GotoAsync(new Uri(Site.Address, path).ToString());
            await Expect(page.GetByText(said)).ToBeVisibleAsync();
        }

        var nobody = await OpenAsync("nobody-knows-this-account");
        await Expect(nobody.GetByText("The ledger knows no account 'nobody-knows-this-account' yet")).ToBeVisibleAsync();
    }

    [Fact]
    public async Task Everything_is_reached_with_a_keyboard()
    {
        var page = await OpenAsync(SampleAccounts.Customer);
        // The first thing that a keyboard comes to leads past everything that is the same on all pages.
        Assert.Equal("Skip to the content", await page.EvaluateAsync<string>("() => document.querySelector('a[href], button, input, select, [tabindex=\"0\"]').textContent"));
        await page.GetByText("Skip to the content").FocusAsync();
        await Expect(page.GetByText("Skip to the content")).ToBeInViewportAsync();
        await page.Keyboard.PressAsync("Enter");
        for (var i = 0; i < 12 && !await FocusedAsync("Add Balance"); i++) await page.Keyboard.PressAsync("Tab");
        Assert.True(await FocusedAsync("Add Balance"));
        Assert.Equal("/billing", new Uri(page.Url).AbsolutePath);
        await page.Keyboard.PressAsync("Enter");
        var dialog = page.GetByRole(AriaRole.Dialog);
        await page.WaitForFunctionAsync("() => document.activeElement.closest('.mud-dialog-container') !== null");
        for (var i = 0; i < 6 && !await page.EvaluateAsync<bool>("() => document.activeElement.matches('[data-test=amount]')"); i++) await page.Keyboard.PressAsync("Tab");
        await Expect(dialog.GetByLabel("Amount in US dollars")).ToBeFocusedAsync();
        // The focus stays in the dialog.
        for (var i = 0; i < 12; i++)
        {
            await page.Keyboard.PressAsync("Tab");
            Assert.True(await page.EvaluateAsync<bool>("() => document.activeElement.closest('[role=dialog], .mud-overlay, .mud-dialog-container, .mud-focus-trap') !== null"), await page.EvaluateAsync<string>("() => document.activeElement.outerHTML.slice(0, 200)"));
        }

        await page.Keyboard.PressAsync("Escape");
        await Expect(dialog).ToHaveCountAsync(0);

        Task<bool> FocusedAsync(string text) => page.EvaluateAsync<bool>("text => document.activeElement.textContent.includes(text) && document.activeElement.tagName === 'BUTTON'", text);
    }

    [Fact]
    public async Task Money_is_exact_on_hover_and_times_are_the_accounts()
    {
        var page = await OpenAsync(SampleAccounts.Customer, "/billing/transactions");
        var grant = Test(page, "transaction").Filter(new() { HasText = "GPU usage" }).First;
        await Expect(grant).ToBeVisibleAsync();
        var (shown, title, exact) = (
            await grant.Locator(".amount").InnerTextAsync(), await grant.Locator(".amount").GetAttributeAsync("title"), await grant.Locator(".amount").GetAttributeAsync("data-amount"));
        Assert.Matches(@"^-\$\d", shown);
        Assert.Equal(Figures.Number(exact!), Figures.Number(title!.Replace("$", "", StringComparison.Ordinal).Replace(" USD", "", StringComparison.Ordinal)));
        var utc = DateTimeOffset.Parse((await grant.Locator("time").GetAttributeAsync("datetime"))!, System.Globalization.CultureInfo.InvariantCulture);
        var berlin = TimeZoneInfo.ConvertTime(utc, TimeZoneInfo.FindSystemTimeZoneById("Europe/Berlin"));
        Assert.Equal(berlin.ToString("d MMM yyyy, HH:mm", System.Globalization.CultureInfo.InvariantCulture), await grant.Locator("time").InnerTextAsync());
        await Expect(page.GetByText("Times are in Europe/Berlin")).ToBeVisibleAsync();
    }

    [Fact]
    public async Task Colours_are_kept_as_a_person_chose_them()
    {
        var page = await OpenAsync(SampleAccounts.Customer);
        await page.GetByRole(AriaRole.Button, new() { Name = "Dark colours" }).ClickAsync();
        await Expect(page.Locator("html")).ToHaveClassAsync("dark");
        var answer = await page.ReloadAsync();
        // From the first byte on, so that nothing flashes.
        Assert.Contains("<html lang=\"en\" class=\"dark\"", await answer!.TextAsync(), StringComparison.Ordinal);
        await ConsoleSite.LiveAsync(page);
        await Expect(page.GetByRole(AriaRole.Button, new() { Name = "Light colours" })).ToBeVisibleAsync();
    }

    [Fact]
    public async Task While_the_ledger_is_away_the_page_says_so_and_comes_back_by_itself()
    {
        await using var site = await ConsoleSite.StartAsync(ConsoleFixture.Directory(), Cancellation);
        await new SampleAccounts(site.Database).OpenAsync(new("acme"), "Acme", "UTC", Cancellation);
        var page = await site.SignInAsync(Fixture.Chromium, "acme");
        CloseAtTheEnd(page);
        await Expect(Test(page, "balance")).ToBeVisibleAsync();
        await site.Postgres.StopAsync();
        await Expect(page.GetByText("The ledger cannot be reached at this moment")).ToBeVisibleAsync(new() { Timeout = 30_000 });
        await site.Postgres.RestartAsync();
        await Expect(Test(page, "balance")).ToBeVisibleAsync(new() { Timeout = 30_000 });
    }

    private static async Task CheckAsync(IPage page, string where)
    {
        // What fades in has its colours when it is there.
        await page.WaitForFunctionAsync("() => document.getAnimations().every(one => one.playState !== 'running' || one.effect.getTiming().iterations === Infinity)");
        var found = await page.RunAxe(new AxeRunOptions { ResultTypes = [ResultType.Violations] });
        var serious = found.Violations.Where(each => each.Impact is "serious" or "critical").ToArray();
        Assert.True(serious.Length == 0, $"{where}: {string.Join('\n', serious.Select(each => $"{each.Id}: {each.Help}: {string.Join(" | ", each.Nodes.Take(3).Select(node => node.Html + " " + string.Join(',', node.Any.Select(check => check.Message))))}"))}");
    }
}
