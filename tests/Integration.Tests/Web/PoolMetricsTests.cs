using System.Diagnostics;
using System.Globalization;
using System.Net;
using Npgsql;
using Tensormesh.Integration.Tests.Billing;
using Tensormesh.TestKit;

namespace Tensormesh.Integration.Tests.Web;

/// <summary>How full the pool is, as a scraper sees it: by a process of its own, since the driver counts all pools of a process together.</summary>
public sealed class PoolMetricsTests(PostgresFixture postgres) : BillingTest(postgres)
{
    private const int PoolSize = 3;
    private const string Balance = "/v1/billing/balance";

    private readonly string log = Path.Combine(Path.GetTempPath(), $"tensormesh-web-{Guid.NewGuid():n}.log");
    private readonly HttpClient http = new();
    private Uri metrics = null!;
    private Process web = null!;
    private WebClient customer = null!;

    public override async ValueTask InitializeAsync()
    {
        await base.InitializeAsync();
        var ports = FreePorts.Take(2);
        var url = new Uri($"http://127.0.0.1:{ports[0]}/");
        metrics = new Uri($"http://127.0.0.1:{ports[1]}/metrics");
        var database = new NpgsqlConnectionStringBuilder(Database.ConnectionString) { MaxPoolSize = PoolSize, Timeout = 5 };
        web = await ProcessLauncher.StartAsync(log, "dotnet",
        [
            Repository.Executable("Tensormesh.Web", "tensormesh-web"), $"--ConnectionStrings:Billing={database}",
            $"--Tensormesh:DevelopmentSigningKey={WebServer.SigningKey}", $"--Tensormesh:Urls={url}",
            $"--Tensormesh:MetricsUrl={metrics.GetLeftPart(UriPartial.Authority)}", "--Tensormesh:AutoTopUpSeconds=3600", "--Tensormesh:UsageSeconds=3600",
        ]);
        customer = new WebClient(url, WebServer.Token(Acme.Value, "USER"));
        await Eventually.SeeAsync(async () =>
        {
            Assert.False(web.HasExited, "it ended");
            try
            {
                return (await http.GetAsync(new Uri(url, "healthz"), Cancellation)).IsSuccessStatusCode && await ReadAsync() is not null;
            }
            catch (HttpRequestException)
            {
                return false;
            }
        }, up => up, _ => File.ReadAllText(log));
    }

    public override async ValueTask DisposeAsync()
    {
        web.Kill();
        await web.WaitForExitAsync(CancellationToken.None);
        web.Dispose();
        http.Dispose();
        File.Delete(log);
        await base.DisposeAsync();
        GC.SuppressFinalize(this);
    }

    [Fact]
    public async Task The_gauge_shows_a_pool_in_use_exhausted_and_idle()
    {
        await OpenAsync(Acme, "1.00");
        // The server looks for low balances once as it starts, and that takes a connection too.
        await Eventually.SeeAsync(FirstRoundIsOverAsync, over => over, _ => File.ReadAllText(log));
        // The first connection of a process takes the longest, on a busy machine longer than anyone waits.
        await Eventually.SeeAsync(() => customer.GetAsync(Balance), answer => answer.Status == HttpStatusCode.OK, answer => answer.Text);
        await SeeAsync(busy: 0, idle: 1);

        // Whoever asks for a balance waits from here on, and keeps its connection.
        var closed = await Database.OpenConnectionAsync(Cancellation);
        await using var transaction = await closed.BeginTransactionAsync(Cancellation);
        await using (var command = new NpgsqlCommand("lock table account in access exclusive mode", closed)) await command.ExecuteNonQueryAsync(Cancellation);
        var waiting = Enumerable.Range(0, PoolSize - 1).Select(_ => customer.GetAsync(Balance)).ToList();
        await SeeAsync(busy: PoolSize - 1, idle: 0);
        waiting.Add(customer.GetAsync(Balance));
        await SeeAsync(busy: PoolSize, idle: 0);

        (await customer.GetAsync(Balance)).Problem(HttpStatusCode.ServiceUnavailable, "ledger-unavailable");
        await SeeAsync(busy: PoolSize, idle: 0);

        await transaction.CommitAsync(Cancellation);
        await closed.DisposeAsync();
        foreach (var answer in await Task.WhenAll(waiting)) answer.Ok();
        await SeeAsync(busy: 0, idle: PoolSize);
    }

    private async Task SeeAsync(int busy, int idle) => await Eventually.SeeAsync(ReadAsync, seen => seen == (busy, idle));

    private async Task<bool> FirstRoundIsOverAsync() =>
        (await http.GetStringAsync(metrics, Cancellation)).Contains("tensormesh_auto_top_up_accounts{", StringComparison.Ordinal)
        || (await File.ReadAllTextAsync(log, Cancellation)).Contains("round of automatic top-ups failed", StringComparison.Ordinal);

    /// <summary>Null where the gauge is not there.</summary>
    private async Task<(int Busy, int Idle)?> ReadAsync()
    {
        var lines = (await http.GetStringAsync(metrics, Cancellation)).Split('\n');
        int? Value(string state) => lines.FirstOrDefault(line => line.StartsWith(
            $$"""tensormesh_ledger_connections{state="{{state}}"} """, StringComparison.Ordinal)) is { } line
            ? int.Parse(line[(line.LastIndexOf(' ') + 1)..], CultureInfo.InvariantCulture) : null;
        return Value("busy") is { } busy && Value("idle") is { } idle ? (busy, idle) : null;
    }
}
