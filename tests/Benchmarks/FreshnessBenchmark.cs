using System.Diagnostics;
using System.Net.Http.Headers;
using System.Text.Json;

namespace Tensormesh.Benchmarks;

/// <summary>From the answer to an event until a balance shows it, while others report usage: what a customer sees is asked for as a customer asks.</summary>
internal static class FreshnessBenchmark
{
    private const int Events = 500;
    private const int Background = 1_000;

    public static async Task RunAsync(Workplace workplace, CancellationToken cancellation)
    {
        var server = await workplace.PostgresAsync(cancellation);
        await using var database = await Workplace.OpenBillingAsync(server, "freshness", cancellation);
        await UsageLoad.OpenAccountsAsync(database, cancellation);
        await using var load = await UsageLoad.StartAsync(database.ConnectionString, cancellation);
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        var others = Task.Run(async () =>
        {
            var (random, sent) = (new Random(), 0);
            while (!stop.IsCancellationRequested) sent += await load.SendAsync(UsageLoad.Json(UsageLoad.Make(Background, random)), cancellation);
            return sent;
        }, cancellation);

        // One that nobody else uses, so that its balance changes by this event only.
        var watched = UsageLoad.Account(UsageLoad.Accounts);
        await new Tensormesh.Billing.Accounts(database).DeclareAsync(new(watched), new(watched, null, null, "UTC"), cancellation);
        await new Tensormesh.Billing.Ledger(database).PostAsync(
            Tensormesh.Billing.Movements.CreditGrant(new(watched), Tensormesh.Billing.Money.FromUnits(1000), "bench", "bench", "bench"), cancellation);
        var (times, asked, own) = (new List<double>(), new List<double>(), new Random());
        var before = await BalanceAsync(load, watched, cancellation);
        for (var i = 0; i < Events; i++)
        {
            var usage = UsageLoad.Make(1, own)[0] with { Account = new(watched), Input = 10_000, Cached = 0, Output = 100 };
            if (await load.SendAsync(UsageLoad.Json([usage]), cancellation) != 1) throw new InvalidOperationException("an event was not accepted");
            var (began, reads) = (Stopwatch.GetTimestamp(), 0);
            string after;
            do
            {
                after = await BalanceAsync(load, watched, cancellation);
                reads++;
            }
            while (after == before);
            times.Add(Stopwatch.GetElapsedTime(began).TotalMilliseconds);
            asked.Add(reads);
            before = after;
        }

        await stop.CancelAsync();
        Workplace.Say($"p50 {Samples.Median(times):0.00} ms, asked at most {asked.Max():0} times, {await others} other events meanwhile; load {Workplace.LoadAverage()}");
        workplace.Report("p99_ms", Samples.Quantile(times, 0.99), "ms", "<=1000",
            $"from the answer to one event until GET /v1/billing/balance shows it, {Events} events while another client reports batches of {Background}");
    }

    private static async Task<string> BalanceAsync(UsageLoad load, string account, CancellationToken cancellation)
    {
        using var request = new HttpRequestMessage(HttpMethod.Get, new Uri("/v1/billing/balance", UriKind.Relative));
        request.Headers.Authorization = new AuthenticationHeaderValue("Bearer", UsageLoad.Token(account, "USER"));
        using var response = await load.Http.SendAsync(request, cancellation);
        using var answer = JsonDocument.Parse(await response.EnsureSuccessStatusCode().Content.ReadAsStreamAsync(cancellation));
        return answer.RootElement.GetProperty("balance").GetRawText();
    }
}
