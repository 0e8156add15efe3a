using Tensormesh.TestKit;

namespace Tensormesh.Dev;

/// <summary>What <c>make run</c> and <c>make demo</c> do.</summary>
internal static class Session
{
    public static async Task<int> RunAsync(CancellationToken stop)
    {
        var image = PrepareAgentAsync(stop);
        await using var cluster = await DevCluster.StartAsync(new DevClusterOptions { HollowGpuB = true }, Say, stop);
        var quick = Environment.GetEnvironmentVariable("TENSORMESH_QUICK") == "1";
        await using var product = await Installation.StartAsync(cluster, quick ? InstallationOptions.Quick : new InstallationOptions(), Say, stop);
        await StartAgentAsync(cluster, image, stop);
        var file = Write(cluster, product);
        Say($"up. In another terminal: source {Path.GetRelativePath(Environment.CurrentDirectory, file)}   (Ctrl-C here stops everything)");
        try
        {
            await FollowAsync(product.OperatorLog, stop);
        }
        catch (OperationCanceledException) when (stop.IsCancellationRequested)
        {
            Say("stopping");
        }
        finally
        {
            File.Delete(file);
        }

        return 0;
    }

    public static async Task<int> ImagesAsync(CancellationToken stop)
    {
        await PrepareAgentAsync(stop);
        if (OperatingSystem.IsLinux() && Environment.IsPrivilegedProcess) await ProductPods.PrepareAsync(Say, stop);
        return 0;
    }

    public static async Task<int> ScreenshotsAsync(CancellationToken stop)
    {
        await Screenshots.TakeAsync(Repository.Folder("docs", "images"), Say, stop);
        return 0;
    }

    public static async Task<int> DemoAsync(CancellationToken stop)
    {
        var image = PrepareAgentAsync(stop);
        await using var cluster = await DevCluster.StartAsync(new DevClusterOptions { HollowGpuB = true }, Say, stop);
        await using var product = await Installation.StartAsync(cluster, InstallationOptions.Quick, Say, stop);
        await StartAgentAsync(cluster, image, stop);
        var file = Write(cluster, product);
        try
        {
            return await StoryAsync(file, stop);
        }
        finally
        {
            File.Delete(file);
            Say("stopping");
        }
    }

    public static async Task<int> SweepAsync(CancellationToken stop)
    {
        foreach (var id in await DevCluster.SweepAsync(stop)) Say($"swept what cluster {id} had left behind");
        return 0;
    }

    private static bool NoAgent => Environment.GetEnvironmentVariable("TENSORMESH_AGENT") == "0";

    /// <summary>The agent's image is made while the cluster starts.</summary>
    private static Task PrepareAgentAsync(CancellationToken stop)
        => NoAgent || !OperatingSystem.IsLinux() || !Environment.IsPrivilegedProcess ? Task.CompletedTask : Task.Run(() => AgentDaemonSet.PrepareAsync(Say, stop), stop);

    /// <summary>The rest of the product works without it, so a machine that cannot build its image has everything else. It ends with the cluster.</summary>
    private static async Task StartAgentAsync(DevCluster cluster, Task image, CancellationToken stop)
    {
        try
        {
            await image;
            if (!cluster.HasRealNode || NoAgent) return;
            await AgentDaemonSet.StartAsync(cluster, Say, stop);
        }
        catch (Exception fault) when (fault is InvalidOperationException or TimeoutException)
        {
            Say($"no agent runs on gpu-a: {fault.Message}");
        }
    }

    private static async Task<int> StoryAsync(string environment, CancellationToken stop)
    {
        using var story = Story.Start(environment, forward: null);
        try
        {
            await story.WaitForExitAsync(stop);
        }
        catch (OperationCanceledException)
        {
            story.Kill(entireProcessTree: true);
            throw;
        }

        return story.ExitCode;
    }

    /// <summary>Everything that a person or script needs to drive the product by hand.</summary>
    private static string Write(DevCluster cluster, Installation product)
    {
        var folder = Repository.Folder(".dev");
        Directory.CreateDirectory(folder);
        var file = Path.Combine(folder, "env");
        File.WriteAllText(file, EnvironmentFile.Render(cluster, product));
        File.SetUnixFileMode(file, UnixFileMode.UserRead | UnixFileMode.UserWrite);
        return file;
    }

    /// <summary>Prints the log as it grows.</summary>
    private static async Task FollowAsync(string log, CancellationToken stop)
    {
        using var reader = new StreamReader(new FileStream(log, FileMode.Open, FileAccess.Read, FileShare.ReadWrite));
        while (true)
        {
            if (await reader.ReadLineAsync(stop) is { } line) Console.WriteLine(line);
            else await Task.Delay(TimeSpan.FromMilliseconds(100), stop);
        }
    }

    private static void Say(string line) => Console.WriteLine(line);
}
