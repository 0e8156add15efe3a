using System.Globalization;

namespace Tensormesh.TestKit;

/// <summary>
/// Takes away what a dev cluster made: at its disposal, and at the next start when its owner was killed.
/// It touches only what the cluster's record names.
/// </summary>
internal static class Sweep
{
    /// <summary>Sweeps every cluster whose owner is dead. Returns their ids.</summary>
    public static async Task<IReadOnlyList<string>> DeadOwnersAsync(CancellationToken cancellation)
    {
        await using var onlyOne = await StateRoot.LockAsync(Path.Combine(StateRoot.Directory, "sweep.lock"), waiting: null, cancellation);
        var swept = new List<string>();
        foreach (var record in ClusterRecord.All().Where(record => !record.OwnerIsAlive).ToList())
        {
            await RemoveAsync(record);
            swept.Add(record.Id);
        }

        return swept;
    }

    public static async Task RemoveAsync(ClusterRecord record)
    {
        var content = record.Current;
        if (content.BootId == ClusterRecord.CurrentBootId)
        {
            // A node's first process is the first of its process namespace: with it the kernel ends
            // every process in the node, and with the last of them its mounts, interfaces and rules.
            foreach (var process in content.Processes)
                ProcFs.Signal(process, ProcFs.SigKill);
            await StopPostgresAsync(content.Directory);
            foreach (var process in content.Processes)
                await ProcFs.WaitForEndAsync(process, TimeSpan.FromSeconds(10));
            if (content.CgroupName is { } cgroup)
                await Cgroups.RemoveAsync(cgroup);
            foreach (var name in content.Interfaces.Where(name => Directory.Exists("/sys/class/net/" + name)))
                await IpAsync("link", "delete", name);
            foreach (var address in content.LoopbackAddresses)
                await IpAsync("address", "delete", address, "dev", "lo");
        }

        await DeleteDirectoryAsync(content.Directory);
        record.Delete();
    }

    /// <summary>A Postgres that outlived its owner, found by the pid file in its own data folder below the cluster's.</summary>
    private static async Task StopPostgresAsync(string directory)
    {
        if (!Directory.Exists(directory))
            return;
        var shallow = new EnumerationOptions { RecurseSubdirectories = true, MaxRecursionDepth = 3, IgnoreInaccessible = true };
        foreach (var file in Directory.EnumerateFiles(directory, "postmaster.pid", shallow).ToList())
        {
            var firstLine = (await File.ReadAllLinesAsync(file)).FirstOrDefault();
            if (!int.TryParse(firstLine, NumberStyles.None, CultureInfo.InvariantCulture, out var pid)
                || ProcFs.Identify(pid, "postgres") is not { } postmaster
                || !ProcFs.CommandLine(pid).Contains(Path.GetDirectoryName(file)!, StringComparison.Ordinal))
                continue;

            // Immediate shutdown: the postmaster ends its children and frees its shared memory, which a kill would leave behind.
            ProcFs.Signal(postmaster, ProcFs.SigQuit);
            await ProcFs.WaitForEndAsync(postmaster, TimeSpan.FromSeconds(5));
            ProcFs.Signal(postmaster, ProcFs.SigKill);
        }
    }

    private static async Task IpAsync(params string[] arguments)
    {
        // What is gone already is what was wanted.
        _ = await Command.TryRunAsync("ip", arguments, line: null, CancellationToken.None);
    }

    private static async Task DeleteDirectoryAsync(string directory)
    {
        for (var attempt = 1; Directory.Exists(directory); attempt++)
        {
            try
            {
                Directory.Delete(directory, recursive: true);
            }
            catch (IOException) when (attempt < 50)
            {
                // A process on its way out may still write a file.
                await Task.Delay(TimeSpan.FromMilliseconds(20), TimeProvider.System, CancellationToken.None);
            }
        }
    }
}
