using Microsoft.Playwright;
using Tensormesh.Billing;
using Tensormesh.TestKit;

namespace Tensormesh.Benchmarks;

/// <summary>
/// How soon a person sees their money: from the click to the paint of the balance, and of the first row of transactions, in a real browser, of an account with very
/// many entries and of one with a thousandth of them; and what an open page costs the server in memory.
/// </summary>
internal static class ConsoleBenchmark
{
    private const int Loads = 40;
    private const int WarmUps = 8;
    private static readonly int OpenPages = int.TryParse(Environment.GetEnvironmentVariable("TENSORMESH_BENCH_PAGES"), out var pages) ? pages : 200;
    private const int OpenAccounts = 20;
    private static readonly TimeSpan Settle = TimeSpan.FromSeconds(30);

    /// <summary>When what has <c>elementtiming="useful"</c> was painted first, in milliseconds after the navigation began.</summary>
    private const string UsefulPaint = """
        () => new Promise(done => new PerformanceObserver(list => {
          const times = list.getEntries().filter(one => one.identifier === 'useful').map(one => one.renderTime);
          if (times.length) done(Math.min(...times));
        }).observe({ type: 'element', buffered: true }))
        """;

    public static async Task PaintAsync(Workplace workplace, CancellationToken cancellation)
    {
        await using var site = await StartAsync(cancellation);
        var entries = 2 * await ReportBenchmark.FillAsync(site.Database, TimeProvider.System.GetUtcNow(), cancellation);
        await using var chromium = await Chromium.StartAsync(line => Workplace.Say($"{line}"), cancellation);
        var (small, large) = (await site.SignInAsync(chromium, ReportBenchmark.Small), await site.SignInAsync(chromium, ReportBenchmark.Large));
        var of = FormattableString.Invariant($"median of {Loads} loads in Chromium, an account with {entries} entries");
        foreach (var (figure, path) in new[] { ("overview", "/billing"), ("transactions", "/billing/transactions") })
        {
            var (few, many) = (new List<double>(), new List<double>());
            for (var i = -WarmUps; i < Loads; i++)
            {
                foreach (var (page, times) in new[] { (small, few), (large, many) })
                {
                    cancellation.ThrowIfCancellationRequested();
                    await page.GotoAsync(new Uri(site.Address, path).ToString());
                    var painted = await page.EvaluateAsync<double>(UsefulPaint);
                    if (i >= 0) times.Add(painted);
                }
            }

            Workplace.Say($"{figure}: few entries {Samples.Median(few):0} ms (p95 {Samples.Quantile(few, 0.95):0}), many {Samples.Median(many):0} ms (p95 {Samples.Quantile(many, 0.95):0})");
            workplace.Report($"{figure}_ms", Samples.Median(many), "ms", "<=500", $"to the first useful paint: {of}");
            workplace.Report($"{figure}_ratio", Samples.Median(many) / Samples.Median(few), "ratio", "<=2.0", FormattableString.Invariant($"{of}, over the same with {2 * ReportBenchmark.SmallTransactions}"));
        }
    }

    /// <summary>Overviews, which are alive: each is drawn anew as money is spent.</summary>
    public static async Task MemoryAsync(Workplace workplace, CancellationToken cancellation)
    {
        await using var site = await StartAsync(cancellation);
        var sample = new SampleAccounts(site.Database);
        var now = TimeProvider.System.GetUtcNow();
        await sample.MakeAsync(now, cancellation);
        for (var i = 0; i < OpenAccounts; i++)
        {
            var account = new AccountId(FormattableString.Invariant($"reader-{i}"));
            await sample.OpenAsync(account, account.Value, "UTC", cancellation);
            await new Ledger(site.Database).PostAsync(Movements.CreditGrant(account, Money.FromUnits(1_000), "bench", "bench", "bench"), cancellation);
            await sample.StartAsync(account, "work", new("NVIDIA-L40S"), 1, now, cancellation);
        }

        // One process for all of its pages: the browser's memory is not what is measured.
        await using var chromium = await Chromium.StartAsync(line => Workplace.Say($"{line}"), cancellation, "--process-per-site", "--disable-gpu", "--renderer-process-limit=2");
        var contexts = new List<IPage>();
        for (var i = 0; i < OpenAccounts; i++) contexts.Add(await site.SignInAsync(chromium, FormattableString.Invariant($"reader-{i}")));
        // What the first pages load stays for all: code, plans, pools.
        foreach (var page in contexts) await page.GotoAsync("about:blank");
        await Task.Delay(Settle, TimeProvider.System, cancellation);
        var before = ProcessUsage.ResidentMegabytes(site.WebPid);
        for (var i = 0; i < OpenPages; i++)
        {
            var page = i < OpenAccounts ? contexts[i] : await contexts[i % OpenAccounts].Context.NewPageAsync();
            await page.GotoAsync(new Uri(site.Address, "/billing").ToString());
            await ConsoleSite.LiveAsync(page);
            if (i % 50 == 49) Workplace.Say($"{i + 1} pages open: {ProcessUsage.ResidentMegabytes(site.WebPid):0} MB");
        }

        await Task.Delay(Settle, TimeProvider.System, cancellation);
        var after = ProcessUsage.ResidentMegabytes(site.WebPid);
        Workplace.Say($"resident: {before:0} MB with none open, {after:0} MB with {OpenPages}");
        workplace.Report("mb_per_page", (after - before) / OpenPages, "MB", "<=1", FormattableString.Invariant($"resident memory of the server with {OpenPages} overviews open in Chromium, less the same with none, {Settle.TotalSeconds:0} s after"));
    }

    private static Task<ConsoleSite> StartAsync(CancellationToken cancellation) => ConsoleSite.StartAsync(
        Directory.CreateTempSubdirectory("tensormesh-console-").FullName, cancellation, ["--Tensormesh:RequestsPerSecond=100000", "--Tensormesh:RequestBurst=100000"]);
}
