using Npgsql;
using Tensormesh.Billing;
using Tensormesh.TestKit;

namespace Tensormesh.Integration.Tests.Billing;

public sealed class DatabaseTests(PostgresFixture postgres) : BillingTest(postgres)
{
    [Fact]
    public async Task Migrating_again_and_from_several_processes_at_once_changes_nothing()
    {
        var before = await ScalarAsync<DateTime>("select max(applied_at) from schema_migration");
        await Task.WhenAll(Enumerable.Range(0, 5).Select(_ => Task.Run(() => Migrator.MigrateAsync(Database, Cancellation))));
        Assert.Equal(before, await ScalarAsync<DateTime>("select max(applied_at) from schema_migration"));
    }

    [Fact]
    public async Task A_migration_that_was_edited_after_it_ran_is_an_error()
    {
        await ExecuteAsync("update schema_migration set checksum = 'other' where name = 'Migrations/0001_create_ledger.sql'");
        var error = await Assert.ThrowsAsync<InvalidOperationException>(() => Migrator.MigrateAsync(Database, Cancellation));
        Assert.Contains("0001_create_ledger.sql was applied to this database with another text", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_database_that_is_newer_than_the_program_is_an_error()
    {
        await ExecuteAsync("insert into schema_migration (name, checksum) values ('Migrations/9999_from_the_future.sql', 'x')");
        await Assert.ThrowsAsync<InvalidOperationException>(() => Migrator.MigrateAsync(Database, Cancellation));
    }

    [Fact]
    public async Task Functions_and_views_are_installed_again_when_their_text_changes()
    {
        await ExecuteAsync("update schema_migration set checksum = 'other' where name = 'Sql/views.sql'");
        await ExecuteAsync("drop view v_hold");
        await Migrator.MigrateAsync(Database, Cancellation);
        Assert.Equal(0L, await ScalarAsync<long>("select count(*) from v_hold"));
    }

    [Theory]
    [InlineData("v_balance")]
    [InlineData("v_transaction")]
    [InlineData("v_run_interval")]
    [InlineData("v_hold")]
    [InlineData("v_price")]
    [InlineData("v_trial_balance")]
    [InlineData("v_suspension")]
    public async Task Every_view_can_be_read_and_says_what_it_is(string view)
    {
        await PublishAsync(T0, (H100, "2.50"));
        await OpenAsync(Acme, "10.00");
        await RunAsync(4, T0);
        await Meter.SuspendIfExhaustedAsync(Acme, Policy, T0.AddHours(1), Cancellation);
        await ScalarAsync<long>($"select count(*) from {view}");
        Assert.NotEmpty(await ScalarAsync<string>($"select obj_description('{view}'::regclass)"));
    }

    [Fact]
    public async Task A_database_that_is_gone_is_unavailable_and_comes_back_with_all_its_money()
    {
        var directory = Path.Combine(Path.GetTempPath(), $"tensormesh-fault-{Guid.NewGuid():n}");
        try
        {
            await using var server = await PostgresServer.StartAsync(directory, Cancellation);
            await using var source = BillingServices.OpenDataSource(await server.CreateDatabaseAsync("money", Cancellation));
            await Migrator.MigrateAsync(source, Cancellation);
            await new Accounts(source).DeclareAsync(Acme, new("Acme", null, null, "UTC"), Cancellation);
            var grant = Movements.CreditGrant(Acme, Money.Parse("5.00"), "k", "tests", "x");
            Assert.IsType<PostResult.Posted>(await new Ledger(source).PostAsync(grant, Cancellation));

            await server.CrashAsync();
            for (var i = 0; i < 3; i++)
            {
                var error = await Assert.ThrowsAnyAsync<NpgsqlException>(() => new Accounts(source).ReadStandingAsync(Acme, Cancellation));
                Assert.True(LedgerAvailability.IsUnavailable(error), error.ToString());
            }

            await server.RestartAsync();
            NpgsqlConnection.ClearAllPools();
            Assert.Equal(Money.Parse("5.00"), (await new Accounts(source).ReadStandingAsync(Acme, Cancellation))!.Posted);
            Assert.IsType<PostResult.AlreadyPosted>(await new Ledger(source).PostAsync(grant, Cancellation));
        }
        finally
        {
            if (Directory.Exists(directory)) Directory.Delete(directory, recursive: true);
        }
    }

    [Fact]
    public async Task A_pool_with_nothing_left_is_unavailable()
    {
        await using var small = BillingServices.OpenDataSource(
            new NpgsqlConnectionStringBuilder(Database.ConnectionString) { MaxPoolSize = 1, Timeout = 1 }.ConnectionString);
        await using var taken = await small.OpenConnectionAsync(Cancellation);
        var error = await Assert.ThrowsAnyAsync<NpgsqlException>(() => new Accounts(small).ListAsync(Cancellation));
        Assert.True(LedgerAvailability.IsUnavailable(error), error.ToString());
    }
}
