using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using System.Security.Cryptography;
using System.Text;
using Npgsql;

namespace Tensormesh.TestKit;

/// <summary>
/// A private Postgres on a free loopback port, with its files in a directory of the caller's. Durable as a money database
/// must be (fsync stays on). Starting on a directory that a killed run left behind stops what still runs there and reuses its data.
/// </summary>
public sealed class PostgresServer : IAsyncDisposable
{
    internal const string Superuser = "tensormesh";
    private const string UnprivilegedUser = "postgres";
    private const int StartAttempts = 5;
    private static readonly TimeSpan CommandTimeout = TimeSpan.FromMinutes(2);

    private readonly string binaries;
    private readonly string data;
    private readonly string log;
    private readonly bool relocated;
    private int port;

    private PostgresServer(string binaries, string data, string log, bool relocated)
    {
        this.binaries = binaries;
        this.data = data;
        this.log = log;
        this.relocated = relocated;
    }

    /// <summary>Superuser on the database <c>postgres</c>, over TCP on 127.0.0.1.</summary>
    public string ConnectionString => ConnectionStringTo("postgres");

    public int Port => port;

    /// <summary>Where initdb, pg_ctl and pg_basebackup are.</summary>
    public string Binaries => binaries;

    /// <summary>Where the server writes its log.</summary>
    public string LogFile => log;

    /// <param name="directory">Made if missing. Holds the data and the log.</param>
    /// <exception cref="InvalidOperationException">No Postgres binaries, or the server did not start: the message carries the end of its
    /// log.</exception>
    /// <param name="settings">Lines of postgresql.conf for a server that is made by this; null: none beside those that every one has.</param>
    /// <param name="guests">Who else than this machine may connect, and at which of its addresses.</param>
    public static async Task<PostgresServer> StartAsync(
        string directory, CancellationToken cancellation, string? settings = null, (IPAddress Address, string Range)? guests = null)
    {
        directory = Path.GetFullPath(directory);
        Directory.CreateDirectory(directory);
        var (root, relocated) = Reachable(directory);
        // On a fresh machine whoever comes first installs it: a dev cluster, or a test that needs Postgres alone.
        if (OperatingSystem.IsLinux()) await Prerequisites.EnsurePostgresAsync(Console.WriteLine, cancellation);
        var data = Path.Combine(root, "data");
        var server = new PostgresServer(FindBinaries(), data, Path.Combine(root, "postgres.log"), relocated);

        if (File.Exists(Path.Combine(data, "PG_VERSION")))
        {
            await server.StopAsync(immediate: true);
        }
        else
        {
            if (Directory.Exists(data)) Directory.Delete(data, recursive: true);
            if (Environment.IsPrivilegedProcess) await RunAsync("chown", [UnprivilegedUser + ":", root], cancellation);
            await server.PostgresToolAsync(
                "initdb", ["-D", data, "-U", Superuser, "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"], cancellation);
            if (guests is var (address, range))
            {
                settings += $"\nlisten_addresses = '127.0.0.1,{address}'\n";
                await File.AppendAllTextAsync(Path.Combine(data, "pg_hba.conf"), $"host all all {range} trust\n", cancellation);
            }

            await File.AppendAllTextAsync(Path.Combine(data, "postgresql.conf"), Settings + settings, cancellation);
        }

        await server.StartOnFreePortAsync(cancellation);
        return server;
    }

    /// <summary>Makes an empty database; one that is there under this name is dropped first, with its sessions.</summary>
    /// <returns>Its connection string.</returns>
    public Task<string> CreateDatabaseAsync(string name, CancellationToken cancellation)
        => CreateDatabaseAsync(name, "template1", cancellation);

    /// <summary>The same, as a copy of another database, which nobody may be connected to.</summary>
    public async Task<string> CreateDatabaseAsync(string name, string template, CancellationToken cancellation)
    {
        await using var connection = new NpgsqlConnection(ConnectionString);
        await connection.OpenAsync(cancellation);
        foreach (var sql in new[]
        {
            $"drop database if exists {Quoted(name)} with (force)", $"create database {Quoted(name)} template {Quoted(template)}",
        })
        {
            await using var command = new NpgsqlCommand(sql, connection);
            await command.ExecuteNonQueryAsync(cancellation);
        }

        return ConnectionStringTo(name);
    }

    /// <summary>Ends every session and stops. The data stays; <see cref="RestartAsync"/> brings it back on the same port. Nothing happens
    /// when it is stopped.</summary>
    public Task StopAsync() => StopAsync(immediate: false);

    /// <summary>Stops as a crash would, without a checkpoint: the next start recovers from the log.</summary>
    public Task CrashAsync() => StopAsync(immediate: true);

    /// <summary>Stops if it runs, and starts on the same port.</summary>
    public async Task RestartAsync()
    {
        await StopAsync();
        await StartOnAsync(port, CancellationToken.None);
    }

    public async ValueTask DisposeAsync()
    {
        await StopAsync(immediate: false);
        if (relocated && Directory.Exists(Path.GetDirectoryName(data)!)) Directory.Delete(Path.GetDirectoryName(data)!, recursive: true);
    }

    // One line each, because the file says what a reader would otherwise look up.
    private const string Settings = """

        listen_addresses = '127.0.0.1'
        unix_socket_directories = ''
        max_connections = 200
        fsync = on
        synchronous_commit = on
        timezone = 'UTC'
        log_timezone = 'UTC'
        log_line_prefix = '%m [%p] %d '
        """;

    private static string Quoted(string name) => '"' + name.Replace("\"", "\"\"", StringComparison.Ordinal) + '"';

    private string ConnectionStringTo(string database) => new NpgsqlConnectionStringBuilder
    {
        Host = "127.0.0.1",
        Port = port,
        Username = Superuser,
        Database = database,
        // Test databases come and go: an idle pool must not hold a database that is being dropped.
        Pooling = database != "postgres",
    }.ConnectionString;

    private async Task StartOnFreePortAsync(CancellationToken cancellation)
    {
        // Between our look for a free port and the server's bind another process may take it.
        for (var attempt = 1; ; attempt++)
        {
            port = FreePort();
            try
            {
                await StartOnAsync(port, cancellation);
                return;
            }
            catch (InvalidOperationException failure) when (
                attempt < StartAttempts && failure.Message.Contains("could not bind", StringComparison.Ordinal))
            {
            }
        }
    }

    private async Task StartOnAsync(int onPort, CancellationToken cancellation)
    {
        try
        {
            if (File.Exists(log)) File.Delete(log);
            await PostgresToolAsync("pg_ctl", ["start", "-D", data, "-l", log, "-w", "-t", "60", "-o", $"-p {onPort}"], cancellation);
        }
        catch (InvalidOperationException failure)
        {
            var lines = File.Exists(log) ? await File.ReadAllLinesAsync(log, cancellation) : [];
            throw new InvalidOperationException($"{failure.Message}\n{string.Join('\n', lines.TakeLast(20))}", failure);
        }
    }

    private async Task StopAsync(bool immediate)
    {
        if (!File.Exists(Path.Combine(data, "postmaster.pid"))) return;
        try
        {
            await PostgresToolAsync(
                "pg_ctl", ["stop", "-D", data, "-m", immediate ? "immediate" : "fast", "-w", "-t", "60"], CancellationToken.None);
        }
        catch (InvalidOperationException failure) when (
            failure.Message.Contains("No such process", StringComparison.Ordinal)
                || failure.Message.Contains("PID file", StringComparison.Ordinal))
        {
            // The file outlived its process, or the process ended between our look and the signal.
        }
    }

    private Task PostgresToolAsync(string tool, string[] arguments, CancellationToken cancellation)
    {
        var path = Path.Combine(binaries, tool);
        // initdb and postgres refuse to run as root.
        return Environment.IsPrivilegedProcess
            ? RunAsync("setpriv",
                [$"--reuid={UnprivilegedUser}", $"--regid={UnprivilegedUser}", "--init-groups", "--", path, .. arguments], cancellation)
            : RunAsync(path, arguments, cancellation);
    }

    private static async Task RunAsync(string file, string[] arguments, CancellationToken cancellation)
    {
        var start = new ProcessStartInfo(file) { RedirectStandardOutput = true, RedirectStandardError = true, WorkingDirectory = "/" };
        foreach (var argument in arguments) start.ArgumentList.Add(argument);
        start.Environment["LC_ALL"] = "C";
        foreach (var name in start.Environment.Keys.Where(name => name.StartsWith("PG", StringComparison.Ordinal))
            .ToList()) start.Environment.Remove(name);

        using var deadline = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        deadline.CancelAfter(CommandTimeout);
        using var process = Process.Start(start) ?? throw new InvalidOperationException($"{file} did not start");
        var output = process.StandardOutput.ReadToEndAsync(deadline.Token);
        var error = process.StandardError.ReadToEndAsync(deadline.Token);
        await process.WaitForExitAsync(deadline.Token);
        if (process.ExitCode != 0)
        {
            throw new InvalidOperationException(
                $"{file} {string.Join(' ', arguments)} exited with {process.ExitCode}: {await error}{await output}");
        }
    }

    private static string FindBinaries()
    {
        var versioned = Directory.Exists("/usr/lib/postgresql")
            ? Directory.GetDirectories("/usr/lib/postgresql")
                .OrderByDescending(path => int.TryParse(Path.GetFileName(path), out var version) ? version : 0)
                    .Select(path => Path.Combine(path, "bin"))
            : [];
        var onPath = (Environment.GetEnvironmentVariable("PATH") ?? "").Split(':', StringSplitOptions.RemoveEmptyEntries);
        return versioned.Concat(onPath)
            .FirstOrDefault(path => Command.IsThere(Path.Combine(path, "initdb")) && Command.IsThere(Path.Combine(path, "postgres")))
            ?? throw new InvalidOperationException(
                "no Postgres binaries: install the package 'postgresql' (initdb and postgres under /usr/lib/postgresql/*/bin or on PATH)");
    }

    /// <summary>
    /// As root the server runs as another user, who cannot pass a parent directory that is closed to others (a repository under
    /// /root). Then the files live under the temp directory, at a name that the next start on the same directory finds again.
    /// </summary>
    private static (string Root, bool Relocated) Reachable(string directory)
    {
        if (!Environment.IsPrivilegedProcess || OperatingSystem.IsWindows()) return (directory, false);
        for (var parent = Path.GetDirectoryName(directory); parent is not null; parent = Path.GetDirectoryName(parent))
        {
            if (File.GetUnixFileMode(parent).HasFlag(UnixFileMode.OtherExecute)) continue;
            var name = Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(directory)))[..16];
            var root = Path.Combine(Path.GetTempPath(), $"tensormesh-postgres-{name}");
            Directory.CreateDirectory(root);
            return (root, true);
        }

        return (directory, false);
    }

    private static int FreePort()
    {
        using var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        return ((IPEndPoint)listener.LocalEndpoint).Port;
    }
}
