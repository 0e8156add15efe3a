using System.Globalization;
using System.Runtime.InteropServices;

namespace Tensormesh.TestKit;

/// <summary>A process that cannot be confused with a later one of the same number.</summary>
/// <param name="StartTicks">Field 22 of /proc/PID/stat: clock ticks after boot at which the process started.</param>
internal sealed record ProcessIdentity(int Pid, long StartTicks, string Name);

/// <summary>What /proc knows of processes, and the one system call that ends them.</summary>
internal static partial class ProcFs
{
    public const int SigQuit = 3;
    public const int SigKill = 9;
    public const int SigTerm = 15;
    public const int SigCont = 18;
    public const int SigStop = 19;

    public static ProcessIdentity Self => Identify(Environment.ProcessId, "owner")
        ?? throw new PlatformNotSupportedException("The dev cluster needs Linux: /proc/self/stat cannot be read.");

    /// <summary>Null when no such process runs, or only its zombie is left.</summary>
    public static ProcessIdentity? Identify(int pid, string name) =>
        ReadStat(pid) is { State: not 'Z' and not 'X' } stat ? new ProcessIdentity(pid, stat.StartTicks, name) : null;

    public static bool IsAlive(ProcessIdentity process) => Identify(process.Pid, process.Name)?.StartTicks == process.StartTicks;

    public static IReadOnlyList<int> ChildrenOf(int parent) =>
        [.. AllPids().Where(pid => ReadStat(pid) is { } stat && stat.Parent == parent)];

    /// <summary>The arguments, with spaces between; empty for a process that is gone.</summary>
    public static string CommandLine(int pid)
    {
        try
        {
            return File.ReadAllText($"/proc/{pid}/cmdline").Replace('\0', ' ');
        }
        catch (IOException)
        {
            return "";
        }
        catch (UnauthorizedAccessException)
        {
            return "";
        }
    }

    /// <summary>Sends a signal only while it is still the same process.</summary>
    public static void Signal(ProcessIdentity process, int signal)
    {
        if (IsAlive(process))
            _ = kill(process.Pid, signal);
    }

    public static async Task WaitForEndAsync(ProcessIdentity process, TimeSpan limit)
    {
        using var deadline = new CancellationTokenSource(limit);
        while (IsAlive(process) && !deadline.IsCancellationRequested)
            await Task.Delay(TimeSpan.FromMilliseconds(10), TimeProvider.System, CancellationToken.None);
    }

    public static IEnumerable<int> AllPids() =>
        Directory.EnumerateDirectories("/proc")
            .Select(Path.GetFileName)
            .Select(name => int.TryParse(name, NumberStyles.None, CultureInfo.InvariantCulture, out var pid) ? pid : 0)
            .Where(pid => pid > 0);

    private static (char State, int Parent, long StartTicks)? ReadStat(int pid)
    {
        try
        {
            // The name stands in parentheses and may hold spaces and parentheses itself.
            var stat = File.ReadAllText($"/proc/{pid}/stat");
            var fields = stat[(stat.LastIndexOf(')') + 2)..].Split(' ');
            return (fields[0][0], int.Parse(fields[1], CultureInfo.InvariantCulture), long.Parse(fields[19], CultureInfo.InvariantCulture));
        }
        catch (IOException)
        {
            return null;
        }
        catch (UnauthorizedAccessException)
        {
            return null;
        }
    }

    [LibraryImport("libc", SetLastError = true)]
    private static partial int kill(int pid, int signal);
}
