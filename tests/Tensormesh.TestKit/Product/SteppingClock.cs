using System.Globalization;

namespace Tensormesh.TestKit;

/// <summary>
/// The wall clock of one process, which steps while the process runs: Debian's libfaketime between the program and the C library. Its
/// monotonic clock stays true, as it does on a machine whose wall clock is set.
/// </summary>
public sealed class SteppingClock
{
    private readonly string file;

    /// <summary>Debian keeps it in the folder of the machine's architecture.</summary>
    private static string Library => Directory.EnumerateFiles("/usr/lib", "libfaketimeMT.so.1", new EnumerationOptions
    {
        RecurseSubdirectories = true, MaxRecursionDepth = 2, IgnoreInaccessible = true,
    }).First();

    private SteppingClock(string file) => this.file = file;

    /// <summary>A clock that is right until it steps.</summary>
    public static async Task<SteppingClock> CreateAsync(DevCluster cluster, Action<string> say, CancellationToken cancellation)
    {
        ArgumentNullException.ThrowIfNull(cluster);
        await Prerequisites.EnsureSteppingClockAsync(say, cancellation);
        var clock = new SteppingClock(Path.Combine(cluster.StateDirectory, "clock"));
        clock.Set(TimeSpan.Zero);
        return clock;
    }

    /// <summary>The environment of the process.</summary>
    public IReadOnlyDictionary<string, string> Environment => new Dictionary<string, string>
    {
        ["LD_PRELOAD"] = Library,
        ["FAKETIME_TIMESTAMP_FILE"] = file,
        ["FAKETIME_NO_CACHE"] = "1",
        ["FAKETIME_DONT_FAKE_MONOTONIC"] = "1",
        ["DONT_FAKE_MONOTONIC"] = "1",
    };

    /// <summary>Sets how far the clock is ahead of the true one, from its next reading on.</summary>
    public void Set(TimeSpan ahead)
    {
        // Replaced as a whole: the process reads it at any moment.
        var next = file + ".next";
        File.WriteAllText(next, ahead.TotalSeconds.ToString("+0;-0;+0", CultureInfo.InvariantCulture) + "\n");
        File.Move(next, file, overwrite: true);
    }
}
