using System.Diagnostics;
using System.Globalization;
using System.Net.Http.Headers;
using System.Text;
using Npgsql;
using Tensormesh.Billing;
using Tensormesh.TestKit;

namespace Tensormesh.Benchmarks;

/// <summary>The Web API as a process of its own on a database with customers and prices of tokens, and usage to send to it.</summary>
internal sealed class UsageLoad : IAsyncDisposable
{
    public const int Accounts = 200;
    public const int Models = 10;
    public const string Batch = "application/cloudevents-batch+json";
    private const string SigningKey = "benchmarks-sign-with-this-key-and-no-other";
    private static readonly TimeSpan Glance = TimeSpan.FromMilliseconds(100);

    private readonly string log;
    private readonly Process web;

    private UsageLoad(HttpClient http, Process web, string log)
    {
        (Http, this.web, this.log) = (http, web, log);
        Http.DefaultRequestHeaders.Authorization = new AuthenticationHeaderValue("Bearer", Token("ops", "ADMIN"));
    }

    public HttpClient Http { get; }

    public int ProcessId => web.Id;

    public static string Account(int number) => FormattableString.Invariant($"account-{number}");

    public static string Model(int number) => FormattableString.Invariant($"vendor/model-{number}-instruct");

    /// <summary>Customers with money, and prices from long ago on.</summary>
    public static async Task OpenAccountsAsync(NpgsqlDataSource database, CancellationToken cancellation)
    {
        var (accounts, ledger) = (new Accounts(database), new Ledger(database));
        for (var i = 0; i < Accounts; i++)
        {
            var account = new AccountId(Account(i));
            await accounts.DeclareAsync(account, new AccountPolicy(account.Value, null, null, "UTC"), cancellation);
            await ledger.PostAsync(Movements.CreditGrant(account, Money.FromUnits(1_000_000), "bench", "bench", "bench"), cancellation);
        }

        var prices = Enumerable.Range(0, Models).Select(i => new TokenPrice(Model(i), new(600_000_000 + i), new(2_400_000_000 + i), new(60_000_000 + i))).ToArray();
        await new Prices(database).PublishAsync("bench", new Dictionary<GpuProduct, Money>(), prices, TimeProvider.System.GetUtcNow().AddDays(-60), cancellation);
    }

    public static async Task<UsageLoad> StartAsync(string connectionString, CancellationToken cancellation)
    {
        var url = new Uri($"http://127.0.0.1:{FreePorts.Take(1)[0]}");
        var log = Path.Combine(Path.GetTempPath(), $"tensormesh-web-{Guid.NewGuid():n}.log");
        var web = await ProcessLauncher.StartAsync(log, "dotnet",
        [
            Repository.Executable("Tensormesh.Web", "tensormesh-web"), $"--ConnectionStrings:Billing={connectionString}",
            $"--Tensormesh:DevelopmentSigningKey={SigningKey}", $"--Tensormesh:Urls={url.GetLeftPart(UriPartial.Authority)}",
            "--Tensormesh:RequestsPerSecond=100000", "--Tensormesh:RequestBurst=100000",
        ]);
        var load = new UsageLoad(new HttpClient { BaseAddress = url, Timeout = TimeSpan.FromMinutes(2) }, web, log);
        await ReadyAsync(load.Http, web, log, cancellation);
        return load;
    }

    /// <summary>Returns once the Web API serves.</summary>
    /// <exception cref="InvalidOperationException">It ended instead: with what it said.</exception>
    public static async Task ReadyAsync(HttpClient http, Process web, string log, CancellationToken cancellation)
    {
        while (true)
        {
            if (web.HasExited) throw new InvalidOperationException(await File.ReadAllTextAsync(log, cancellation));
            try
            {
                using var answer = await http.GetAsync(new Uri("/readyz", UriKind.Relative), cancellation);
                if (answer.IsSuccessStatusCode) return;
            }
            catch (HttpRequestException)
            {
                // It does not listen yet.
            }

            await Task.Delay(Glance, cancellation);
        }
    }

    /// <summary>Events of now, of random customers and models, with random ids, as a gateway would report them.</summary>
    public static UsageEvent[] Make(int count, Random random)
    {
        var now = TimeProvider.System.GetUtcNow();
        return [.. Enumerable.Range(0, count).Select(_ =>
        {
            var input = random.Next(10, 20_000);
            return new UsageEvent(
                FormattableString.Invariant($"/inference/gateway-{random.Next(4)}"), $"chatcmpl-{Guid.NewGuid():n}", new(Account(random.Next(Accounts))), Model(random.Next(Models)),
                now.AddMilliseconds(-random.Next(60_000)).ToLedgerTime(), input, random.Next(input), random.Next(1, 2_000));
        })];
    }

    public static byte[] Json(IReadOnlyList<UsageEvent> events)
    {
        var text = new StringBuilder("[");
        foreach (var usage in events)
        {
            if (text.Length > 1) text.Append(',');
            text.Append(CultureInfo.InvariantCulture,
                $$$"""{"specversion":"1.0","id":"{{{usage.Id}}}","source":"{{{usage.Source}}}","type":"ai.tensormesh.serverless.usage.v1","time":"{{{usage.At:yyyy-MM-dd'T'HH:mm:ss.ffffff'Z'}}}","data":{"account":"{{{usage.Account}}}","model":"{{{usage.Model}}}","inputTokens":{{{usage.Input}}},"cachedTokens":{{{usage.Cached}}},"outputTokens":{{{usage.Output}}}}}""");
        }

        return Encoding.UTF8.GetBytes(text.Append(']').ToString());
    }

    /// <summary>Sends a batch until it is taken.</summary>
    /// <returns>How many of it were accepted.</returns>
    public async Task<int> SendAsync(byte[] batch, CancellationToken cancellation)
    {
        while (true)
        {
            using var content = new ByteArrayContent(batch);
            content.Headers.ContentType = new MediaTypeHeaderValue(Batch);
            using var response = await Http.PostAsync(new Uri("/v1/usage/events", UriKind.Relative), content, cancellation);
            var text = await response.Content.ReadAsByteArrayAsync(cancellation);
            if (response.IsSuccessStatusCode) return System.Text.Json.JsonDocument.Parse(text).RootElement.GetProperty("accepted").GetInt32();
            if ((int)response.StatusCode != 429) throw new InvalidOperationException($"{(int)response.StatusCode} {Encoding.UTF8.GetString(text)}");
            await Task.Delay(response.Headers.RetryAfter?.Delta ?? Glance, cancellation);
        }
    }

    public static string Token(string account, string role)
        => DevelopmentTokens.Issue(SigningKey, account, role, TimeProvider.System.GetUtcNow(), TimeSpan.FromHours(3));

    public async ValueTask DisposeAsync()
    {
        web.Kill();
        await web.WaitForExitAsync(CancellationToken.None);
        web.Dispose();
        Http.Dispose();
        File.Delete(log);
    }
}
