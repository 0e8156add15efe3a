using Microsoft.Playwright;

namespace Tensormesh.TestKit;

/// <summary>Debian's Chromium, driven by Playwright. Installed where it is missing.</summary>
public sealed class Chromium : IAsyncDisposable
{
    private readonly IPlaywright playwright;

    private Chromium(IPlaywright playwright, IBrowser browser) => (this.playwright, Browser) = (playwright, browser);

    public IBrowser Browser { get; }

    /// <param name="arguments">Of the browser, besides those that it needs.</param>
    public static async Task<Chromium> StartAsync(Action<string> say, CancellationToken cancellation, params string[] arguments)
    {
        await Prerequisites.EnsureBrowserAsync(say, cancellation);
        var playwright = await Playwright.CreateAsync();
        var browser = await playwright.Chromium.LaunchAsync(new BrowserTypeLaunchOptions
        {
            ExecutablePath = Command.Find("chromium") ?? throw new InvalidOperationException("Chromium is not on the PATH: install it, or its Debian package chromium."),
            // Its sandbox needs rights that root in a container has not; what is opened is our own.
            Args = [.. Environment.IsPrivilegedProcess ? (string[])["--no-sandbox"] : [], .. arguments],
        });
        return new(playwright, browser);
    }

    public async ValueTask DisposeAsync()
    {
        await Browser.DisposeAsync();
        playwright.Dispose();
    }
}
