using Tensormesh.Benchmarks;

// Figures go to standard output, one JSON line each; what a person may want to see meanwhile goes to standard error.
var groups = new Dictionary<string, Func<Workplace, CancellationToken, Task>>(StringComparer.Ordinal)
{
    ["ledger"] = LedgerBenchmark.RunAsync,
    ["standing"] = StandingBenchmark.RunAsync,
    ["gate"] = GateBenchmark.RunAsync,
    ["overspend"] = OverspendBenchmark.RunAsync,
    ["credit"] = CreditBenchmark.RunAsync,
    ["topup"] = TopUpBenchmark.RunAsync,
    ["report"] = ReportBenchmark.RunAsync,
    ["export"] = ExportBenchmark.RunAsync,
    ["ingest"] = IngestBenchmark.RunAsync,
    ["freshness"] = FreshnessBenchmark.RunAsync,
    ["serverless-report"] = ServerlessReportBenchmark.RunAsync,
    ["console/memory"] = ConsoleBenchmark.MemoryAsync,
    ["console/paint"] = ConsoleBenchmark.PaintAsync,
    ["reconcile/drain"] = DrainBenchmark.RunAsync,
    ["reconcile/memory"] = MemoryBenchmark.RunAsync,
    ["fleet"] = FleetBenchmark.RunAsync,
    ["probe/devices"] = ProbeBenchmark.RunAsync,
    ["probe/agent"] = AgentBenchmark.RunAsync,
};

// A group may have parts: its name alone is all of them.
IEnumerable<string> Named(string name) => groups.Keys.Where(key => key == name || key.StartsWith(name + "/", StringComparison.Ordinal));
var asked = args.Where(name => name.Length > 0).ToArray();
if (asked.FirstOrDefault(name => !Named(name).Any()) is { } unknown)
{
    await Console.Error.WriteLineAsync($"there is no benchmark group '{unknown}'; the groups are: {string.Join(' ', groups.Keys)}");
    return 2;
}

using var interrupted = new CancellationTokenSource();
Console.CancelKeyPress += (_, press) =>
{
    // The servers that were started must be stopped first.
    press.Cancel = true;
    interrupted.Cancel();
};

try
{
    foreach (var name in asked.Length > 0 ? asked.SelectMany(Named) : groups.Keys)
    {
        await using var workplace = new Workplace(name.Split('/')[0]);
        Workplace.Say($"{name}: load average {Workplace.LoadAverage()} on {Environment.ProcessorCount} cores");
        await groups[name](workplace, interrupted.Token);
    }

    return 0;
}
catch (OperationCanceledException) when (interrupted.IsCancellationRequested)
{
    return 130;
}
