using System.Globalization;

namespace Tensormesh.Soak;

/// <summary>What the product's processes take, look by look.</summary>
/// <param name="Minute">Since the load began.</param>
internal sealed record Sample(double Minute, string Of, double Value);

/// <summary>
/// Whether something grows. The first minutes are each process's own start; of the rest the last third may not lie above the first but by so much as is
/// noise. Operators are killed, so that one's samples are those of many processes, each looked at only when it is warm.
/// </summary>
internal sealed class Usage
{
    private const double WarmAfterMinutes = 3;
    private const int FewestSamples = 9;
    private const double Tolerated = 1.25;

    private readonly List<Sample> samples = [];
    private readonly Dictionary<int, DateTimeOffset> firstSeen = [];
    private readonly DateTimeOffset began = TimeProvider.System.GetUtcNow();

    /// <summary>Below these a difference is nothing: MB, threads, open files, connections.</summary>
    private static readonly IReadOnlyDictionary<string, double> Slack = new Dictionary<string, double>
    {
        ["resident MB"] = 25,
        ["threads"] = 10,
        ["open files"] = 25,
        ["Postgres connections"] = 15,
    };

    public void Look(string name, int pid)
    {
        var now = TimeProvider.System.GetUtcNow();
        if (!firstSeen.TryGetValue(pid, out var since)) firstSeen[pid] = since = now;
        if ((now - since).TotalMinutes < WarmAfterMinutes) return;
        try
        {
            var status = File.ReadAllLines($"/proc/{pid}/status");
            Add($"{name}: resident MB", Number(status, "VmRSS:") * 1024 / 1e6);
            Add($"{name}: threads", Number(status, "Threads:"));
            Add($"{name}: open files", Directory.GetFileSystemEntries($"/proc/{pid}/fd").Length);
        }
        catch (Exception gone) when (gone is IOException or UnauthorizedAccessException)
        {
            // It was killed between one line and the next.
        }
    }

    public void Add(string what, double value) => samples.Add(new((TimeProvider.System.GetUtcNow() - began).TotalMinutes, what, value));

    /// <summary>First and last third of everything that was looked at often enough.</summary>
    public IReadOnlyList<(string Of, double First, double Last)> Thirds => Compare(samples);

    public static IReadOnlyList<(string Of, double First, double Last)> Compare(IEnumerable<Sample> samples) =>
    [
        .. samples.GroupBy(sample => sample.Of).Where(group => group.Count() >= FewestSamples).Select(group =>
        {
            var values = group.OrderBy(sample => sample.Minute).Select(sample => sample.Value).ToArray();
            return (group.Key, Median(values[..(values.Length / 3)]), Median(values[^(values.Length / 3)..]));
        }).OrderBy(each => each.Key, StringComparer.Ordinal),
    ];

    public static IEnumerable<Finding> Grown(IEnumerable<(string Of, double First, double Last)> thirds) => thirds
        .Where(each => each.Last > each.First * Tolerated && each.Last > each.First + Slack.First(slack => each.Of.EndsWith(slack.Key, StringComparison.Ordinal)).Value)
        .Select(each => new Finding(FindingKind.Grown, FormattableString.Invariant($"{each.Of} grew from {each.First:0.#} to {each.Last:0.#}")));

    private static double Median(double[] values) => values.Order().ElementAt(values.Length / 2);

    private static double Number(IEnumerable<string> status, string field)
        => double.Parse(status.First(line => line.StartsWith(field, StringComparison.Ordinal)).Split((char[])[' ', '\t'], StringSplitOptions.RemoveEmptyEntries)[1], CultureInfo.InvariantCulture);
}
