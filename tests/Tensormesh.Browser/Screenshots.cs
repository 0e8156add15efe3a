using Microsoft.Playwright;

namespace Tensormesh.TestKit;

/// <summary>Pictures of every page of the console, with the sample accounts: light, dark and as narrow as a small telephone.</summary>
public static class Screenshots
{
    private static readonly (string Name, string Account, string Role, string Path, Func<IPage, Task>? Do)[] Pages =
    [
        ("overview", SampleAccounts.Customer, "USER/OWNER", "/billing", null),
        ("add-balance", SampleAccounts.Customer, "USER/OWNER", "/billing", page => OpenAsync(page.GetByRole(AriaRole.Button, new() { Name = "Add Balance" }))),
        ("payment-methods", SampleAccounts.Customer, "USER/OWNER", "/billing/payment-methods", null),
        ("transactions", SampleAccounts.Customer, "USER/OWNER", "/billing/transactions", null),
        ("transaction", SampleAccounts.Customer, "USER/OWNER", "/billing/transactions", page => OpenAsync(page.Locator("[data-test=transaction]").Filter(new() { HasText = "GPU usage" }).First)),
        ("serverless-usage", SampleAccounts.Customer, "USER/OWNER", "/billing/serverless-usage", null),
        ("deployments", SampleAccounts.Customer, "USER/OWNER", "/deployments", null),
        ("accounts", "platform", "ADMIN/OWNER", "/accounts", null),
    ];

    private static readonly (string Name, int Width, int Height, ColorScheme Scheme)[] Looks =
        [("light", 1280, 900, ColorScheme.Light), ("dark", 1280, 900, ColorScheme.Dark), ("narrow", 320, 780, ColorScheme.Light)];

    private const int LongestPicture = 1400;

    /// <param name="folder">Made if missing.</param>
    public static async Task TakeAsync(string folder, Action<string> say, CancellationToken cancellation)
    {
        Directory.CreateDirectory(folder);
        var directory = Directory.CreateTempSubdirectory("tensormesh-screenshots-").FullName;
        await using var site = await ConsoleSite.StartAsync(directory, cancellation);
        await new SampleAccounts(site.Database).MakeAsync(TimeProvider.System.GetUtcNow(), cancellation);
        await using var chromium = await Chromium.StartAsync(say, cancellation);
        foreach (var (look, width, height, scheme) in Looks)
        {
            foreach (var (name, account, role, path, act) in Pages)
            {
                cancellation.ThrowIfCancellationRequested();
                var page = await site.SignInAsync(
                    chromium, account, role, new() { ViewportSize = new() { Width = width, Height = height }, ColorScheme = scheme, ReducedMotion = ReducedMotion.Reduce }, path);
                await page.GetByRole(AriaRole.Heading, new() { Level = 1 }).BlurAsync();
                if (path == "/billing") await page.Locator("[data-test=balance]").WaitForAsync();
                if (act is not null)
                {
                    await act(page);
                }
                else if (look != "narrow")
                {
                    // All of the page, as long as it is not longer than anybody looks at in a README.
                    var full = await page.EvaluateAsync<int>("() => document.documentElement.scrollHeight");
                    await page.SetViewportSizeAsync(width, Math.Clamp(full, height, LongestPicture));
                    // A chart is drawn anew for the size that it has.
                    if (await page.Locator(".chart svg").CountAsync() > 0) await page.Locator(".chart svg .mud-chart-bar").First.WaitForAsync(new() { State = WaitForSelectorState.Attached });
                }

                await page.ScreenshotAsync(new() { Path = Path.Combine(folder, $"{name}-{look}.png"), Animations = ScreenshotAnimations.Disabled });
                say($"{name}-{look}.png");
                await page.Context.CloseAsync();
            }
        }
    }

    private static async Task OpenAsync(ILocator opener)
    {
        await opener.ClickAsync();
        await opener.Page.GetByRole(AriaRole.Dialog).WaitForAsync();
        await opener.Page.WaitForFunctionAsync("() => document.querySelector('[role=dialog] .loading') === null");
    }
}
