using Npgsql;
using Tensormesh.Billing;

namespace Tensormesh.Integration.Tests.Billing;

/// <summary>
/// The session is ended by the server, or the statement by an error, at each statement that writes, before it, after it and at the commit: then
/// everything of one change is there or nothing of it. Record and balance never part.
/// </summary>
public sealed class CrashTests(PostgresFixture postgres) : BillingTest(postgres)
{
    private const int MostStatements = 200;
    private const string Ended = "ended at ";

    private static readonly string[] Posting = ["ledger_balance", "ledger_transaction"];
    private static readonly string[] Starting = ["run_interval", "run_interval_rating"];
    private static readonly string[] Running = [.. Starting, "gpu_holder"];
    private static readonly string[] Settling = [.. Posting, .. Running, "credit_hold"];

    [Fact]
    public async Task A_crash_at_any_statement_leaves_all_of_a_change_or_nothing_and_the_same_again_completes_it()
    {
        await SetTrapsAsync();
        var (deployment, first, second) = (NewDeployment(), NewPod(), NewPod());
        var (other, third, spare, fourth, faulty) = (NewDeployment(), NewPod(), NewDeployment(), NewPod(), NewPod());
        var grant = Movements.CreditGrant(Acme, Money.Parse("12.00"), "crash", "tests", "a test");
        Movement[] few = [grant, Movements.CreditGrant(Acme, Money.Parse("0.25"), "crash-2", "tests", "a test")];
        // More than 24 at once go another way into the ledger.
        Movement[] many = [.. Enumerable.Range(1, 30).Select(i => Movements.CreditGrant(Acme, new(1), $"many-{i}", "tests", "a test"))];
        var topUp = Guid.NewGuid().ToString();

        await CrashAsync("prices", ["price_version"], () => PublishAsync(T0, (H100, "2.50")));
        await CrashAsync("account", ["account", "ledger_account", "ledger_balance"], () => DeclareAsync(Acme));
        await CrashAsync("card", ["payment_method"], () => Cards.AttachAsync(Acme, "pm_card_visa", Cancellation));
        await CrashAsync("second card", ["payment_method"], () => Cards.AttachAsync(Acme, "pm_card_amex", Cancellation));
        await CrashAsync("default", ["payment_method"], () => Cards.MakeDefaultAsync(Acme, "pm_card_amex", Cancellation));
        await CrashAsync("card goes", ["payment_method"], () => Cards.DetachAsync(Acme, "pm_card_amex", Cancellation));
        await CrashAsync("grant", Posting, () => Ledger.PostAsync(grant, Cancellation));
        await CrashAsync("batch", Posting, () => Ledger.PostManyAsync(few, Cancellation));
        await CrashAsync("large batch", Posting, () => Ledger.PostManyAsync(many, Cancellation));
        // The first from a payment company opens the account of its cash.
        await CrashAsync(
            "top-up", [.. Posting, "ledger_account", "payment_method", "top_up"], () => TopUps.ChargeAsync(Acme, Money.Parse("1.00"), "pm_card_visa", topUp, Cancellation));

        await CrashAsync("hold", ["credit_hold"], () => Holds.PlaceAsync(Ask(deployment, 2), Policy, T0, Cancellation));
        await CrashAsync("other hold", ["credit_hold"], () => Holds.PlaceAsync(Ask(other, 1), Policy, T0, Cancellation));
        await CrashAsync("spare hold", ["credit_hold"], () => Holds.PlaceAsync(Ask(spare, 1), Policy, T0, Cancellation));
        await CrashAsync("release", ["credit_hold"], () => Holds.ReleaseAsync(spare, Cancellation));
        await CrashAsync("start", Starting, () => Runs.OpenAsync(Start(deployment, first, 1, T0), Cancellation));
        await CrashAsync("second start", Starting, () => Runs.OpenAsync(Start(deployment, second, 1, T0.AddSeconds(1)), Cancellation));
        await CrashAsync("other start", Starting, () => Runs.OpenAsync(Start(other, third, 1, T0), Cancellation));
        await CrashAsync("faulty start", Starting, () => Runs.OpenAsync(Start(deployment, faulty, 1, T0), Cancellation));
        await CrashAsync("another start", Starting, () => Runs.OpenAsync(Start(deployment, fourth, 1, T0), Cancellation));
        // Two pods, so that one statement has more than one row to lose.
        await CrashAsync("evidence", ["run_interval_gpus", "gpu_holder"], () => Runs.RecordGpusAsync([new(faulty, ["GPU-1"]), new(first, ["GPU-2"])], Cancellation));
        await CrashAsync("settlement", Settling, () => Meter.SettleAsync(Acme, T0.AddMinutes(5), Cancellation));
        await CrashAsync("suspension of one", [.. Settling, "suspension"], () => Meter.SuspendAsync(other, T0.AddSeconds(330), Cancellation));
        await CrashAsync("end", Settling, () => Runs.CloseAsync(fourth, T0.AddSeconds(330), Cancellation));
        // One call charges to where the fault was seen and gives back what lies past where the GPU was last seen well.
        var fault = Lost("GPU-1", T0.AddSeconds(200), T0.AddSeconds(340));
        await CrashAsync("fault", Settling, () => Faults.ApplyAsync([fault], Policy, T0.AddMinutes(6), Cancellation));
        await CrashAsync("end of the faulty", Running, () => Runs.CloseAsync(faulty, T0.AddSeconds(345), Cancellation));
        await CrashAsync("price change", [.. Settling, "price_version"], () => PublishAsync(T0.AddMinutes(6), (H100, "3.00")));
        // Settled past its true end before: the difference goes back.
        await CrashAsync("early end", [.. Posting, .. Running], () => Runs.CloseAsync(first, T0.AddMinutes(4), Cancellation));
        await CrashAsync("suspension", [.. Settling, "suspension"], () => Meter.SuspendIfExhaustedAsync(Acme, Policy, T0.AddHours(20), Cancellation));
        await CrashAsync("last end", Running, () => Runs.CloseAsync(second, T0.AddHours(20), Cancellation));

        // Tokens: two models of which one has no price yet, what they cost, and what the ledger is told of it.
        UsageEvent Used(string id, string model) => new("/inference", id, Acme, model, T0.AddHours(19), 1_000, 200, 100);
        TokenPrice[] one = [new("m", Money.Parse("1.00"), Money.Parse("2.00"), Money.Parse("0.10"))], both = [.. one, one[0] with { Model = "n" }];
        Task<IReadOnlyList<PriceVersionId>> PriceAsync(TokenPrice[] tokens) => Prices.PublishAsync("tokens", new Dictionary<GpuProduct, Money>(), tokens, T0.AddMinutes(6), Cancellation);
        string[] metering = ["token_balance", "token_meter", "token_bucket"];
        Time.SetUtcNow(T0.AddHours(20));
        await CrashAsync("token price", ["price_version", "token_bucket"], () => PriceAsync(one));
        await CrashAsync("usage", ["usage_event", .. metering], () => Tokens.IngestAsync([Used("1", "m"), Used("2", "m"), Used("3", "n")], Cancellation));
        await CrashAsync("price of what was used", ["price_version", .. metering], () => PriceAsync(both));
        await GrantAsync(Acme, "1.00");
        await CrashAsync(
            "settlement of tokens", [.. Posting, "token_balance", "token_bucket", "serverless_month", "serverless_month_model"],
            () => Meter.SettleAsync(Acme, T0.AddHours(20), Cancellation));
        var tokens = TokenRating.Due(new(2_000, 400, 200), one[0]) + TokenRating.Due(new(1_000, 200, 100), one[0]);
        Assert.Equal(-tokens, await SumAsync(MovementType.ServerlessUsage));

        // What a world without crashes would hold.
        Money Due(int seconds) => Rating.Due(TimeSpan.FromSeconds(seconds), Money.Parse("2.50"), 1);
        var due = Due(240) + Due(330) + Due(330) + Due(200);
        var spent = Money.Parse("14.25") - tokens + new Money(many.Length) - await PostedAsync();
        var run = await ScalarAsync<long>($"select total_nanos from run_interval where pod = '{second}'");
        Assert.Equal(spent, due + new Money(run));
        Assert.InRange((await PostedAsync() - Money.Parse("1.00") + tokens).Nanos, 0, 1000);
        Assert.Equal(2L, await ScalarAsync<long>("select count(*) from suspension"));
        Assert.Equal(0L, await ScalarAsync<long>("select count(*) from credit_hold"));
        Assert.Equal(3L + many.Length, await ScalarAsync<long>("select count(*) from ledger_transaction where type = 'CreditGrant'"));
        Assert.Equal(1L, await ScalarAsync<long>("select count(*) from ledger_transaction where type = 'TopUp'"));
    }

    /// <summary>Runs the change with an end at its first statement, then at its second, and so on until it is through; then once more.</summary>
    /// <param name="writes">The tables at which it was ended.</param>
    private async Task CrashAsync(string name, string[] writes, Func<Task> change)
    {
        var (ended, begun) = (new SortedSet<string>(), 0L);
        var before = await ScalarAsync<string>(Books.Dump);
        for (var statement = 1; ; statement++)
        {
            Assert.True(statement < MostStatements, $"{name}: {statement} statements and no end");
            if (await EndAsync(name, change, statement, byError: true) is not { } table) break;
            ended.Add(table);
            Assert.Equal(before, await ScalarAsync<string>(Books.Dump));
            if (await ScalarAsync<long>("select count(*) from top_up where state = 'started'") is var attempts && attempts != begun)
            {
                // Its row stays, and is not made once more: what follows it is one statement nearer.
                (begun, statement) = (attempts, statement - 2);
                continue;
            }

            Assert.NotNull(await EndAsync(name, change, statement, byError: false));
            Assert.Equal(before, await ScalarAsync<string>(Books.Dump));
        }

        Assert.Equal(writes.Order(StringComparer.Ordinal), ended);
        // Died after the commit and before it heard of it: done again, it changes nothing.
        var after = await ScalarAsync<string>(Books.Dump);
        Assert.NotEqual(before, after);
        await change();
        Assert.Equal(after, await ScalarAsync<string>(Books.Dump));
    }

    /// <returns>The table at which the change was ended; empty when its session was; null when it is through.</returns>
    private async Task<string?> EndAsync(string name, Func<Task> change, int statement, bool byError)
    {
        await ExecuteAsync($"select setval('crash_statement', 1, false); update crash_at set statement = {statement}, by_error = {byError}");
        try
        {
            await change();
            return null;
        }
        catch (PostgresException error) when (byError && error.MessageText.StartsWith(Ended, StringComparison.Ordinal))
        {
            // The trigger at the commit is told of the partition that has the row.
            var table = error.MessageText[Ended.Length..];
            return table.StartsWith("usage_event", StringComparison.Ordinal) ? "usage_event" : table;
        }
        catch (NpgsqlException crash) when (!byError)
        {
            Assert.True(LedgerAvailability.IsUnavailable(crash), $"{name}, statement {statement}: {crash}");
            return "";
        }
        finally
        {
            await ExecuteAsync("update crash_at set statement = null");
        }
    }

    private async Task SetTrapsAsync()
    {
        await ExecuteAsync(
            $"""
            create sequence crash_statement;
            create table crash_at (statement bigint, by_error boolean);
            insert into crash_at values (null);
            create function crash() returns trigger language plpgsql as $$
            begin
              if nextval('crash_statement') = (select statement from crash_at) then
                if (select by_error from crash_at) then
                  raise exception '{Ended}%', tg_table_name using errcode = 'XX000';
                end if;
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
