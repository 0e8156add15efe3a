using Npgsql;
using Tensormesh.Billing;

namespace Tensormesh.Integration.Tests.Billing;

public sealed class SealTests(PostgresFixture postgres) : BillingTest(postgres)
{
    private LedgerSeals Seals => new(Database, TimeProvider.System);

    private async Task<SealResult> SealAsync()
    {
        for (var i = 0; i < 100; i++)
        {
            if (await Seals.SealAsync(Cancellation) is { } result) return result;
        }

        throw new InvalidOperationException("nothing could be sealed");
    }

    private Task<LedgerDifference?> FirstDifferenceAsync() => new LedgerVerifier(Database).VerifyAsync(_ => { }, Cancellation)
        .ContinueWith(report => report.Result.Difference, Cancellation, TaskContinuationOptions.None, TaskScheduler.Default);

    private Task<long> UnsealedOrTwiceAsync() => ScalarAsync<long>(
        """
        select count(*) from ledger_transaction t where (select count(*) from ledger_seal s where t.position = any (s.positions)) <> 1
        """);

    [Fact]
    public async Task Everything_posted_before_is_sealed_once_and_nothing_where_nothing_is_new()
    {
        await DeclareAsync(Acme);
        Assert.Equal(new SealResult(0, 0, ""), await SealAsync());
        await GrantAsync(Acme, "5.00");
        var first = await SealAsync();
        Assert.Equal((1, 1L), (first.Transactions, first.Position));
        Assert.Equal(first with { Transactions = 0 }, await SealAsync());
        await GrantAsync(Acme, "5.00");
        var second = await SealAsync();
        Assert.Equal((1, 2L), (second.Transactions, second.Position));
        Assert.Equal(first.Hash, Convert.ToHexStringLower(await ScalarAsync<byte[]>("select previous_hash from ledger_seal where to_position = 2")));
        Assert.Null(await FirstDifferenceAsync());
    }

    [Fact]
    public async Task A_seal_has_a_bound_and_a_call_makes_as_many_as_it_takes()
    {
        await DeclareAsync(Acme);
        for (var batch = 0; batch < 3; batch++)
        {
            await Ledger.PostManyAsync(
                [.. Enumerable.Range(0, 900).Select(i => Movements.CreditGrant(Acme, new(1), $"{batch}-{i}", "tests", "x"))], Cancellation);
        }

        Assert.Equal(2_700, (await SealAsync()).Transactions);
        Assert.Equal(3L, await ScalarAsync<long>("select count(*) from ledger_seal"));
        Assert.Equal(0L, await UnsealedOrTwiceAsync());
        Assert.Null(await FirstDifferenceAsync());
    }

    [Fact]
    public async Task What_a_running_transaction_may_still_fill_is_not_passed()
    {
        await DeclareAsync(Acme);
        await using var slow = await Database.OpenConnectionAsync(Cancellation);
        await using var transaction = await slow.BeginTransactionAsync(Cancellation);
        await using (var post = new NpgsqlCommand(
            "select * from post_transaction('CreditGrant', 'slow', null, '', '{}', '{cash:slow,expense:uncollected}', '{5,-5}', '{USD,USD}')", slow))
        {
            // The account is made by the first call, outside of it.
            await Ledger.PostAsync(Movements.TopUp(Acme, new(1), "slow", "pi", "pm"), Cancellation);
            await post.ExecuteNonQueryAsync(Cancellation);
        }

        await GrantAsync(Acme, "5.00");
        var sealing = Task.Run(SealAsync, Cancellation);
        Assert.NotSame(sealing, await Task.WhenAny(sealing, Task.Delay(300, Cancellation)));
        Assert.Equal(0L, await ScalarAsync<long>("select count(*) from ledger_seal"));
        await transaction.CommitAsync(Cancellation);
        Assert.Equal(3, (await sealing).Transactions);
        Assert.Equal(0L, await UnsealedOrTwiceAsync());
    }

    [Fact]
    public async Task Provers_and_writers_at_once_skip_nothing_and_seal_nothing_twice()
    {
        AccountId[] customers = [.. Enumerable.Range(0, 8).Select(i => new AccountId($"c{i}"))];
        foreach (var customer in customers) await DeclareAsync(customer);
        using var done = CancellationTokenSource.CreateLinkedTokenSource(Cancellation);
        var provers = Enumerable.Range(0, 3).Select(_ => Task.Run(async () =>
        {
            while (!done.IsCancellationRequested) await Seals.SealAsync(Cancellation);
        }, Cancellation)).ToArray();
        // Each writer is a process of its own; some post, hold the row back for a while and commit late, some roll back, some post in batches.
        await Task.WhenAll(customers.Select((customer, writer) => Task.Run(async () =>
        {
            var random = new Random(writer);
            var ledger = new Ledger(Database);
            for (var i = 0; i < 40; i++)
            {
                switch (random.Next(3))
                {
                    case 0:
                        await ledger.PostAsync(Movements.TopUp(customer, new(1 + i), "sandbox", $"{customer}-{i}", "pm"), Cancellation);
                        break;
                    case 1:
                        await ledger.PostManyAsync(
                            [.. Enumerable.Range(0, 30).Select(n => Movements.CreditGrant(customer, new(1), $"{i}-{n}", "tests", "x"))], Cancellation);
                        break;
                    default:
                        await using (var connection = await Database.OpenConnectionAsync(Cancellation))
                        await using (var transaction = await connection.BeginTransactionAsync(Cancellation))
                        {
                            await Ledger.TryAsync(connection, Movements.CreditGrant(customer, new(2), $"late-{i}", "tests", "x"), Cancellation);
                            await Task.Delay(random.Next(30), Cancellation);
                            if (random.Next(3) > 0) await transaction.CommitAsync(Cancellation);
                        }

                        break;
                }
            }
        }, Cancellation)));
        await done.CancelAsync();
        await Task.WhenAll(provers);
        await SealAsync();

        Assert.Equal(0L, await UnsealedOrTwiceAsync());
        Assert.Equal(
            await ScalarAsync<long>("select count(*) from ledger_transaction"),
            await ScalarAsync<long>("select sum(cardinality(positions)) from ledger_seal"));
        Assert.True(await ScalarAsync<long>("select count(*) from ledger_seal") > 3);
        Assert.Null(await FirstDifferenceAsync());
    }

    [Theory]
    [InlineData("update ledger_seal set hash = ''")]
    [InlineData("delete from ledger_seal")]
    [InlineData("truncate ledger_seal")]
    public async Task Seals_cannot_be_changed(string sql)
    {
        await DeclareAsync(Acme);
        await GrantAsync(Acme, "1.00");
        await SealAsync();
        Assert.Equal("TM007", (await Assert.ThrowsAsync<PostgresException>(() => ExecuteAsync(sql))).SqlState);
    }
}
