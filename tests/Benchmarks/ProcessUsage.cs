using System.Globalization;

namespace Tensormesh.Benchmarks;

/// <summary>What the kernel says of a process.</summary>
internal static class ProcessUsage
{
    private const double TicksPerSecond = 100;

    /// <summary>Memory in the process's own pages that are in RAM now, in MB of 10^6 bytes.</summary>
    public static double ResidentMegabytes(int pid) => Megabytes(pid, "VmRSS:");

    /// <summary>The most that it ever was.</summary>
    public static double PeakMegabytes(int pid) => Megabytes(pid, "VmHWM:");

    /// <summary>Processor time of a process so far, user and system.</summary>
    public static double CpuSeconds(int pid)
    {
        // The name stands in parentheses and may hold spaces itself.
        var stat = File.ReadAllText($"/proc/{pid}/stat");
        var fields = stat[(stat.LastIndexOf(')') + 2)..].Split(' ');
        return (long.Parse(fields[11], CultureInfo.InvariantCulture) + long.Parse(fields[12], CultureInfo.InvariantCulture)) / TicksPerSecond;
    }

    private static double Megabytes(int pid, string field)
    {
        var line = File.ReadLines($"/proc/{pid}/status").First(line => line.StartsWith(field, StringComparison.Ordinal));
        return long.Parse(line.Split(' ', StringSplitOptions.RemoveEmptyEntries)[1], CultureInfo.InvariantCulture) * 1024 / 1e6;
    }
}
