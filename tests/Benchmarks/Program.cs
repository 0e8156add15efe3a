using Tensormesh.Benchmarks;

// Figures go to standard output, one JSON line each; what a person may want to see meanwhile goes to standard error.
var groups = new Dictionary<string, Func<Workplace, CancellationToken, Task>>(StringComparer.Ordinal)
{
    ["ledger"] = LedgerBenchmark.RunAsync,
    ["standing"] = StandingBenchmark.RunAsync,
    ["gate"] = GateBenchmark.RunAsync,
    ["overspend"] = OverspendBenchmark.RunAsync,
};

var asked = args.Where(name => name.Length > 0).ToArray();
if (asked.FirstOrDefault(name => !groups.ContainsKey(name)) is { } unknown)
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
    foreach (var name in asked.Length > 0 ? asked : [.. groups.Keys])
    {
        await using var workplace = new Workplace(name);
        Workplace.Say($"{name}: load average {Workplace.LoadAverage()} on {Environment.ProcessorCount} cores");
        await groups[name](workplace, interrupted.Token);
    }

    return 0;
}
catch (OperationCanceledException) when (interrupted.IsCancellationRequested)
{
    return 130;
}
