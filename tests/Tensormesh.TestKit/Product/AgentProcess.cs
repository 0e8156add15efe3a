namespace Tensormesh.TestKit;

/// <summary>The agent as it is published: one executable that was compiled ahead of time, as a process of its own.</summary>
public sealed class AgentProcess : IAsyncDisposable
{
    private readonly DevProcess process;

    private AgentProcess(DevProcess process, Uri url) => (this.process, Url) = (process, url);

    /// <summary>Where its metrics and readiness are.</summary>
    public Uri Url { get; }

    public int Pid => process.Identity.Pid;

    /// <summary>The process that calls into the driver; null while there is none.</summary>
    public int? WorkerPid => ProcFs.ChildrenOf(Pid).Where(pid => ProcFs.Identify(pid, "") is not null).Cast<int?>().LastOrDefault();

    /// <summary>Publishes what is in the working tree.</summary>
    /// <returns>The executable.</returns>
    public static async Task<string> PublishAsync(Action<string> say, CancellationToken cancellation)
    {
        await Prerequisites.EnsureCompilerAsync(say, cancellation);
        var folder = Repository.Folder("artifacts", "agent");
        // Whoever comes second finds everything done.
        await using var onlyOne = await StateRoot.LockAsync(folder + ".lock", waiting: null, cancellation);
        if (!File.Exists(Path.Combine(folder, "tensormesh-agent"))) say("compiling the agent ahead of time, which takes about a minute");
        await Command.RunAsync("make", ["--silent", "-C", Repository.Root, "publish-agent", $"OUT={folder}"], cancellation);
        return Path.Combine(folder, "tensormesh-agent");
    }

    /// <summary>Returns when the agent has told the cluster of its node.</summary>
    /// <param name="settings">Environment variables, over those of its metrics' address.</param>
    public static async Task<AgentProcess> StartAsync(
        DevCluster cluster, string executable, IReadOnlyDictionary<string, string> settings, CancellationToken cancellation)
    {
        var url = new Uri($"http://127.0.0.1:{FreePorts.Take(1)[0]}");
        var environment = settings.Select(setting => $"{setting.Key}={setting.Value}").Append($"Tensormesh__Agent__MetricsUrl={url.GetLeftPart(UriPartial.Authority)}");
        var process = await DevProcess.StartAsync(cluster.Record, "tensormesh-agent", "/usr/bin/env", [.. environment, executable]);
        try
        {
            await Installation.WaitForHttpAsync(process, new Uri(url, "/readyz"), cancellation);
            return new AgentProcess(process, url);
        }
        catch
        {
            await process.DisposeAsync();
            throw;
        }
    }

    public async ValueTask DisposeAsync()
    {
        await process.StopAsync(TimeSpan.FromSeconds(10));
        await process.DisposeAsync();
    }
}
