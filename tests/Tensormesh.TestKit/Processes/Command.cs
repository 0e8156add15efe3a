using System.Diagnostics;

namespace Tensormesh.TestKit;

/// <summary>
/// Runs a command to its end. A non-zero exit is an <see cref="InvalidOperationException"/> with the command and
/// what it printed.
/// </summary>
internal static class Command
{
    public static async Task<string> RunAsync(string file, IEnumerable<string> arguments, CancellationToken cancellation)
    {
        var (exitCode, output) = await TryRunAsync(file, arguments, line: null, cancellation);
        return exitCode == 0
            ? output
            : throw new InvalidOperationException($"{file} {string.Join(' ', arguments)} exited with {exitCode}: {output.Trim()}");
    }

    public static Task<string> RunAsync(string commandLine, CancellationToken cancellation)
    {
        var words = commandLine.Split(' ', StringSplitOptions.RemoveEmptyEntries);
        return RunAsync(words[0], words.Skip(1), cancellation);
    }

    /// <summary>Both output streams in one string; <paramref name="line"/> sees each line as it is printed.</summary>
    public static async Task<(int ExitCode, string Output)> TryRunAsync(
        string file, IEnumerable<string> arguments, Action<string>? line, CancellationToken cancellation)
    {
        var start = new ProcessStartInfo(file)
        {
            RedirectStandardOutput = true,
            RedirectStandardError = true,
            RedirectStandardInput = true,
        };
        foreach (var argument in arguments)
            start.ArgumentList.Add(argument);
        start.Environment["DEBIAN_FRONTEND"] = "noninteractive";

        using var process = new Process { StartInfo = start };
        var output = new List<string>();
        void Keep(object _, DataReceivedEventArgs received)
        {
            if (received.Data is not { } text)
                return;
            lock (output)
                output.Add(text);
            line?.Invoke(text);
        }

        process.OutputDataReceived += Keep;
        process.ErrorDataReceived += Keep;
        process.Start();
        process.StandardInput.Close();
        process.BeginOutputReadLine();
        process.BeginErrorReadLine();
        try
        {
            await process.WaitForExitAsync(cancellation);
        }
        catch (OperationCanceledException)
        {
            process.Kill(entireProcessTree: true);
            throw;
        }

        return (process.ExitCode, string.Join('\n', output));
    }

    /// <summary>The full path of a program, in the system folders as well: sbin is not on everyone's PATH.</summary>
    public static string? Find(string program) =>
        (Environment.GetEnvironmentVariable("PATH") ?? "").Split(':')
            .Concat(["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"])
            .Where(folder => folder.Length > 0)
            .Select(folder => Path.Combine(folder, program))
            .FirstOrDefault(IsThere);

    /// <summary>A link whose target was uninstalled exists, and does not run.</summary>
    public static bool IsThere(string path) =>
        File.Exists(path) && (new FileInfo(path).ResolveLinkTarget(returnFinalTarget: true)?.Exists ?? true);
}
