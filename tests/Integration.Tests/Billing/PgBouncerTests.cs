using System.Collections.Concurrent;
using Microsoft.Extensions.Logging;
using Npgsql;
using Tensormesh.Billing;
using Tensormesh.Operator.Admission;
using Tensormesh.Operator.Watching;
using Tensormesh.TestKit;

namespace Tensormesh.Integration.Tests.Billing;

/// <summary>Behind a real PgBouncer whose clients share a few sessions, a transaction at a time: as a database with few sessions is used by many replicas.</summary>
public sealed class PgBouncerTests(PostgresFixture postgres) : BillingTest(postgres)
{
    private const int Sessions = 3;
    private const int Programs = 3;
    private const string Remedies = "Max Auto Prepare=0.*session mode.*PgBouncer 1\\.21";

    private readonly PostgresFixture postgres = postgres;
    private PgBouncer pooler = null!;
    /// <summary>The same database without the pooler.</summary>
    private string direct = "";

    protected override async Task<NpgsqlDataSource> OpenDatabaseAsync()
    {
        await using (var source = await base.OpenDatabaseAsync()) direct = source.ConnectionString;
        pooler = await PgBouncer.StartAsync(postgres.Server, PoolMode.Transaction, Sessions, Cancellation);
        return Open(prepared: 0);
    }

    public override async ValueTask DisposeAsync()
    {
        await base.DisposeAsync();
        await pooler.DisposeAsync();
        GC.SuppressFinalize(this);
    }

    /// <summary>A program of its own on the same database, by way of the pooler.</summary>
    private NpgsqlDataSource Open(int prepared) => BillingServices.OpenDataSource(
        new NpgsqlConnectionStringBuilder(pooler.Through(direct)) { MaxAutoPrepare = prepared }.ConnectionString);

    [Fact]
    public async Task Programs_that_start_at_once_bring_an_empty_database_up_to_date()
    {
        var empty = await postgres.Server.CreateDatabaseAsync($"t_{Guid.NewGuid():n}", Cancellation);
        await using var source = BillingServices.OpenDataSource(
            new NpgsqlConnectionStringBuilder(pooler.Through(empty)) { MaxAutoPrepare = 0 }.ConnectionString);
        await Task.WhenAll(Enumerable.Range(0, 12).Select(_ => Migrator.MigrateAsync(source, Cancellation)));
        Assert.Superset(SqlText.Migrations.ToHashSet(), (await Migrator.AppliedAsync(source, Cancellation)).ToHashSet());
        Assert.Equal(0L, await ScalarAsync<long>("select count(*) from pg_locks where locktype = 'advisory'"));
    }

    [Fact]
    public async Task Programs_that_share_few_sessions_keep_the_books_to_the_nano()
    {
        const int callers = 24;
        AccountId[] accounts = [.. Enumerable.Range(0, 4).Select(i => new AccountId($"shared-{i}"))];
        await PublishAsync(T0.AddDays(-1), (H100, "2.50"));
        foreach (var account in accounts) await OpenAsync(account, "10.00");
        var programs = Enumerable.Range(0, Programs).Select(_ => Open(prepared: 0)).ToArray();
        await Task.WhenAll(Enumerable.Range(0, callers).Select(caller => Task.Run(async () =>
        {
            var (program, account) = (programs[caller % Programs], accounts[caller % accounts.Length]);
            var (ledger, holds, runs, meter) = (new Ledger(program), new Holds(program), new RunIntervals(program), new Meter(program));
            for (var round = 0; round < 4; round++)
            {
                Movement Grant(int nanos) => Movements.CreditGrant(account, new(nanos), $"{caller}/{round}/{nanos}", "tests", "x");
                Assert.IsType<PostResult.Posted>(await ledger.PostAsync(Grant(1), Cancellation));
                // More than 24 at once go another way into the ledger.
                Assert.All(
                    await ledger.PostManyAsync([.. Enumerable.Range(2, 30).Select(Grant)], Cancellation), result => Assert.IsType<PostResult.Posted>(result));
                Assert.All(
                    await ledger.PostManyAsync([Grant(1), Grant(31)], Cancellation), result => Assert.IsType<PostResult.AlreadyPosted>(result));
                var (deployment, pod) = (NewDeployment(), NewPod());
                if (await holds.PlaceAsync(Ask(deployment, 1, account: account), Policy, T0, Cancellation) is not Verdict.Admit) continue;
                Assert.True(await runs.OpenAsync(Start(deployment, pod, 1, T0, account), Cancellation));
                await meter.SettleAsync(account, T0.AddMinutes(1), Cancellation);
                Assert.True(await runs.CloseAsync(pod, T0.AddMinutes(2), Cancellation));
                await holds.ReleaseAsync(deployment, Cancellation);
            }
        }, Cancellation)));

        var granted = new Money(callers * 4 / accounts.Length * Enumerable.Range(1, 31).Sum());
        var due = Rating.Due(TimeSpan.FromMinutes(2), Money.Parse("2.50"), 1);
        foreach (var account in accounts)
        {
            var runs = await ScalarAsync<long>($"select count(*) from run_interval where account = '{account}' and ended_at is not null");
            Assert.InRange(runs, 1, callers);
            Assert.Equal(Money.Parse("10.00") + granted - new Money(runs * due.Nanos), await PostedAsync(account));
            Assert.Empty((await StandingAsync(account)).Holds);
        }

        // Clients of the pooler were many more than sessions of the server, which is what this is about.
        Assert.InRange(
            await ScalarAsync<long>("select count(*) from pg_stat_activity where datname = current_database() and backend_type = 'client backend'"),
            1, Sessions);
        foreach (var program in programs) await program.DisposeAsync();
    }

    [Fact]
    public async Task A_program_that_was_not_told_whether_to_prepare_refuses_a_pooler_and_names_the_remedies()
    {
        var unsaid = new NpgsqlConnectionStringBuilder(direct);
        unsaid.Remove("Max Auto Prepare");
        await using var refused = BillingServices.OpenDataSource(pooler.Through(unsaid.ConnectionString));
        var refusal = await Assert.ThrowsAsync<LedgerPoolerException>(() => new Accounts(refused).ListAsync(Cancellation));
        Assert.Matches(Remedies, refusal.Message);
        // Waiting does not help: it must not look like an outage.
        Assert.False(LedgerAvailability.IsUnavailable(refusal));
        Assert.Throws<LedgerPoolerException>(() => refused.OpenConnection());

        await using var without = BillingServices.OpenDataSource(unsaid.ConnectionString);
        Assert.Empty(await new Accounts(without).ListAsync(Cancellation));
        await using (without.OpenConnection()) { }
    }

    [Fact]
    public async Task Statements_that_the_pooler_mistakes_name_the_remedies_and_neither_lose_nor_double_money()
    {
        await DeclareAsync(Acme);
        var programs = Enumerable.Range(0, Programs).Select(_ => Open(prepared: 64)).ToArray();
        var failures = new ConcurrentBag<NpgsqlException>();
        var answers = new ConcurrentDictionary<string, PostResult>();
        var movements = Enumerable.Range(1, 300).Select(i => Movements.CreditGrant(Acme, new(i), $"{i}", "tests", "x")).ToArray();
        await Parallel.ForEachAsync(movements.Index(), new ParallelOptions { MaxDegreeOfParallelism = 16, CancellationToken = Cancellation }, async (one, token) =>
        {
            var program = programs[one.Index % Programs];
            try
            {
                answers[one.Item.Key] = one.Index % 2 == 0
                    ? await new Ledger(program).PostAsync(one.Item, token)
                    : Assert.Single(await new Ledger(program).PostManyAsync([one.Item], token));
            }
            catch (NpgsqlException failure)
            {
                failures.Add(failure);
            }
        });

        Assert.NotEmpty(failures);
        Assert.All(failures, failure => Assert.Matches(Remedies, Assert.IsType<LedgerPoolerException>(failure).Message));
        Assert.All(answers.Values, answer => Assert.IsType<PostResult.Posted>(answer));
        Assert.Equal(answers.Keys.Order(), (await ScalarAsync<string[]>("select array_agg(idempotency_key) from ledger_transaction")).Order());

        // With the remedy the same calls complete what failed, once.
        Assert.Equal(
            movements.Length - answers.Count, (await Ledger.PostManyAsync(movements, Cancellation)).Count(result => result is PostResult.Posted));
        Assert.Equal(new Money(movements.Sum(movement => movement.Entries.Max(entry => entry.Amount.Nanos))), await PostedAsync());
        foreach (var program in programs) await program.DisposeAsync();
    }

    [Fact]
    public async Task Statements_stay_prepared_where_each_client_keeps_its_session()
    {
        await using var sessions = await PgBouncer.StartAsync(postgres.Server, PoolMode.Session, Sessions, Cancellation);
        var said = new NpgsqlConnectionStringBuilder(sessions.Through(direct)) { MaxAutoPrepare = 64, MaxPoolSize = Sessions };
        await using var program = BillingServices.OpenDataSource(said.ConnectionString);
        await DeclareAsync(Acme);
        var ledger = new Ledger(program);
        await Task.WhenAll(Enumerable.Range(1, 60).Select(i => ledger.PostAsync(Movements.CreditGrant(Acme, new(i), $"{i}", "tests", "x"), Cancellation)));
        Assert.Equal(new Money(60 * 61 / 2), await PostedAsync());
    }

    [Fact]
    public async Task No_hint_comes_through_which_is_told_and_costs_time_alone()
    {
        var (memory, changed, log) = (new StandingMemory(TimeProvider.System), new ConcurrentQueue<AccountId>(), new Lines());
        using var listening = CancellationTokenSource.CreateLinkedTokenSource(Cancellation);
        var running = new StandingListener(Database, memory, TimeProvider.System, log).RunAsync(changed.Enqueue, () => { }, listening.Token);
        await Eventually.SeeAsync(() => Task.FromResult(log.Text), text => text.Contains("hints do not come through", StringComparison.Ordinal));

        // What was read is not believed for a moment, because nobody would say that it changed; and who asks the ledger gets its answer.
        await PublishAsync(T0.AddDays(-1), (H100, "2.50"));
        await OpenAsync(Acme, "0.00");
        var ask = Ask(NewDeployment(), 1);
        memory.Keep(await StandingAsync(), memory.Now);
        Assert.Null(memory.Find(Acme));
        Assert.IsType<Verdict.Refuse>(await Holds.PlaceAsync(ask, Policy, T0, Cancellation));
        await GrantAsync(Acme, "10.00");
        Assert.IsType<Verdict.Admit>(await Holds.PlaceAsync(ask, Policy, T0, Cancellation));
        Assert.Empty(changed);

        await listening.CancelAsync();
        await running;
    }

    [Fact]
    public async Task A_listener_of_its_own_session_hears_what_is_written_through_the_pooler()
    {
        await using var straight = BillingServices.OpenDataSource(direct);
        var (memory, changed, log) = (new StandingMemory(TimeProvider.System), new ConcurrentQueue<AccountId>(), new Lines());
        var listens = new TaskCompletionSource();
        using var listening = CancellationTokenSource.CreateLinkedTokenSource(Cancellation);
        var running = new StandingListener(straight, memory, TimeProvider.System, log).RunAsync(changed.Enqueue, listens.SetResult, listening.Token);
        await listens.Task.WaitAsync(Eventually.Limit, Cancellation);
        await DeclareAsync(Acme);
        await HearsAsync();
        await Eventually.SeeAsync(
            async () =>
            {
                memory.Keep(await StandingAsync(), memory.Now);
                return memory.Find(Acme);
            }, standing => standing is not null);

        await GrantAsync(Acme, "10.00");
        await HearsAsync();
        Assert.Null(memory.Find(Acme));
        Assert.Empty(log.Text);

        Task HearsAsync() => Eventually.SeeAsync(() => Task.FromResult(changed.TryDequeue(out var account) ? account : default), account => account == Acme);

        await listening.CancelAsync();
        await running;
    }

    private sealed class Lines : ILogger<StandingListener>
    {
        private readonly ConcurrentQueue<string> lines = new();

        public string Text => string.Join('\n', lines);

        public IDisposable? BeginScope<TState>(TState state) where TState : notnull => null;

        public bool IsEnabled(LogLevel logLevel) => true;

        public void Log<TState>(LogLevel logLevel, EventId eventId, TState state, Exception? exception, Func<TState, Exception?, string> formatter)
            => lines.Enqueue(formatter(state, exception));
    }
}
