using System.Diagnostics;
using System.Net.Http.Headers;
using System.Text.Json;
using Microsoft.Playwright;
using Npgsql;
using Tensormesh.Billing;

namespace Tensormesh.TestKit;

/// <summary>The real server as a process of its own, with the console's development sign-in, in front of a real Postgres of its own.</summary>
public sealed class ConsoleSite : IAsyncDisposable
{
    private const string SigningKey = "the-console-is-tried-with-this-key-only";
    private static readonly TimeSpan StartLimit = TimeSpan.FromMinutes(2);

    private readonly PostgresServer postgres;
    private readonly string directory;
    /// <summary>Its certificate is one of ours.</summary>
    private readonly HttpClient http = new(new HttpClientHandler { ServerCertificateCustomValidationCallback = HttpClientHandler.DangerousAcceptAnyServerCertificateValidator });
    private IReadOnlyList<string> settings = [];
    private IReadOnlyList<string> environment = [];
    private Process? web;

    private ConsoleSite(PostgresServer postgres, string directory, string connectionString, Uri address)
        => (this.postgres, this.directory, ConnectionString, Address, Database) = (postgres, directory, connectionString, address, BillingServices.OpenDataSource(connectionString));

    public PostgresServer Postgres => postgres;

    public Uri Address { get; }

    public string ConnectionString { get; }

    public NpgsqlDataSource Database { get; }

    public int WebPid => web!.Id;

    public string WebLog => Path.Combine(directory, "web.log");

    /// <param name="directory">Of the caller's; emptied at the end.</param>
    /// <param name="settings">Of the server, besides those that it needs: <c>--Tensormesh:Name=value</c>.</param>
    /// <param name="certificate">PKCS #12 without a password: the site is served over TLS with it. Null: in clear.</param>
    /// <param name="environment">Of the server: <c>NAME=value</c>.</param>
    public static async Task<ConsoleSite> StartAsync(
        string directory, CancellationToken cancellation, IReadOnlyList<string>? settings = null, IReadOnlyList<string>? environment = null, byte[]? certificate = null)
    {
        Directory.CreateDirectory(directory);
        var postgres = await PostgresServer.StartAsync(Path.Combine(directory, "postgres"), cancellation);
        var connection = await postgres.CreateDatabaseAsync($"billing_{Guid.NewGuid():n}", cancellation);
        await using (var source = NpgsqlDataSource.Create(connection)) await Migrator.MigrateAsync(source, cancellation);
        var site = new ConsoleSite(postgres, directory, connection, new Uri($"{(certificate is null ? "http" : "https")}://127.0.0.1:{FreePorts.Take(1)[0]}/"));
        if (certificate is not null)
        {
            var file = Path.Combine(directory, "server.pfx");
            await File.WriteAllBytesAsync(file, certificate, cancellation);
            settings = [.. settings ?? [], $"--Kestrel:Certificates:Default:Path={file}", "--Kestrel:Certificates:Default:Password="];
        }

        await site.StartWebAsync(settings ?? [], environment ?? [], cancellation);
        return site;
    }

    /// <summary>Starts the server again, as a rolling update does.</summary>
    public async Task RestartWebAsync(CancellationToken cancellation)
    {
        web!.Kill(entireProcessTree: true);
        await web.WaitForExitAsync(cancellation);
        web.Dispose();
        await StartWebAsync(settings, environment, cancellation);
    }

    /// <summary>A page of somebody who is signed in.</summary>
    /// <param name="role">What the sign-in form offers: <c>USER/OWNER</c>, <c>USER/MEMBER</c>, <c>ADMIN/OWNER</c>.</param>
    public async Task<IPage> SignInAsync(Chromium chromium, string account, string role = "USER/OWNER", BrowserNewContextOptions? options = null, string path = "/billing")
    {
        var context = await chromium.Browser.NewContextAsync(options ?? new() { ViewportSize = new() { Width = 1280, Height = 900 } });
        var page = await context.NewPageAsync();
        await SignInAsync(page, Address, account, role, path);
        return page;
    }

    public static async Task SignInAsync(IPage page, Uri address, string account, string role, string path = "/billing")
    {
        await page.GotoAsync(new Uri(address, path).ToString());
        await page.GetByLabel("Account", new() { Exact = true }).FillAsync(account);
        await page.GetByLabel("As", new() { Exact = true }).SelectOptionAsync(role);
        await page.GetByRole(AriaRole.Button, new() { Name = "Sign in" }).ClickAsync();
        await ComeToAsync(page, new Uri(address, path).ToString());
        await LiveAsync(page);
    }

    /// <summary>
    /// Waits until the page is at this address and has loaded, by its own word: the browser's event of it is told before that of the new document now and then, and is then
    /// waited for in vain.
    /// </summary>
    public static async Task ComeToAsync(IPage page, string url)
    {
        await page.WaitForURLAsync(url, new() { WaitUntil = WaitUntilState.Commit });
        await page.WaitForFunctionAsync("() => document.readyState === 'complete'");
    }

    /// <summary>Waits until the page has its connection, from when on it hears what is done on it.</summary>
    public static Task LiveAsync(IPage page) => page.WaitForFunctionAsync("() => document.documentElement.dataset.live === 'true'");

    public static string Token(string account, string role) => DevelopmentTokens.Issue(SigningKey, account, role, TimeProvider.System.GetUtcNow(), TimeSpan.FromMinutes(10));

    /// <summary>The API's answer to the same question, asked with a bearer token.</summary>
    public async Task<JsonElement> ApiAsync(string account, string path, string role = "USER") => JsonElement.Parse(await ApiTextAsync(account, path, role));

    /// <inheritdoc cref="ApiAsync"/>
    public async Task<string> ApiTextAsync(string account, string path, string role = "USER")
    {
        using var request = new HttpRequestMessage(HttpMethod.Get, new Uri(Address, path));
        request.Headers.Authorization = new AuthenticationHeaderValue(
            "Bearer", DevelopmentTokens.Issue(SigningKey, account, role, TimeProvider.System.GetUtcNow(), TimeSpan.FromMinutes(10)));
        using var answer = await http.SendAsync(request);
        var text = await answer.Content.ReadAsStringAsync();
        return answer.IsSuccessStatusCode ? text : throw new InvalidOperationException($"{path}: {(int)answer.StatusCode} {text}");
    }

    public async ValueTask DisposeAsync()
    {
        if (web is not null)
        {
            if (!web.HasExited) web.Kill(entireProcessTree: true);
            await web.WaitForExitAsync();
            web.Dispose();
        }

        http.Dispose();
        await Database.DisposeAsync();
        await postgres.DisposeAsync();
        if (Directory.Exists(directory)) Directory.Delete(directory, recursive: true);
    }

    private async Task StartWebAsync(IReadOnlyList<string> settings, IReadOnlyList<string> environment, CancellationToken cancellation)
    {
        (this.settings, this.environment) = (settings, environment);
        web = await ProcessLauncher.StartAsync(WebLog, "env",
        [
            .. environment, "dotnet", Repository.Executable("Tensormesh.Web", "tensormesh-web"), $"--ConnectionStrings:Billing={ConnectionString}", $"--Tensormesh:Urls={Address}",
            .. settings.Any(setting => setting.StartsWith("--Tensormesh:Authority", StringComparison.Ordinal))
                ? settings
                : [$"--Tensormesh:DevelopmentSigningKey={SigningKey}", "--Tensormesh:Console:DevelopmentSignIn=true", .. settings],
        ]);
        using var limit = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        limit.CancelAfter(StartLimit);
        while (true)
        {
            if (web.HasExited) throw new InvalidOperationException($"the server ended: {await File.ReadAllTextAsync(WebLog, cancellation)}");
            try
            {
                using var answer = await http.GetAsync(new Uri(Address, "readyz"), limit.Token);
                if (answer.IsSuccessStatusCode) return;
            }
            catch (HttpRequestException)
            {
                // Nobody listens yet.
            }

            await Task.Delay(TimeSpan.FromMilliseconds(50), TimeProvider.System, limit.Token);
        }
    }
}
