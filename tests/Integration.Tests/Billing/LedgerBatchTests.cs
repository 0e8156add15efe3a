using CsCheck;
using Tensormesh.Billing;

namespace Tensormesh.Integration.Tests.Billing;

public sealed class LedgerBatchTests(PostgresFixture postgres) : BillingTest(postgres)
{
    private static Movement Raw(string key, params Entry[] entries)
        => new() { Type = MovementType.CreditGrant, Key = key, Entries = entries, Description = "raw" };

    private static Entry To(string account, long nanos, string currency = "USD") => new(account, new(nanos), currency);

    private static Movement Give(string key, string account, long nanos)
        => Raw(key, To("expense:credit_grants", -nanos), To("customer:" + account, nanos));

    private static Movement Spend(string key, string account, long nanos)
        => Raw(key, To("customer:" + account, -nanos), To("revenue:gpu", nanos));

    private static string Outcome(PostResult result) => result switch
    {
        PostResult.Posted => "posted",
        PostResult.AlreadyPosted => "already",
        PostResult.Refused refused => refused.Reason.ToString(),
        _ => throw new InvalidOperationException($"{result}"),
    };

    private async Task<IReadOnlyList<PostResult>> PostAsync(params Movement[] movements) => await Ledger.PostManyAsync(movements, Cancellation);

    [Fact]
    public async Task Every_movement_of_a_batch_is_posted_and_found_again()
    {
        await DeclareAsync(Acme);
        var batch = Enumerable.Range(1, 100).Select(i => Give($"k{i}", "acme", i)).ToArray();
        var first = await PostAsync(batch);
        Assert.Equal(100, first.Cast<PostResult.Posted>().Select(posted => posted.TransactionId).Distinct().Count());
        Assert.Equal(new Money(5050), await PostedAsync());
        // Whether alone or in a batch, whatever was posted alone or in a batch.
        var found = first.Cast<PostResult.Posted>().Select(posted => new PostResult.AlreadyPosted(posted.TransactionId)).ToArray();
        Assert.Equal(found, await PostAsync(batch));
        Assert.Equal(found[41], await Ledger.PostAsync(batch[41], Cancellation));
        Assert.Equal(new Money(5050), await PostedAsync());
        Assert.Empty(await PostAsync());
    }

    [Fact]
    public async Task A_refused_movement_leaves_its_neighbours_as_they_are()
    {
        await DeclareAsync(Acme);
        await PostAsync(Give("before", "acme", 10));
        var results = await PostAsync(
            Give("a", "acme", 5),
            Give("before", "acme", 11),
            Give("b", "nobody", 5),
            Raw("c", To("expense:credit_grants", -5, "EUR"), To("customer:acme", 5, "EUR")),
            Raw("d", To("expense:credit_grants", -5), To("customer:acme", 6)),
            Raw("e"),
            Give("f", "acme", long.MaxValue - 3),
            Spend("g", "acme", 16),
            Give("before", "acme", 10),
            Give("a", "acme", 5),
            Spend("h", "acme", 15));
        Assert.Equal(
            [
                "posted", "KeyReusedWithOtherContent", "AccountUnknown", "CurrencyMismatch", "NotBalanced", "NotBalanced", "AmountOverflow",
                "InsufficientBalance", "already", "already", "posted",
            ],
            results.Select(Outcome));
        Assert.Equal(Money.Zero, await PostedAsync());
        Assert.Equal(3L, await ScalarAsync<long>("select count(*) from ledger_transaction"));
    }

    [Fact]
    public async Task Money_that_comes_in_earlier_in_a_batch_can_go_out_later_in_it()
    {
        await DeclareAsync(Acme);
        Assert.Equal(
            ["InsufficientBalance", "posted", "posted", "InsufficientBalance"],
            (await PostAsync(Spend("a", "acme", 3), Give("b", "acme", 5), Spend("c", "acme", 3), Spend("d", "acme", 3))).Select(Outcome));
        Assert.Equal(new Money(2), await PostedAsync());
    }

    [Fact]
    public async Task A_batch_gives_what_its_movements_would_give_one_after_the_other()
    {
        var round = 0;
        var step = Gen.Select(Gen.Int[0, 9], Gen.Int[0, 2], Gen.Long[-6, 8]);
        await step.Array[1, 25].SampleAsync(async steps =>
        {
            var id = Interlocked.Increment(ref round);
            string[] together = [$"t{id}-0", $"t{id}-1"], apart = [$"s{id}-0", $"s{id}-1"];
            foreach (var account in together.Concat(apart)) await DeclareAsync(new(account));
            Movement[] Story(string[] accounts) => [.. steps.Select(one => (Key: $"{accounts[0]}/{one.Item1}",
                Account: one.Item2 < 2 ? accounts[one.Item2] : "nobody", Amount: one.Item3) switch
            {
                (var key, var account, > 0 and var amount) => Give(key, account, amount),
                (var key, var account, var amount) => Spend(key, account, -amount),
            })];

            var batch = await PostAsync(Story(together));
            var single = new List<PostResult>();
            foreach (var movement in Story(apart)) single.Add(await Ledger.PostAsync(movement, Cancellation));
            Assert.Equal(single.Select(Outcome), batch.Select(Outcome));
            for (var i = 0; i < 2; i++) Assert.Equal(await PostedAsync(new(apart[i])), await PostedAsync(new(together[i])));
        }, iter: 60, threads: 1);
    }

    [Fact]
    public async Task Any_split_of_posts_with_duplicates_into_batches_at_once_gives_one_balance()
    {
        AccountId[] accounts = [.. Enumerable.Range(0, 6).Select(i => new AccountId($"many-{i}"))];
        foreach (var account in accounts) await DeclareAsync(account);
        var posts = Enumerable.Range(0, 600).Select(i => Give($"p{i % 400}", accounts[i % 400 % 6].Value, 1 + i % 400)).ToArray();
        new Random(7).Shuffle(posts);
        // Every batch touches every account, in an order of its own.
        var results = await Task.WhenAll(posts.Chunk(25).Select(batch => Task.Run(() => PostAsync(batch))));
        Assert.Equal(400, results.Sum(batch => batch.OfType<PostResult.Posted>().Count()));
        Assert.Equal(200, results.Sum(batch => batch.OfType<PostResult.AlreadyPosted>().Count()));
        for (var i = 0; i < 6; i++)
        {
            Assert.Equal(Enumerable.Range(0, 400).Where(key => key % 6 == i).Sum(key => 1L + key), (await PostedAsync(accounts[i])).Nanos);
        }

        // A victim of a deadlock is run again and so would not be seen: the database counts them.
        Assert.Equal(0L, await ScalarAsync<long>("select deadlocks from pg_stat_database where datname = current_database()"));
    }

    [Fact]
    public async Task Batches_and_single_posts_at_once_never_spend_a_balance_twice()
    {
        await DeclareAsync(Acme);
        await PostAsync(Give("ten", "acme", 10));
        var batches = Enumerable.Range(0, 6).Select(b => Task.Run(
            () => PostAsync([.. Enumerable.Range(0, 5).Select(i => Spend($"b{b}-{i}", "acme", 1))])));
        var singles = Enumerable.Range(0, 20).Select(i => Task.Run(async () =>
            (IReadOnlyList<PostResult>)[await Ledger.PostAsync(Spend($"s{i}", "acme", 1), Cancellation)]));
        var results = (await Task.WhenAll(batches.Concat(singles))).SelectMany(one => one).Select(Outcome).ToList();
        Assert.Equal(10, results.Count(outcome => outcome == "posted"));
        Assert.Equal(40, results.Count(outcome => outcome == "InsufficientBalance"));
        Assert.Equal(Money.Zero, await PostedAsync());
    }

    [Fact]
    public async Task A_batch_has_a_bound()
        => await Assert.ThrowsAsync<ArgumentOutOfRangeException>(
            () => PostAsync([.. Enumerable.Range(0, Ledger.MaxBatch + 1).Select(i => Give($"k{i}", "acme", 1))]));
}
