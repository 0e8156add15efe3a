using System.Diagnostics;
using Tensormesh.TestKit;

namespace Tensormesh.EndToEnd.Tests;

/// <summary>Waits for a condition, never for a time.</summary>
internal static class Eventually
{
    private static readonly TimeSpan Limit = TimeSpan.FromMinutes(3);

    /// <summary>Reads until the condition holds and returns what was read; past the limit the test fails with the last reading.</summary>
    public static async Task<T> SeeAsync<T>(Func<Task<T>> read, Func<T, bool> condition)
    {
        using var limit = CancellationTokenSource.CreateLinkedTokenSource(TestContext.Current.CancellationToken);
        limit.CancelAfter(Limit);
        while (true)
        {
            var seen = await read();
            if (condition(seen)) return seen;
            if (limit.IsCancellationRequested) Assert.Fail($"not seen in time; last: {seen}");
            await Task.Delay(TimeSpan.FromMilliseconds(100), TestContext.Current.CancellationToken);
        }
    }
}

/// <summary>The kubectl that a user has, against the dev cluster, in the repository's root.</summary>
internal static class Kubectl
{
    /// <summary>Any other exit than 0 fails the test with what was said.</summary>
    public static async Task RunAsync(DevCluster cluster, params string[] arguments)
    {
        var ends = TestContext.Current.CancellationToken;
        var start = new ProcessStartInfo("kubectl", ["--kubeconfig", cluster.KubeconfigPath, .. arguments]) { WorkingDirectory = Repository.Root, RedirectStandardOutput = true, RedirectStandardError = true };
        using var process = Process.Start(start) ?? throw new InvalidOperationException("kubectl could not be started");
        var (output, errors) = (process.StandardOutput.ReadToEndAsync(ends), process.StandardError.ReadToEndAsync(ends));
        await process.WaitForExitAsync(ends);
        Assert.True(process.ExitCode == 0, $"kubectl {string.Join(' ', arguments)}: {await output}{await errors}");
    }
}
