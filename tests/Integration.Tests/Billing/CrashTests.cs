using Npgsql;
using Tensormesh.Billing;

namespace Tensormesh.Integration.Tests.Billing;

/// <summary>
/// The session is ended by the server at each statement that writes, before it, after it and at the commit: then everything of one
/// change is there or nothing of it. Record and balance never part.
/// </summary>
public sealed class CrashTests(PostgresFixture postgres) : BillingTest(postgres)
{
    private const int MostStatements = 200;

    [Fact]
    public async Task A_crash_at_any_statement_leaves_all_of_a_change_or_nothing_and_the_same_again_completes_it()
    {
        await PublishAsync(T0, (H100, "2.50"));
        await OpenAsync(Acme, "10.00");
        await SetTrapsAsync();
        var (deployment, first, second) = (NewDeployment(), NewPod(), NewPod());
        var grant = Movements.CreditGrant(Acme, Money.Parse("2.00"), "crash", "tests", "a test");
        var topUp = Guid.NewGuid().ToString();

        await CrashAsync("hold", () => Holds.PlaceAsync(Ask(deployment, 2), Policy, T0, Cancellation));
        await CrashAsync("start", () => Runs.OpenAsync(Start(deployment, first, 1, T0), Cancellation));
        await CrashAsync("second start", () => Runs.OpenAsync(Start(deployment, second, 1, T0.AddSeconds(1)), Cancellation));
        await CrashAsync("settlement", () => Meter.SettleAsync(Acme, T0.AddMinutes(5), Cancellation));
        await CrashAsync("price change", () => PublishAsync(T0.AddMinutes(6), (H100, "3.00")));
        await CrashAsync("grant", () => Ledger.PostAsync(grant, Cancellation));
        await CrashAsync("batch", () => Ledger.PostManyAsync(
            [grant, Movements.CreditGrant(Acme, Money.Parse("0.25"), "crash-2", "tests", "a test")], Cancellation));
        await CrashAsync("top-up", () => TopUps.ChargeAsync(Acme, Money.Parse("1.00"), "pm_card_visa", topUp, Cancellation));
        // Settled past its true end before: the difference goes back.
        await CrashAsync("end", () => Runs.CloseAsync(first, T0.AddMinutes(4), Cancellation));
        await CrashAsync("suspension", () => Meter.SuspendIfExhaustedAsync(Acme, Policy, T0.AddHours(20), Cancellation));
        await CrashAsync("last end", () => Runs.CloseAsync(second, T0.AddHours(20), Cancellation));
        await CrashAsync("release", () => Holds.ReleaseAsync(deployment, Cancellation));

        // What a world without crashes would hold.
        var due = Rating.Due(TimeSpan.FromMinutes(4), Money.Parse("2.50"), 1);
        var spent = Money.Parse("13.25") - await PostedAsync();
        var run = await ScalarAsync<long>($"select total_nanos from run_interval where pod = '{second}'");
        Assert.Equal(spent, due + new Money(run));
        Assert.InRange((await PostedAsync()).Nanos, 0, 1000);
        Assert.Equal(1L, await ScalarAsync<long>("select count(*) from suspension"));
        Assert.Equal(0L, await ScalarAsync<long>("select count(*) from credit_hold"));
        Assert.Equal(3L, await ScalarAsync<long>("select count(*) from ledger_transaction where type = 'CreditGrant'"));
        Assert.Equal(1L, await ScalarAsync<long>("select count(*) from ledger_transaction where type = 'TopUp'"));
    }

    /// <summary>Runs the change with a crash at its first statement, then at its second, and so on until it is through; then once more.</summary>
    private async Task CrashAsync(string name, Func<Task> change)
    {
        var crashes = 0;
        for (var statement = 1; ; statement++)
        {
            Assert.True(statement < MostStatements, $"{name}: {statement} statements and no end");
            var before = await ScalarAsync<string>(Books.Dump);
            await ExecuteAsync($"select setval('crash_statement', 1, false); update crash_at set statement = {statement}");
            try
            {
                await change();
                break;
            }
            catch (NpgsqlException crash)
            {
                Assert.True(LedgerAvailability.IsUnavailable(crash), $"{name}, statement {statement}: {crash}");
                crashes++;
            }

            await ExecuteAsync("update crash_at set statement = null");
            Assert.Equal(before, await ScalarAsync<string>(Books.Dump));
        }

        await ExecuteAsync("update crash_at set statement = null");
        // Before and after one statement, and at the commit: no change is smaller than that.
        Assert.True(crashes >= 2, $"{name}: {crashes} crashes");
        // Died after the commit and before it heard of it: done again, it changes nothing.
        var after = await ScalarAsync<string>(Books.Dump);
        await change();
        Assert.Equal(after, await ScalarAsync<string>(Books.Dump));
    }

    private async Task SetTrapsAsync()
    {
        await ExecuteAsync(
            """
            create sequence crash_statement;
            create table crash_at (statement bigint);
            insert into crash_at values (null);
            create function crash() returns trigger language plpgsql as $$
            begin
              if nextval('crash_statement') = (select statement from crash_at) then
                perform pg_terminate_backend(pg_backend_pid());
                perform pg_sleep(60);
              end if;
              return null;
            end $$;
            """);
        foreach (var table in Books.Tables)
        {
            await ExecuteAsync(
                $"""
                create trigger a_crash_before before insert or update or delete on {table} for each statement execute function crash();
                create trigger z_crash_after after insert or update or delete on {table} for each statement execute function crash();
                create constraint trigger z_crash_at_commit after insert or update or delete on {table}
                  deferrable initially deferred for each row execute function crash();
                """);
        }
    }
}
