namespace Tensormesh.TestKit;

/// <summary>A cgroup of the same name in every hierarchy of the machine, version 1, version 2 or both.</summary>
internal static class Cgroups
{
    public static void Create(string name)
    {
        foreach (var hierarchy in Hierarchies())
        {
            var group = Path.Combine(hierarchy, name);
            Directory.CreateDirectory(group);

            // A cpuset of version 1 is born empty, and no process can enter it until it names CPUs and memory.
            foreach (var setting in (string[])["cpuset.cpus", "cpuset.mems"])
            {
                if (File.Exists(Path.Combine(group, setting)) && File.ReadAllText(Path.Combine(group, setting)).Trim().Length == 0
                    && File.Exists(Path.Combine(hierarchy, setting)))
                    File.WriteAllText(Path.Combine(group, setting), File.ReadAllText(Path.Combine(hierarchy, setting)));
            }
        }
    }

    /// <summary>Kills what still runs in the groups and removes them, deepest first.</summary>
    public static async Task RemoveAsync(string name)
    {
        foreach (var top in Hierarchies().Select(hierarchy => Path.Combine(hierarchy, name)).Where(Directory.Exists))
        {
            using var deadline = new CancellationTokenSource(TimeSpan.FromSeconds(10));
            while (!TryRemove(top) && !deadline.IsCancellationRequested)
                await Task.Delay(TimeSpan.FromMilliseconds(20), TimeProvider.System, CancellationToken.None);
        }
    }

    private static bool TryRemove(string group)
    {
        try
        {
            foreach (var child in Directory.GetDirectories(group))
                TryRemove(child);
            foreach (var pid in File.ReadAllLines(Path.Combine(group, "cgroup.procs")).Select(int.Parse))
            {
                if (ProcFs.Identify(pid, "container") is { } process)
                    ProcFs.Signal(process, ProcFs.SigKill);
            }

            Directory.Delete(group);
            return true;
        }
        catch (DirectoryNotFoundException)
        {
            return true;
        }
        catch (Exception busy) when (busy is IOException or UnauthorizedAccessException)
        {
            return !Directory.Exists(group);
        }
    }

    private static IEnumerable<string> Hierarchies() =>
        File.ReadAllLines("/proc/mounts")
            .Select(line => line.Split(' '))
            .Where(fields => fields[2] is "cgroup" or "cgroup2")
            .Select(fields => fields[1])
            .Distinct();
}
