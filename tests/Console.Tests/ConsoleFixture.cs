using Microsoft.Playwright;
using Tensormesh.TestKit;

namespace Tensormesh.Console.Tests;

[CollectionDefinition(Name)]
public sealed class ConsoleSuite : ICollectionFixture<ConsoleFixture>
{
    public const string Name = "console";
}

/// <summary>The real server, a real Postgres with the sample accounts in it, and a real browser.</summary>
public sealed class ConsoleFixture : IAsyncLifetime
{
    private static int servers;

    public ConsoleSite Site { get; private set; } = null!;
    public Chromium Chromium { get; private set; } = null!;
    public SampleAccounts Sample { get; private set; } = null!;

    /// <summary>The same few names in each run: what a killed run left running is stopped by the next.</summary>
    public static string Directory() => Path.Combine(
        AppContext.BaseDirectory, "sites", Interlocked.Increment(ref servers).ToString(System.Globalization.CultureInfo.InvariantCulture));

    public async ValueTask InitializeAsync()
    {
        Site = await ConsoleSite.StartAsync(Directory(), CancellationToken.None);
        Chromium = await Chromium.StartAsync(System.Console.WriteLine, CancellationToken.None);
        Sample = new SampleAccounts(Site.Database);
        await Sample.MakeAsync(TimeProvider.System.GetUtcNow(), CancellationToken.None);
    }

    public async ValueTask DisposeAsync()
    {
        await Chromium.DisposeAsync();
        // What went wrong on a page without anybody looking for it.
        var faults = (await File.ReadAllLinesAsync(Site.WebLog)).SkipWhile(line => !line.StartsWith("fail:", StringComparison.Ordinal) && !line.Contains("nhandled exception", StringComparison.Ordinal)).Take(40).ToArray();
        await Site.DisposeAsync();
        Assert.True(faults.Length == 0, string.Join('\n', faults));
    }
}

/// <summary>What tests of the console do often.</summary>
[Collection(ConsoleSuite.Name)]
public abstract class ConsoleTest(ConsoleFixture fixture) : IAsyncLifetime
{
    private readonly List<IPage> pages = [];

    protected ConsoleFixture Fixture { get; } = fixture;
    protected ConsoleSite Site => Fixture.Site;

    protected static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    public virtual ValueTask InitializeAsync() => ValueTask.CompletedTask;

    public virtual async ValueTask DisposeAsync()
    {
        foreach (var page in pages) await page.Context.CloseAsync();
        GC.SuppressFinalize(this);
    }

    protected async Task<IPage> OpenAsync(string account, string path = "/billing", string role = "USER/OWNER", BrowserNewContextOptions? options = null)
    {
        var page = await Site.SignInAsync(Fixture.Chromium, account, role, options, path);
        pages.Add(page);
        page.SetDefaultTimeout(15_000);
        return page;
    }

    protected void CloseAtTheEnd(IPage page) => pages.Add(page);

    /// <summary>An account that no other test uses.</summary>
    protected async Task<string> NewAccountAsync(string timeZone = "UTC")
    {
        var account = $"team-{Guid.NewGuid().ToString("n")[..10]}";
        await Fixture.Sample.OpenAsync(new(account), account, timeZone, Cancellation);
        return account;
    }

    /// <summary>Adds a sandbox card by its last four digits, as a person does.</summary>
    protected static async Task AddCardAsync(IPage page, string last4)
    {
        await page.GetByRole(AriaRole.Button, new() { Name = "Add Card" }).ClickAsync();
        var dialog = page.GetByRole(AriaRole.Dialog);
        await dialog.GetByText($"ending {last4}").ClickAsync();
        await dialog.GetByRole(AriaRole.Button, new() { Name = "Add Card" }).ClickAsync();
    }

    /// <summary>Adds balance up to the last step, which charges.</summary>
    protected static async Task<ILocator> PreparePaymentAsync(IPage page, string amount, string? card = null)
    {
        await page.GetByRole(AriaRole.Button, new() { Name = "Add Balance" }).ClickAsync();
        var dialog = page.GetByRole(AriaRole.Dialog);
        await dialog.GetByLabel("Amount in US dollars").FillAsync(amount);
        if (card is not null) await dialog.GetByLabel("Card", new() { Exact = true }).SelectOptionAsync(card);
        await dialog.GetByRole(AriaRole.Button, new() { Name = "Continue" }).ClickAsync();
        return dialog;
    }

    /// <summary>The exact amount behind what is shown.</summary>
    protected static async Task<string> AmountAsync(ILocator within)
        => await within.Locator(".amount").First.GetAttributeAsync("data-amount") ?? throw new InvalidOperationException("no amount is shown there");

    protected static ILocator Test(IPage page, string name) => page.Locator($"[data-test={name}]");
}
