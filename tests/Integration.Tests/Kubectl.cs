using System.Diagnostics;

namespace Tensormesh.Integration.Tests;

/// <summary>The kubectl that a user has, against the dev cluster.</summary>
internal static class Kubectl
{
    /// <summary>Returns what it printed; any other exit than 0 fails the test with it.</summary>
    public static async Task<string> RunAsync(string kubeconfig, params string[] arguments)
    {
        var (exitCode, output, errors) = await TryRunAsync(kubeconfig, arguments);
        Assert.True(exitCode == 0, $"kubectl {string.Join(' ', arguments)} exited with {exitCode}: {errors}");
        return output;
    }

    public static async Task<(int ExitCode, string Output, string Errors)> TryRunAsync(string kubeconfig, params string[] arguments)
    {
        var start = new ProcessStartInfo("kubectl", ["--kubeconfig", kubeconfig, .. arguments])
        {
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        using var process = Process.Start(start)!;
        var output = process.StandardOutput.ReadToEndAsync(TestContext.Current.CancellationToken);
        var errors = process.StandardError.ReadToEndAsync(TestContext.Current.CancellationToken);
        await process.WaitForExitAsync(TestContext.Current.CancellationToken);
        return (process.ExitCode, await output, await errors);
    }
}
