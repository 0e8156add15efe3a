using System.Collections.Concurrent;
using System.Globalization;

namespace Tensormesh.Soak;

/// <summary>What was done and what was found, by any number of writers.</summary>
internal sealed class Tally
{
    private const int ShownFindings = 50;

    private readonly ConcurrentDictionary<string, long> operations = new(StringComparer.Ordinal);
    private readonly ConcurrentDictionary<string, long> faults = new(StringComparer.Ordinal);
    private readonly ConcurrentQueue<Finding> findings = new();
    private long retries;

    /// <summary>Things that somebody wanted and got, or was refused for a reason that was told.</summary>
    public long Operations => operations.Values.Sum();

    /// <summary>Attempts that a fault got in the way of, and that were made again.</summary>
    public long Retries => Interlocked.Read(ref retries);

    public long Faults => faults.Values.Sum();

    public IReadOnlyList<Finding> Findings => [.. findings];

    public void Retry() => Interlocked.Increment(ref retries);

    public void Operation(string what, long times = 1) => operations.AddOrUpdate(what, times, (_, sum) => sum + times);

    public void Fault(string what) => faults.AddOrUpdate(what, 1, (_, sum) => sum + 1);

    /// <summary>Says it once, and keeps it for the end.</summary>
    public void Find(Finding finding)
    {
        if (findings.Contains(finding)) return;
        findings.Enqueue(finding);
        if (findings.Count <= ShownFindings) Say($"FOUND {finding}");
    }

    public long Count(FindingKind kind) => findings.Count(finding => finding.Kind == kind);

    public string OperationsInWords => Words(operations);

    public string FaultsInWords => Words(faults);

    public static void Say(FormattableString line)
        => Console.Error.WriteLine($"{TimeProvider.System.GetUtcNow():HH:mm:ss} {FormattableString.Invariant(line)}");

    private static string Words(IReadOnlyDictionary<string, long> counts) => string.Join(
        ", ", counts.OrderByDescending(pair => pair.Value).ThenBy(pair => pair.Key, StringComparer.Ordinal).Select(pair => string.Create(CultureInfo.InvariantCulture, $"{pair.Key} {pair.Value}")));
}
