using System.Diagnostics;
using System.Globalization;
using System.Text.RegularExpressions;
using Npgsql;

namespace Tensormesh.Benchmarks;

/// <summary>Postgres's own benchmark: the floor that a ledger on Postgres is measured against.</summary>
internal sealed partial class Pgbench(string connectionString)
{
    private readonly NpgsqlConnectionStringBuilder server = new(connectionString);

    public Task InitializeAsync(int scale, CancellationToken cancellation)
        => RunAsync(["-i", "-q", "-s", scale.ToString(CultureInfo.InvariantCulture)], cancellation);

    /// <summary>Transactions per second of the built-in script <c>simple-update</c>, connecting not counted.</summary>
    public async Task<double> SimpleUpdateAsync(int clients, int threads, TimeSpan duration, CancellationToken cancellation)
    {
        var output = await RunAsync(
            ["-n", "-b", "simple-update", "-c", $"{clients}", "-j", $"{threads}", "-T", $"{(int)duration.TotalSeconds}"], cancellation);
        var tps = Tps().Match(output);
        return tps.Success
            ? double.Parse(tps.Groups[1].Value, CultureInfo.InvariantCulture)
            : throw new InvalidOperationException($"pgbench told no tps: {output}");
    }

    private async Task<string> RunAsync(string[] arguments, CancellationToken cancellation)
    {
        var start = new ProcessStartInfo(Find())
        {
            RedirectStandardOutput = true,
            RedirectStandardError = true,
            ArgumentList =
            {
                "-h", server.Host!, "-p", server.Port.ToString(CultureInfo.InvariantCulture), "-U", server.Username!,
            },
        };
        foreach (var argument in arguments) start.ArgumentList.Add(argument);
        start.ArgumentList.Add(server.Database!);

        using var process = Process.Start(start) ?? throw new InvalidOperationException("pgbench did not start");
        try
        {
            var output = process.StandardOutput.ReadToEndAsync(cancellation);
            var error = process.StandardError.ReadToEndAsync(cancellation);
            await process.WaitForExitAsync(cancellation);
            return process.ExitCode == 0
                ? await output
                : throw new InvalidOperationException($"pgbench exited with {process.ExitCode}: {await error}");
        }
        finally
        {
            if (!process.HasExited) process.Kill();
        }
    }

    private static string Find()
    {
        var versioned = Directory.Exists("/usr/lib/postgresql")
            ? Directory.GetDirectories("/usr/lib/postgresql")
                .OrderByDescending(path => int.TryParse(Path.GetFileName(path), out var version) ? version : 0)
                .Select(path => Path.Combine(path, "bin"))
            : [];
        return versioned.Concat((Environment.GetEnvironmentVariable("PATH") ?? "").Split(':', StringSplitOptions.RemoveEmptyEntries))
            .Select(folder => Path.Combine(folder, "pgbench")).FirstOrDefault(File.Exists)
            ?? throw new InvalidOperationException("no pgbench: it comes with the package 'postgresql' (postgresql-contrib elsewhere)");
    }

    [GeneratedRegex(@"^tps = ([0-9.]+)", RegexOptions.Multiline)]
    private static partial Regex Tps();
}
