using System.Diagnostics;
using Npgsql;

namespace Tensormesh.TestKit;

/// <summary>When a pooler gives a session of the server to another client.</summary>
public enum PoolMode
{
    /// <summary>When the client disconnects.</summary>
    Session,
    /// <summary>After each transaction.</summary>
    Transaction,
}

/// <summary>
/// A PgBouncer on a free loopback port in front of a <see cref="PostgresServer"/>, with its files beside the server's. It dies with its owner.
/// </summary>
public sealed class PgBouncer : IAsyncDisposable
{
    private const string UnprivilegedUser = "postgres";
    private const int StartAttempts = 5;
    private static readonly TimeSpan StartLimit = TimeSpan.FromSeconds(30);

    private static string Program => Command.Find("pgbouncer")!;

    private readonly Process process;
    private readonly int port;

    private PgBouncer(Process process, int port)
    {
        this.process = process;
        this.port = port;
    }

    /// <param name="sessions">How many sessions of the server the clients of one database share.</param>
    /// <exception cref="InvalidOperationException">It did not start: the message carries the end of its log.</exception>
    public static async Task<PgBouncer> StartAsync(PostgresServer server, PoolMode mode, int sessions, CancellationToken cancellation)
    {
        await Prerequisites.EnsurePgBouncerAsync(Console.WriteLine, cancellation);
        var folder = Path.GetDirectoryName(server.LogFile)!;
        var keepsStatementsApart = await KeepsStatementsApartAsync(cancellation);
        // Between our look for a free port and its bind another process may take it.
        for (var attempt = 1; ; attempt++)
        {
            var port = FreePorts.Take(1)[0];
            var (settings, log) = (Path.Combine(folder, $"pgbouncer-{port}.ini"), Path.Combine(folder, $"pgbouncer-{port}.log"));
            await File.WriteAllTextAsync(settings, Settings(server, mode, sessions, port, keepsStatementsApart), cancellation);
            var pooler = new PgBouncer(await LaunchAsync(settings, log), port);
            if (await pooler.AnswersAsync(server.ConnectionString, cancellation)) return pooler;
            await pooler.DisposeAsync();
            var lines = await File.ReadAllLinesAsync(log, cancellation);
            if (attempt == StartAttempts) throw new InvalidOperationException($"PgBouncer did not start:\n{string.Join('\n', lines.TakeLast(20))}");
        }
    }

    /// <summary>The same database, by way of this pooler.</summary>
    public string Through(string connectionString)
        => new NpgsqlConnectionStringBuilder(connectionString) { Host = "127.0.0.1", Port = port }.ConnectionString;

    public async ValueTask DisposeAsync()
    {
        if (!process.HasExited) process.Kill();
        await process.WaitForExitAsync(CancellationToken.None);
        process.Dispose();
    }

    private static string Settings(PostgresServer server, PoolMode mode, int sessions, int port, bool keepsStatementsApart) =>
        $"""
        [databases]
        * = host=127.0.0.1 port={server.Port} user={PostgresServer.Superuser}

        [pgbouncer]
        listen_addr = 127.0.0.1
        listen_port = {port}
        unix_socket_dir =
        auth_type = any
        pool_mode = {(mode == PoolMode.Session ? "session" : "transaction")}
        default_pool_size = {sessions}
        max_client_conn = 400
        {(keepsStatementsApart ? "max_prepared_statements = 0" : "")}
        """;

    /// <summary>From 1.21 on it can keep the clients' prepared statements apart. That is turned off, so that every version is as the oldest.</summary>
    private static async Task<bool> KeepsStatementsApartAsync(CancellationToken cancellation)
    {
        var version = await Command.RunAsync(Program, ["--version"], cancellation);
        return Version.Parse(version.Split('\n')[0].Split(' ')[1]) >= new Version(1, 21);
    }

    private static Task<Process> LaunchAsync(string settings, string log)
    {
        string[] command = [Program, settings];
        // It refuses to run as root, and a change of user takes the parent-death signal away: that comes after.
        return Environment.IsPrivilegedProcess
            ? ProcessLauncher.StartAsync(log, "setpriv",
                [$"--reuid={UnprivilegedUser}", $"--regid={UnprivilegedUser}", "--init-groups", "--pdeathsig", "KILL", "--", .. command])
            : ProcessLauncher.StartAsync(log, command[0], command[1..]);
    }

    /// <summary>False when it ended, or does not serve within the limit.</summary>
    private async Task<bool> AnswersAsync(string connectionString, CancellationToken cancellation)
    {
        var began = Stopwatch.GetTimestamp();
        while (!process.HasExited && Stopwatch.GetElapsedTime(began) < StartLimit)
        {
            try
            {
                await using var connection = new NpgsqlConnection(Through(connectionString));
                await connection.OpenAsync(cancellation);
                return true;
            }
            catch (NpgsqlException)
            {
                await Task.Delay(TimeSpan.FromMilliseconds(50), TimeProvider.System, cancellation);
            }
        }

        return false;
    }
}
