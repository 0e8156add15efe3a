using System.Diagnostics;
using System.Globalization;
using System.Net.Http.Headers;
using System.Text;
using Microsoft.Extensions.DependencyInjection;
using Tensormesh.Billing;
using Tensormesh.TestKit;
using Tensormesh.Web;

namespace Tensormesh.Integration.Tests.Web;

/// <summary>Two servers as processes of their own are killed (SIGKILL) at random instants, and begun again, while clients send every batch until it is answered.</summary>
[Collection(WebSuite.Name)]
public sealed class IngestCrashTests(WebServer server)
{
    private const int Kills = 10;
    private const int Clients = 4;
    private const int EventsPerBatch = 300;
    private const string Model = "crash/model";
    private static readonly TokenPrice Price = new(Model, new(600_000_001), new(2_400_000_001), new(60_000_001));
    private static readonly TimeSpan Glance = TimeSpan.FromMilliseconds(50);

    private readonly WebServer server = server;

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Servers_that_are_killed_again_and_again_under_load_lose_no_event_and_charge_none_twice()
    {
        await server.Services.GetRequiredService<Prices>().PublishAsync("crash-tests", new Dictionary<GpuProduct, Money>(), [Price], DateTimeOffset.UtcNow, Cancellation);
        var account = await server.OpenAccountAsync();
        (await server.As("ops", "ADMIN").AddBalanceAsync(account, "1000")).Ok();
        var addresses = FreePorts.Take(2).Select(port => new Uri($"http://127.0.0.1:{port}")).ToArray();
        var processes = await Task.WhenAll(addresses.Select(StartAsync));
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(Cancellation);
        var clients = Enumerable.Range(0, Clients).Select(client => Task.Run(() => SendAsync(client, account, addresses, stop.Token), Cancellation)).ToArray();
        try
        {
            for (var kill = 0; kill < Kills; kill++)
            {
                // At an instant that nobody chose, once both have been at work.
                await Task.Delay(TimeSpan.FromMilliseconds(Random.Shared.Next(100, 1500)), Cancellation);
                var victim = kill % 2;
                processes[victim].Kill();
                await processes[victim].WaitForExitAsync(Cancellation);
                processes[victim] = await StartAsync(addresses[victim]);
            }

            // Each client ends with a batch that was answered.
            await stop.CancelAsync();
            var sent = (await Task.WhenAll(clients)).Aggregate((Events: 0, Tokens: default(TokenTotals), Again: 0), (sum, one) => (sum.Events + one.Events, sum.Tokens + one.Tokens, sum.Again + one.Again));
            Assert.True(sent.Events > EventsPerBatch * Clients, "hardly anything was sent");
            Assert.True(sent.Again > 0, "no batch had to be sent again: nothing was killed at work");
            var report = (await server.Services.GetRequiredService<ServerlessUsage>().ReadAsync(new(account), null, Cancellation))!;
            Assert.Equal((sent.Events, sent.Tokens, TokenRating.Due(sent.Tokens, Price)), ((int)report.Models.Single().Events, report.Tokens, report.Cost));
        }
        finally
        {
            await stop.CancelAsync();
            foreach (var process in processes)
            {
                if (!process.HasExited) process.Kill();
                process.Dispose();
            }
        }
    }

    /// <summary>Sends batch after batch, each until it is answered, to the one server or the other.</summary>
    private static async Task<(int Events, TokenTotals Tokens, int Again)> SendAsync(int client, string account, Uri[] addresses, CancellationToken stop)
    {
        using var http = new HttpClient { Timeout = TimeSpan.FromSeconds(20) };
        http.DefaultRequestHeaders.Authorization = new AuthenticationHeaderValue("Bearer", WebServer.Token("ops", "ADMIN"));
        var (random, events, tokens, again) = (new Random(client), 0, default(TokenTotals), 0);
        for (var batch = 0; !stop.IsCancellationRequested; batch++)
        {
            var now = DateTimeOffset.UtcNow.ToString("yyyy-MM-dd'T'HH:mm:ss.ffffff'Z'", CultureInfo.InvariantCulture);
            var text = new StringBuilder();
            var sum = default(TokenTotals);
            for (var i = 0; i < EventsPerBatch; i++)
            {
                var input = random.Next(1, 10_000);
                var one = new TokenTotals(input, random.Next(input), random.Next(1_000));
                sum += one;
                text.Append(CultureInfo.InvariantCulture,
                    $$$"""{"specversion":"1.0","id":"{{{client}}}-{{{batch}}}-{{{i}}}","source":"/crash/{{{account}}}","type":"{{{CloudEventReader.EventType}}}","time":"{{{now}}}","data":{"account":"{{{account}}}","model":"{{{Model}}}","inputTokens":{{{one.Input}}},"cachedTokens":{{{one.Cached}}},"outputTokens":{{{one.Output}}}}}""").Append('\n');
            }

            var tries = 0;
            while (!await TryAsync(http, addresses[random.Next(addresses.Length)], text.ToString()))
            {
                tries++;
                await Task.Delay(Glance, Cancellation);
            }

            (events, tokens, again) = (events + EventsPerBatch, tokens + sum, again + tries);
        }

        return (events, tokens, again);
    }

    private static async Task<bool> TryAsync(HttpClient http, Uri address, string lines)
    {
        try
        {
            using var content = new StringContent(lines, Encoding.UTF8, UsageApi.Lines);
            using var response = await http.PostAsync(new Uri(address, "/v1/usage/events"), content, Cancellation);
            if (!response.IsSuccessStatusCode) return false;
            Assert.DoesNotContain("REJECTED", await response.Content.ReadAsStringAsync(Cancellation), StringComparison.Ordinal);
            return true;
        }
        catch (Exception lost) when (lost is HttpRequestException or IOException or TaskCanceledException { InnerException: TimeoutException })
        {
            return false;
        }
    }

    private async Task<Process> StartAsync(Uri address)
    {
        var log = Path.Combine(AppContext.BaseDirectory, FormattableString.Invariant($"ingest-crash-{address.Port}.log"));
        var process = await ProcessLauncher.StartAsync(log, "dotnet",
        [
            Repository.Executable("Tensormesh.Web", "tensormesh-web"), $"--ConnectionStrings:Billing={server.Database}",
            $"--Tensormesh:DevelopmentSigningKey={WebServer.SigningKey}", $"--Tensormesh:Urls={address.GetLeftPart(UriPartial.Authority)}",
        ]);
        using var http = new HttpClient();
        await Eventually.SeeAsync(async () =>
        {
            try
            {
                using var answer = await http.GetAsync(new Uri(address, "/readyz"), Cancellation);
                return answer.IsSuccessStatusCode;
            }
            catch (HttpRequestException)
            {
                return false;
            }
        }, ready => ready);
        return process;
    }
}
