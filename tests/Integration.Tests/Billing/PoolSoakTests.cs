using Npgsql;
using Tensormesh.Billing;
using Tensormesh.TestKit;

namespace Tensormesh.Integration.Tests.Billing;

/// <summary>
/// A pool of five under many callers, while sessions are ended and cancelled, callers give up, and the server goes down and comes back.
/// Each caller tries again until it has its answer, as the product's loops do. Set TENSORMESH_SEED to repeat the choices of a run.
/// </summary>
public sealed class PoolSoakTests(PostgresFixture postgres) : BillingTest(postgres)
{
    private const int PoolSize = 5;
    private const int Callers = 24;
    /// <summary>A multiple of 16: as many of each kind for each of four accounts.</summary>
    private const int CallsEach = 48;
    private const string Application = "tensormesh-soak";
    private static readonly TimeSpan Limit = TimeSpan.FromMinutes(3);

    private readonly string directory = Path.Combine(Path.GetTempPath(), $"tensormesh-soak-{Guid.NewGuid():n}");
    private readonly int seed = int.TryParse(Environment.GetEnvironmentVariable("TENSORMESH_SEED"), out var given) ? given : Random.Shared.Next();
    private PostgresServer server = null!;
    private string direct = "";
    private int givenUp;
    private int lost;
    private int answered;

    protected override async Task<NpgsqlDataSource> OpenDatabaseAsync()
    {
        server = await PostgresServer.StartAsync(directory, Cancellation);
        var database = await server.CreateDatabaseAsync("money", Cancellation);
        direct = new NpgsqlConnectionStringBuilder(database) { Pooling = false, ApplicationName = "chaos" }.ConnectionString;
        var small = BillingServices.OpenDataSource(
            new NpgsqlConnectionStringBuilder(database) { MaxPoolSize = PoolSize, Timeout = 30, ApplicationName = Application }.ConnectionString);
        await Migrator.MigrateAsync(small, Cancellation);
        return small;
    }

    public override async ValueTask DisposeAsync()
    {
        await base.DisposeAsync();
        await server.DisposeAsync();
        if (Directory.Exists(directory)) Directory.Delete(directory, recursive: true);
        GC.SuppressFinalize(this);
    }

    [Fact]
    public async Task A_small_pool_gives_back_every_connection_and_keeps_the_books_whatever_happens_to_its_sessions()
    {
        Console.WriteLine($"soak: TENSORMESH_SEED={seed}");
        await PublishAsync(T0.AddDays(-1), (H100, "2.50"));
        AccountId[] accounts = [.. Enumerable.Range(0, 4).Select(i => new AccountId($"soak-{i}"))];
        foreach (var account in accounts)
        {
            await OpenAsync(account, "1000.00");
            await RunAsync(1, T0, account);
        }

        using var limit = CancellationTokenSource.CreateLinkedTokenSource(Cancellation);
        limit.CancelAfter(Limit);
        var work = Task.WhenAll(Enumerable.Range(0, Callers).Select(caller => Task.Run(() => CallAsync(caller, accounts, limit.Token))));
        var strikes = await StrikeAsync(work, limit.Token);
        await work;
        Console.WriteLine($"soak: {strikes} strikes, {lost} calls lost, {givenUp} given up");
        Assert.True(lost > 0 && givenUp > 0, $"{lost} calls lost, {givenUp} given up: nothing was tried");

        // A session that was ended while nobody used it is met once. Then nothing fails any more.
        for (var i = 0; i < PoolSize; i++) await UntilAnsweredAsync(null, token => Accounts.ReadStandingAsync(accounts[0], token), limit.Token);
        await Task.WhenAll(Enumerable.Range(0, PoolSize).Select(_ => UntilAnsweredAsync(null, SleepAsync, limit.Token)));
        await Parallel.ForEachAsync(
            Enumerable.Range(0, 100), new ParallelOptions { MaxDegreeOfParallelism = PoolSize * 4, CancellationToken = limit.Token },
            async (i, token) => Assert.NotNull(await Accounts.ReadStandingAsync(accounts[i % 4], token)));
        // Nobody kept a connection: as many as there are can be had at once.
        var all = await Task.WhenAll(Enumerable.Range(0, PoolSize).Select(_ => Database.OpenConnectionAsync(limit.Token).AsTask()));
        Assert.Equal(PoolSize, all.Select(connection => connection.ProcessID).Distinct().Count());
        foreach (var connection in all) await connection.DisposeAsync();
        for (var i = 0; i < 20; i++) Assert.NotNull(await Accounts.ReadStandingAsync(accounts[0], limit.Token));
        Assert.InRange(await AskAsync($"select count(*) from pg_stat_activity where application_name = '{Application}'"), 1, PoolSize);
        Assert.Equal(0, await AskAsync($"select count(*) from pg_stat_activity where application_name = '{Application}' and state like 'idle in%'"));
        Assert.Equal(0, await AskAsync("select count(*) from pg_locks where locktype = 'advisory'"));

        // Every movement that was answered is there once, and nothing else is.
        var grants = Callers * CallsEach / 4 + accounts.Length;
        Assert.Equal(grants, await AskAsync("select count(*) from ledger_transaction where type = 'CreditGrant'"));
        Assert.Equal(accounts.Length, await AskAsync("select count(*) from credit_hold"));
        var end = T0.AddHours(2);
        foreach (var account in accounts)
        {
            await Meter.SettleAsync(account, end, limit.Token);
            var granted = Money.Parse("1000.00") + new Money(Callers * CallsEach / 4 / accounts.Length);
            Assert.Equal(granted - Rating.Due(end - T0, Money.Parse("2.50"), 1), await PostedAsync(account));
        }
    }

    /// <summary>In turns: a grant, a hold and its release, a settlement, a reading.</summary>
    private async Task CallAsync(int caller, AccountId[] accounts, CancellationToken ends)
    {
        var random = new Random(seed + caller);
        for (var call = 0; call < CallsEach; call++)
        {
            var number = caller * CallsEach + call;
            var account = accounts[number / 4 % accounts.Length];
            switch (number % 4)
            {
                case 0:
                    var grant = Movements.CreditGrant(account, new(1), $"soak-{number}", "tests", "x");
                    await UntilAnsweredAsync(random, async token => Assert.IsNotType<PostResult.Refused>(await Ledger.PostAsync(grant, token)), ends);
                    break;
                case 1:
                    var deployment = NewDeployment();
                    await UntilAnsweredAsync(random, async token => Assert.IsType<Verdict.Admit>(
                        await Holds.PlaceAsync(Ask(deployment, 1, account: account), Policy, T0, token)), ends);
                    await UntilAnsweredAsync(random, token => Holds.ReleaseAsync(deployment, token), ends);
                    break;
                case 2:
                    await UntilAnsweredAsync(random, token => Meter.SettleAsync(account, T0.AddSeconds(number), token), ends);
                    break;
                default:
                    await UntilAnsweredAsync(random, token => Accounts.ReadStandingAsync(account, token), ends);
                    break;
            }
        }
    }

    /// <summary>Whatever is no outage, and was not given up, fails the test: it would be a defect to the product's loops too.</summary>
    /// <param name="random">Null for a caller that does not give up.</param>
    private async Task UntilAnsweredAsync(Random? random, Func<CancellationToken, Task> call, CancellationToken ends)
    {
        while (true)
        {
            using var patience = CancellationTokenSource.CreateLinkedTokenSource(ends);
            if (random?.Next(3) == 0) patience.CancelAfter(random.Next(20));
            try
            {
                await call(patience.Token);
                Interlocked.Increment(ref answered);
                return;
            }
            catch (OperationCanceledException) when (!ends.IsCancellationRequested)
            {
                Interlocked.Increment(ref givenUp);
            }
            catch (Exception outage) when (LedgerAvailability.IsUnavailable(outage))
            {
                Interlocked.Increment(ref lost);
                await Task.Delay(Random.Shared.Next(50), ends);
            }
        }
    }

    /// <summary>Ends or cancels one session after the other until the work is done; a crash and a restart of the server in between.</summary>
    private async Task<int> StrikeAsync(Task work, CancellationToken ends)
    {
        var random = new Random(seed);
        var (strikes, restarts) = (0, 0);
        while (!work.IsCompleted)
        {
            await Task.WhenAny(work, Task.Delay(random.Next(5, 40), ends));
            strikes++;
            if (Volatile.Read(ref answered) > Callers * CallsEach * (restarts + 1) / 3)
            {
                if (restarts++ == 0) await server.CrashAsync();
                await server.RestartAsync();
            }
            else
            {
                var how = random.Next(2) == 0 ? "pg_terminate_backend" : "pg_cancel_backend";
                await AskAsync(
                    $"select count(*) from (select {how}(pid) from pg_stat_activity where application_name = '{Application}' order by random() limit 1) hit");
            }
        }

        Assert.True(restarts >= 2, $"{restarts} restarts");
        return strikes;
    }

    /// <summary>Long enough for each of several callers to have a connection of its own.</summary>
    private async Task SleepAsync(CancellationToken cancellation)
    {
        await using var command = Database.CreateCommand("select pg_sleep(0.2)");
        await command.ExecuteNonQueryAsync(cancellation);
    }

    private async Task<long> AskAsync(string sql)
    {
        await using var connection = new NpgsqlConnection(direct);
        await connection.OpenAsync(Cancellation);
        await using var command = new NpgsqlCommand(sql, connection);
        return (long)(await command.ExecuteScalarAsync(Cancellation))!;
    }
}
