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

    /// <summary>
    /// The driver prepares what it sends for the second time. Where the server reads the statement and then not its values, the driver takes
    /// it for one without an answer from then on, and loses its place at the answer that comes.
    /// </summary>
    [Fact]
    public async Task A_statement_that_failed_as_the_driver_prepared_it_answers_the_next_time()
    {
        await OpenAsync(Acme, "10.00");
        await using var small = BillingServices.OpenDataSource(
            new NpgsqlConnectionStringBuilder(Database.ConnectionString) { MaxPoolSize = 1 }.ConnectionString);
        var (ledger, runs) = (new Ledger(small), new RunIntervals(small));
        Movement Grant(string key, string details) => Movements.CreditGrant(Acme, new(1), key, "tests", "x") with { Details = details };
        Assert.IsType<PostResult.Posted>(await ledger.PostAsync(Grant("first", "{}"), Cancellation));
        var session = await SessionAsync();
        await Assert.ThrowsAsync<PostgresException>(() => ledger.PostAsync(Grant("unreadable", "no json"), Cancellation));
        for (var i = 0; i < 3; i++) Assert.IsType<PostResult.Posted>(await ledger.PostAsync(Grant($"later-{i}", "{}"), Cancellation));

        // The same within a transaction: the name of a pod is text, which holds no zero byte.
        await PublishAsync(T0.AddDays(-1), (H100, "2.50"));
        RunStart Named(string name) => Start(NewDeployment(), NewPod(), 1, T0) with { PodName = name };
        Assert.True(await runs.OpenAsync(Named("a"), Cancellation));
        await Assert.ThrowsAsync<PostgresException>(() => runs.OpenAsync(Named("b\0"), Cancellation));
        for (var i = 0; i < 3; i++) Assert.True(await runs.OpenAsync(Named($"c{i}"), Cancellation));

        // It is the connection of before, which was put right and not thrown away.
        Assert.Equal(session, await SessionAsync());

        async Task<int> SessionAsync()
        {
            await using var connection = await small.OpenConnectionAsync(Cancellation);
            return connection.ProcessID;
        }
    }

    [Fact]
    public async Task Whatever_ends_badly_gives_its_connection_back()
    {
        await PublishAsync(T0.AddDays(-1), (H100, "2.50"));
        await OpenAsync(Acme, "10.00");
        await using var small = BillingServices.OpenDataSource(
            new NpgsqlConnectionStringBuilder(Database.ConnectionString) { MaxPoolSize = 3, Timeout = 30 }.ConnectionString);
        var (ledger, holds, runs, accounts) = (new Ledger(small), new Holds(small), new RunIntervals(small), new Accounts(small));
        await Parallel.ForEachAsync(
            Enumerable.Range(0, 240), new ParallelOptions { MaxDegreeOfParallelism = 12, CancellationToken = Cancellation }, async (i, _) =>
            {
                try
                {
                    switch (i % 6)
                    {
                        case 0: await ledger.PostAsync(Movements.CreditGrant(new("nobody"), new(1), $"{i}", "tests", "x"), Cancellation); break;
                        case 1: await ledger.PostAsync(Movements.CreditGrant(Acme, new(1), $"{i}", "t", "x") with { Details = "no json" }, Cancellation); break;
                        case 2: await holds.PlaceAsync(Ask(NewDeployment(), 100), Policy, T0, Cancellation); break;
                        case 3: await runs.OpenAsync(Start(NewDeployment(), NewPod(), 1, T0, product: L40S), Cancellation); break;
                        case 4: await accounts.DeclareAsync(Acme, new("Acme", null, null, "No/Where"), Cancellation); break;
                        default: await accounts.ReadStandingAsync(Acme, Cancellation); break;
                    }
                }
                catch (Exception expected) when (expected is PostgresException or InvalidOperationException or ArgumentException)
                {
                }
            });

        // All three can be had at once.
        await using var one = await small.OpenConnectionAsync(Cancellation);
        await using var two = await small.OpenConnectionAsync(Cancellation);
        await using var three = await small.OpenConnectionAsync(Cancellation);
        foreach (var connection in new[] { one, two, three })
        {
            await using var ask = new NpgsqlCommand("select 1", connection);
            Assert.Equal(1, await ask.ExecuteScalarAsync(Cancellation));
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
