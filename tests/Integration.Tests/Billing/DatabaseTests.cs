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

    [Fact]
    public async Task Transactions_of_rows_become_rows_of_entries_with_all_their_money()
    {
        await ExecuteAsync("create schema earlier");
        await using var earlier = BillingServices.OpenDataSource(Database.ConnectionString + ";Search Path=earlier");
        foreach (var name in SqlText.Migrations.Where(name => string.CompareOrdinal(name, "Migrations/0007") < 0)) await RunAsync(SqlText.Read(name));
        await RunAsync("insert into account (id, display_name) values ('acme', 'Acme')");
        await RunAsync("insert into ledger_account (name, account) values ('customer:acme', 'acme')");
        await RunAsync("insert into ledger_account (name, shards) values ('cash:sandbox', 64)");
        // Entries in another order than that of the names, a transaction of three, and one that is about no customer.
        await RunAsync(Old("txn_1", "topup/sandbox/pi_1", "('customer:acme', 20), ('cash:sandbox', -20)"));
        await RunAsync(Old("txn_2", "gpu/1", "('revenue:gpu', 4), ('customer:acme', -7), ('revenue:serverless', 3)"));
        await RunAsync(Old("txn_3", "uncollected/1", "('expense:uncollected', -2), ('revenue:gpu', 2)"));
        await RunAsync(
            """
            insert into ledger_balance (ledger_account, shard, amount_nanos, may_be_negative)
            select e.ledger_account, case when a.account is null then 3 else 0 end, sum(e.amount_nanos), a.account is null
            from ledger_entry e join ledger_account a on a.id = e.ledger_account group by 1, 2, 4
            """);
        const string books =
            """
            select string_agg(concat_ws(' ', t.position, t.id, t.idempotency_key, t.details, a.name, e.amount_nanos, e.currency), E'\n' order by t.position, a.name)
            from ledger_transaction t join ledger_entry e on e.transaction_position = t.position join ledger_account a on a.id = e.ledger_account
            """;
        var before = await ReadAsync<string>(books);

        await RunAsync("create table schema_migration (name text primary key, checksum text not null, applied_at timestamptz not null default clock_timestamp())");
        foreach (var name in SqlText.Migrations.Where(name => string.CompareOrdinal(name, "Migrations/0007") < 0))
        {
            await RunAsync($"insert into schema_migration (name, checksum) select name, checksum from public.schema_migration where name = '{name}'");
        }

        await Migrator.MigrateAsync(earlier, Cancellation);

        Assert.Equal(before, await ReadAsync<string>(books));
        Assert.Equal(0m, await ReadAsync<decimal>("select sum(balance) + sum(abs(difference_to_projection)) from v_trial_balance"));
        Assert.Equal(new Money(13), (await new Accounts(earlier).ReadStandingAsync(Acme, Cancellation))!.Posted);
        Assert.Equal([-7L, 20L], (await new Transactions(earlier).ListAsync(Acme, null, 10, Cancellation)).Select(row => row.Amount.Nanos));
        // What was posted before is found by its key, and what is posted now comes after it.
        Assert.Equal(
            new PostResult.AlreadyPosted("txn_1"),
            await new Ledger(earlier).PostAsync(Movements.TopUp(Acme, new(20), "sandbox", "pi_1", "pm") with { Type = MovementType.TopUp }, Cancellation));
        Assert.IsType<PostResult.Posted>(await new Ledger(earlier).PostAsync(Movements.TopUp(Acme, new(1), "sandbox", "pi_2", "pm"), Cancellation));
        Assert.True(await ReadAsync<long>("select max(position) from ledger_transaction") > 3);

        static string Old(string id, string key, string entries) =>
            $"""
            with t as (
              insert into ledger_transaction (id, type, idempotency_key, content_hash, effective_at, description)
              values ('{id}', 'TopUp', '{key}', '', now(), '') returning position)
            insert into ledger_entry (transaction_position, ordinal, ledger_account, amount_nanos, currency)
            select t.position, row_number() over (), a.id, e.amount, 'USD' from t, (values {entries}) e(name, amount) join ledger_account a on a.name = e.name
            """;

        async Task RunAsync(string sql)
        {
            await using var command = earlier.CreateCommand(sql);
            await command.ExecuteNonQueryAsync(Cancellation);
        }

        async Task<T> ReadAsync<T>(string sql)
        {
            await using var command = earlier.CreateCommand(sql);
            return (T)(await command.ExecuteScalarAsync(Cancellation))!;
        }
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
