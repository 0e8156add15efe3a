using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using System.Text.RegularExpressions;
using Npgsql;
using Tensormesh.Billing;
using Tensormesh.Operator.Proving;
using Tensormesh.TestKit;

namespace Tensormesh.Integration.Tests.Billing;

/// <summary>The runbook's commands, as they stand there: a base backup and the log since, restored into a second Postgres.</summary>
public sealed partial class BackupTests(PostgresFixture postgres) : BillingTest(postgres)
{
    private readonly string folder = Path.Combine(Path.GetTempPath(), $"tensormesh-backup-{Guid.NewGuid():n}"[..28]);
    private readonly int restoredPort = FreePort();
    private PostgresServer? server;

    private string Wal => Path.Combine(folder, "wal");
    private string Backup => Path.Combine(folder, "backup");
    private string Restored => Path.Combine(folder, "restored");

    /// <summary>A server of its own, which archives as the runbook says.</summary>
    protected override async Task<NpgsqlDataSource> OpenDatabaseAsync()
    {
        Directory.CreateDirectory(Wal);
        if (Environment.IsPrivilegedProcess) await RunAsync("chown", ["-R", "postgres:", folder]);
        var settings = Block("archive_mode = on").Replace("/var/backups/wal", Wal, StringComparison.Ordinal);
        server = await PostgresServer.StartAsync(Path.Combine(folder, "first"), Cancellation, "\n" + settings + "\n");
        var database = BillingServices.OpenDataSource(await server.CreateDatabaseAsync("billing", Cancellation));
        await Migrator.MigrateAsync(database, Cancellation);
        return database;
    }

    public override async ValueTask DisposeAsync()
    {
        try
        {
            await base.DisposeAsync();
        }
        finally
        {
            if (Directory.Exists(Restored)) await AsPostgresAsync($"'{server!.Binaries}/pg_ctl' stop -D '{Restored}' -m immediate || true");
            if (server is not null) await server.DisposeAsync();
            Directory.Delete(folder, recursive: true);
        }
    }

    [Fact]
    public async Task A_restored_backup_has_every_transaction_to_the_last_and_proves_itself()
    {
        await PublishAsync(T0.AddDays(-1), (H100, "2.50"));
        await OpenAsync(Acme, "100.00");
        var (_, pod) = await RunAsync(2, T0);
        await Meter.SettleAsync(Acme, T0.AddMinutes(10), Cancellation);
        await new LedgerSeals(Database, TimeProvider.System).SealAsync(Cancellation);

        await AsPostgresAsync(Block("pg_basebackup"));

        // After the backup, and so in the log alone.
        await Meter.SettleAsync(Acme, T0.AddMinutes(20), Cancellation);
        await GrantAsync(Acme, "7.00");
        await Runs.CloseAsync(pod, T0.AddMinutes(25), Policy, Cancellation);
        await new LedgerSeals(Database, TimeProvider.System).SealAsync(Cancellation);
        var (expected, transactions) = (await BooksAsync(Database), await ScalarAsync<long>("select count(*) from ledger_transaction"));
        Assert.True(transactions >= 5, $"{transactions} transactions");
        var last = await ScalarAsync<string>("select pg_walfile_name(pg_switch_wal())");
        await Eventually.SeeAsync(() => Task.FromResult(File.Exists(Path.Combine(Wal, last))), archived => archived);

        // The first machine is gone.
        await server!.CrashAsync();
        await AsPostgresAsync(Block("recovery.signal"));
        var restored = new NpgsqlConnectionStringBuilder(server.ConnectionString) { Port = restoredPort, Database = "billing", Pooling = false }.ConnectionString;
        await using var second = BillingServices.OpenDataSource(restored);
        Assert.Equal(expected, await BooksAsync(second));
        var output = new StringWriter();
        Assert.Equal(0, await LedgerCommand.RunAsync(["ledger", "verify"], restored, output, output, Cancellation));
        Assert.Contains($"Sound: {transactions} transactions", output.ToString(), StringComparison.Ordinal);
        Assert.Contains("(0 transactions are not sealed yet)", output.ToString(), StringComparison.Ordinal);

        // Work goes on there, on the same keys.
        await Eventually.SeeAsync(async () => await ReadAsync(second, "select pg_is_in_recovery()::text"), recovering => recovering == "false");
        Assert.IsType<PostResult.Posted>(await new Ledger(second).PostAsync(Movements.CreditGrant(Acme, Money.Parse("1.00"), "after", "tests", "a test"), Cancellation));
        await new Meter(second).SettleAsync(Acme, T0.AddMinutes(30), Cancellation);
        Assert.Equal(0, await LedgerCommand.RunAsync(["ledger", "verify"], restored, output, output, Cancellation));
        // What the base class looks at in the end is on the server that was.
        await server.RestartAsync();
        // Connections that the crash left in the pool fail once each, when they are next used.
        await Eventually.SeeAsync(AnswersInARowAsync, answers => answers == 10);
    }

    private async Task<int> AnswersInARowAsync()
    {
        for (var answers = 0; answers < 10; answers++)
        {
            try
            {
                await ScalarAsync<int>("select 1");
            }
            catch (NpgsqlException)
            {
                return answers;
            }
        }

        return 10;
    }

    /// <summary>Every balance, every transaction's key and amount, and every run.</summary>
    private static async Task<string> BooksAsync(NpgsqlDataSource database) => string.Join('\n',
        await ReadAsync(database, "select string_agg(b::text, ';' order by b::text) from v_trial_balance b"),
        await ReadAsync(database, "select string_agg(t.position || t.idempotency_key || t.amounts::text, ';' order by t.position) from ledger_transaction t"),
        await ReadAsync(database, "select string_agg(r::text, ';' order by r::text) from run_interval r"),
        await ReadAsync(database, "select string_agg(h::text, ';' order by h::text) from credit_hold h"));

    private static async Task<string> ReadAsync(NpgsqlDataSource database, string sql)
    {
        await using var command = database.CreateCommand(sql);
        return await command.ExecuteScalarAsync(Cancellation) as string ?? "";
    }

    /// <summary>The fenced block of the runbook's section that has this in it.</summary>
    private static string Block(string containing)
    {
        var section = File.ReadAllText(Repository.Folder("docs", "runbook.md")).Split("\n## ").Single(each => each.StartsWith("Backup and restore", StringComparison.Ordinal));
        return Fenced().Matches(section).Select(match => match.Groups[1].Value).Single(block => block.Contains(containing, StringComparison.Ordinal));
    }

    /// <summary>As the user that Postgres runs as, with the variables that the runbook names.</summary>
    private async Task AsPostgresAsync(string script)
    {
        var connection = new NpgsqlConnectionStringBuilder(server!.ConnectionString);
        string[] variables =
        [
            $"PATH={server.Binaries}:/usr/bin:/bin", $"PGHOST={connection.Host}", $"PGPORT={connection.Port}", $"PGUSER={connection.Username}",
            $"BACKUP={Backup}", $"RESTORED={Restored}", $"RESTORED_PORT={restoredPort}", $"WAL={Wal}",
        ];
        string[] shell = ["env", .. variables, "bash", "-euc", script];
        if (Environment.IsPrivilegedProcess) await RunAsync("setpriv", ["--reuid=postgres", "--regid=postgres", "--init-groups", "--", .. shell]);
        else await RunAsync(shell[0], shell[1..]);
    }

    private static async Task RunAsync(string file, string[] arguments)
    {
        var start = new ProcessStartInfo(file, arguments) { RedirectStandardError = true, WorkingDirectory = "/" };
        using var process = Process.Start(start)!;
        // The server that is started inherits the pipe, so that it is not read to its end.
        await process.WaitForExitAsync(Cancellation);
        Assert.True(process.ExitCode == 0, process.ExitCode == 0 ? "" : await process.StandardError.ReadToEndAsync(Cancellation));
    }

    private static int FreePort()
    {
        using var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        return ((IPEndPoint)listener.LocalEndpoint).Port;
    }

    [GeneratedRegex("```[a-z]*\n(.*?)```", RegexOptions.Singleline)]
    private static partial Regex Fenced();
}
