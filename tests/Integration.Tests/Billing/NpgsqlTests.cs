using System.Text.RegularExpressions;
using Npgsql;
using Tensormesh.Billing;
using Tensormesh.TestKit;

namespace Tensormesh.Integration.Tests.Billing;

/// <summary>What the driver does not forgive: times that are not UTC, connections that are not given back, sessions that are gone.</summary>
public sealed class NpgsqlTests(PostgresFixture postgres) : BillingTest(postgres)
{
    [Fact]
    public async Task An_instant_of_any_offset_is_that_instant()
    {
        // Postgres' driver refuses an offset other than zero when it writes.
        static DateTimeOffset Local(DateTimeOffset time) => time.ToOffset(TimeSpan.FromHours(5.5));
        await PublishAsync(Local(T0.AddDays(-1)), (H100, "2.50"));
        await OpenAsync(Acme, "100.00");
        var (deployment, pod) = await RunAsync(4, Local(T0));
        await Meter.SettleAsync(Acme, Local(T0.AddMinutes(6)), Cancellation);
        await PublishAsync(Local(T0.AddMinutes(12)), (H100, "5.00"));
        Assert.True(await Runs.CloseAsync(pod, Local(T0.AddMinutes(18)), Cancellation));
        await Meter.SuspendAsync(deployment, Local(T0.AddMinutes(20)), Cancellation);
        await Meter.SuspendIfExhaustedAsync(Acme, Policy, Local(T0.AddMinutes(30)), Cancellation);
        // 12 minutes at $10 an hour and 6 at $20.
        Assert.Equal(Money.Parse("96.00"), await PostedAsync());

        foreach (var (key, many) in new[] { ("one", false), ("two", true) })
        {
            var movement = Movements.CreditGrant(Acme, new(1), key, "tests", "x") with { EffectiveAt = Local(T0.AddHours(1)) };
            Assert.IsType<PostResult.Posted>(many
                ? Assert.Single(await Ledger.PostManyAsync([movement], Cancellation))
                : await Ledger.PostAsync(movement, Cancellation));
            Assert.Equal(T0.AddHours(1).UtcDateTime, await ScalarAsync<DateTime>(
                $"select effective_at from ledger_transaction where idempotency_key = '{movement.Key}'"));
        }
    }

    [Fact]
    public async Task Sessions_that_a_failover_ended_are_replaced_without_a_restart()
    {
        var directory = Path.Combine(Path.GetTempPath(), $"tensormesh-failover-{Guid.NewGuid():n}");
        try
        {
            await using var server = await PostgresServer.StartAsync(directory, Cancellation);
            await using var source = BillingServices.OpenDataSource(await server.CreateDatabaseAsync("money", Cancellation));
            await Migrator.MigrateAsync(source, Cancellation);
            var accounts = new Accounts(source);
            await accounts.DeclareAsync(Acme, new("Acme", null, null, "UTC"), Cancellation);
            // A pool full of sessions with prepared statements.
            for (var i = 0; i < 4; i++) await Task.WhenAll(Enumerable.Range(0, 12).Select(_ => accounts.ReadStandingAsync(Acme, Cancellation)));

            await server.CrashAsync();
            await server.RestartAsync();
            var ledger = new Ledger(source);
            var grant = Movements.CreditGrant(Acme, new(7), "after", "tests", "x");
            await Eventually.SeeAsync(async () =>
            {
                try
                {
                    return await ledger.PostAsync(grant, Cancellation) is PostResult.Posted or PostResult.AlreadyPosted;
                }
                catch (NpgsqlException stale)
                {
                    Assert.True(LedgerAvailability.IsUnavailable(stale), stale.ToString());
                    return false;
                }
            }, posted => posted);
            Assert.Equal(new Money(7), (await accounts.ReadStandingAsync(Acme, Cancellation))!.Posted);
        }
        finally
        {
            if (Directory.Exists(directory)) Directory.Delete(directory, recursive: true);
        }
    }

    [Fact]
    public async Task Nothing_is_kept_in_a_session_that_a_pooler_in_transaction_mode_would_give_to_another()
    {
        // Session locks, temporary tables and settings outlive the transaction; LISTEN has a connection of its own.
        var session = new Regex(
            @"pg_(try_)?advisory_(lock|unlock)|\btemp(orary)?\s+table|\bset\s+session\b|^\s*set\s+(?!local)\w+\s*(=|to)\b|\bdeclare\s+\w+\s+cursor\s+with\s+hold",
            RegexOptions.IgnoreCase | RegexOptions.Multiline);
        var assembly = typeof(Ledger).Assembly;
        foreach (var name in assembly.GetManifestResourceNames().Where(name => name.EndsWith(".sql", StringComparison.Ordinal)))
        {
            using var reader = new StreamReader(assembly.GetManifestResourceStream(name)!);
            Assert.DoesNotMatch(session, await reader.ReadToEndAsync(Cancellation));
        }

        foreach (var file in new[] { "Tensormesh.Billing", "Tensormesh.Operator", "Tensormesh.Web" }.SelectMany(project => Directory.GetFiles(
            Path.Combine(Repository.Root, "src", project), "*.cs", SearchOption.AllDirectories)))
        {
            Assert.DoesNotMatch("pg_(try_)?advisory_(lock|unlock)\\(", await File.ReadAllTextAsync(file, Cancellation));
        }

        await Task.WhenAll(Enumerable.Range(0, 20).Select(_ => Migrator.MigrateAsync(Database, Cancellation)));
        Assert.Equal(0L, await ScalarAsync<long>("select count(*) from pg_locks where locktype = 'advisory'"));
    }
}
