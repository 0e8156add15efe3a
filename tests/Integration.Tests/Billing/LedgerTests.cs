using CsCheck;
using Npgsql;
using Tensormesh.Billing;

namespace Tensormesh.Integration.Tests.Billing;

public sealed class LedgerTests(PostgresFixture postgres) : BillingTest(postgres)
{
    private static readonly AccountId Beta = new("beta");

    private static Movement Raw(string key, params Entry[] entries)
        => new() { Type = MovementType.CreditGrant, Key = key, Entries = entries, Description = "raw" };

    private static Entry To(string account, long nanos, string currency = "USD") => new(account, new(nanos), currency);

    private async Task<LedgerRefusal> RefusalAsync(Movement movement)
        => Assert.IsType<PostResult.Refused>(await Ledger.PostAsync(movement, Cancellation)).Reason;

    private async Task<string> StateOfAsync(string sql)
        => (await Assert.ThrowsAsync<PostgresException>(() => ExecuteAsync(sql))).SqlState;

    [Fact]
    public async Task Posts_once_and_finds_the_same_content_again()
    {
        await DeclareAsync(Acme);
        var grant = Movements.CreditGrant(Acme, Money.Parse("5.00"), "welcome", "ada", "first steps");
        var posted = Assert.IsType<PostResult.Posted>(await Ledger.PostAsync(grant, Cancellation));
        Assert.StartsWith("txn_", posted.TransactionId, StringComparison.Ordinal);
        // A retry carries a fresh time and other words, and is still the same.
        var retry = Movements.CreditGrant(
            Acme, Money.Parse("5.00"), "welcome", "ada", "again") with
        { EffectiveAt = T0.AddDays(1), Description = "other words" };
        Assert.Equal(new PostResult.AlreadyPosted(posted.TransactionId), await Ledger.PostAsync(retry, Cancellation));
        Assert.Equal(Money.Parse("5.00"), await PostedAsync());
    }

    [Fact]
    public async Task The_same_key_with_other_content_is_refused_and_moves_nothing()
    {
        await DeclareAsync(Acme);
        await DeclareAsync(Beta);
        var first = Raw("k", To("expense:credit_grants", -5), To("customer:acme", 5));
        Assert.IsType<PostResult.Posted>(await Ledger.PostAsync(first, Cancellation));
        Assert.Equal(LedgerRefusal.KeyReusedWithOtherContent,
            await RefusalAsync(Raw("k", To("expense:credit_grants", -6), To("customer:acme", 6))));
        Assert.Equal(LedgerRefusal.KeyReusedWithOtherContent,
            await RefusalAsync(Raw("k", To("expense:credit_grants", -5), To("customer:beta", 5))));
        Assert.Equal(LedgerRefusal.KeyReusedWithOtherContent, await RefusalAsync(first with { Type = MovementType.TopUp }));
        Assert.Equal((new Money(5), Money.Zero), (await PostedAsync(), await PostedAsync(Beta)));
    }

    [Fact]
    public async Task Looks_for_refusals_in_the_order_of_the_enum()
    {
        await DeclareAsync(Acme);
        Assert.IsType<PostResult.Posted>(
            await Ledger.PostAsync(Raw("used", To("expense:credit_grants", -5), To("customer:acme", 5)), Cancellation));

        // Each transaction is wrong in one more way than the one before it was put right in.
        var reasons = new List<LedgerRefusal>
        {
            await RefusalAsync(Raw(
                "used", To("customer:nobody", -7, "EUR"), To("customer:acme", -long.MaxValue, "EUR"), To("revenue:gpu", long.MaxValue))),
            await RefusalAsync(Raw(
                "free", To("customer:nobody", -7, "EUR"), To("customer:acme", -long.MaxValue, "EUR"), To("revenue:gpu", long.MaxValue))),
            await RefusalAsync(Raw(
                "free", To("customer:acme", -long.MaxValue, "EUR"), To("revenue:gpu", long.MaxValue), To("revenue:gpu", 9))),
            await RefusalAsync(Raw("free", To("customer:acme", -long.MaxValue), To("revenue:gpu", long.MaxValue), To("revenue:gpu", 9))),
            await RefusalAsync(Raw(
                "free", To("customer:acme", -6), To("customer:acme", long.MaxValue), To("customer:acme", long.MaxValue),
                To("expense:uncollected", -long.MaxValue), To("expense:uncollected", -long.MaxValue), To("revenue:gpu", 6))),
            await RefusalAsync(Raw("free", To("customer:acme", -6), To("revenue:gpu", 6))),
            await RefusalAsync(Raw("free", To("customer:acme", -5), To("revenue:gpu", 5)) with { Type = MovementType.Reversal }),
        };
        Assert.Equal(Enum.GetValues<LedgerRefusal>(), reasons);
    }

    [Fact]
    public async Task Refuses_what_does_not_balance()
    {
        await DeclareAsync(Acme);
        Assert.Equal(LedgerRefusal.NotBalanced, await RefusalAsync(Raw("a", To("expense:credit_grants", -5), To("customer:acme", 6))));
        Assert.Equal(LedgerRefusal.NotBalanced, await RefusalAsync(Raw("b", To("customer:acme", 5))));
        Assert.Equal(LedgerRefusal.NotBalanced, await RefusalAsync(Raw("c", To("expense:credit_grants", 0), To("customer:acme", 0))));
        Assert.Equal(LedgerRefusal.NotBalanced,
            await RefusalAsync(Raw("d", To("customer:acme", long.MaxValue), To("customer:acme", long.MaxValue), To("customer:acme", 2))));
    }

    [Fact]
    public async Task A_balance_that_would_overflow_is_refused()
    {
        await DeclareAsync(Acme);
        Assert.IsType<PostResult.Posted>(
            await Ledger.PostAsync(Movements.CreditGrant(Acme, new(long.MaxValue), "all", "tests", "all"), Cancellation));
        Assert.Equal(LedgerRefusal.AmountOverflow, await RefusalAsync(Raw("one", To("cash:other", -1), To("customer:acme", 1))));
    }

    private static string Insert(string accounts, string amounts, string currency = "USD", string id = "txn_x", string key = "x") =>
        "insert into ledger_transaction (id, type, idempotency_key, effective_at, description, currency, accounts, amounts) "
        + $"values ('{id}', 'CreditGrant', '{key}', now(), '', '{currency}', {accounts}, {amounts})";

    [Theory]
    [InlineData("'{}'", "'{}'")]
    [InlineData("'{1}'", "'{5}'")]
    [InlineData("'{1,2}'", "'{5,5}'")]
    [InlineData("'{1,2}'", "'{5,-4}'")]
    [InlineData("'{1,2}'", "'{0,0}'")]
    [InlineData("'{1,2}'", "'{5}'")]
    [InlineData("'{1,2}'", "'{5,null}'")]
    // Amounts of nobody, and amounts that hide behind a second dimension or another first index.
    [InlineData("'{1,2}'", "'{5,-5,7}'")]
    [InlineData("'{1,2}'", "'{{5},{-5}}'")]
    [InlineData("'{1,2}'", "'[0:1]={5,-5}'")]
    [InlineData("'{1,2,3}'", "'{9223372036854775807,9223372036854775807,2}'")]
    public async Task The_database_itself_refuses_a_transaction_that_does_not_balance(string accounts, string amounts)
    {
        Assert.Equal("TM004", await StateOfAsync(Insert(accounts, amounts)));
        Assert.Equal(0L, await ScalarAsync<long>("select count(*) from ledger_transaction"));
    }

    [Fact]
    public async Task What_is_written_past_the_function_is_held_to_the_same_rules()
    {
        await DeclareAsync(Acme);
        await DeclareAsync(Beta);
        await ExecuteAsync("insert into ledger_account (name, currency) values ('cash:euro', 'EUR')");
        var (acme, beta, euro) = (await IdAsync("customer:acme"), await IdAsync("customer:beta"), await IdAsync("cash:euro"));
        Assert.Equal("TM002", await StateOfAsync(Insert("'{0,1}'", "'{5,-5}'")));
        Assert.Equal("TM002", await StateOfAsync(Insert("'{null,1}'", "'{5,-5}'")));
        Assert.Equal("TM002", await StateOfAsync(Insert("'[0:1]={1,2}'", "'{5,-5}'")));
        Assert.Equal("TM003", await StateOfAsync(Insert($"'{{1,{euro}}}'", "'{5,-5}'")));
        Assert.Equal("TM003", await StateOfAsync(Insert("'{1,2}'", "'{5,-5}'", currency: "EUR")));
        Assert.Equal("TM009", await StateOfAsync(Insert($"'{{{acme},{beta}}}'", "'{5,-5}'")));
        Assert.Equal("23514", await StateOfAsync(Insert("'{1,2}'", "'{5,-5}'", key: "")));
        Assert.Equal("23514", await StateOfAsync(Insert("'{1,2}'", "'{5,-5}'", id: "x")));
        // Whose money it is about is found, and not believed.
        await ExecuteAsync(Insert("'{1,2}'", "'{5,-5}'").Replace("amounts)", "amounts, customer)").Replace("'{5,-5}')", $"'{{5,-5}}', {acme})"));
        Assert.Equal(1L, await ScalarAsync<long>("select count(*) from ledger_transaction where customer is null"));

        Task<long> IdAsync(string name) => ScalarAsync<long>($"select id from ledger_account where name = '{name}'");
    }

    [Theory]
    [InlineData("update ledger_entry set amount_nanos = 1")]
    [InlineData("delete from ledger_entry")]
    [InlineData("insert into ledger_entry select * from ledger_entry")]
    [InlineData("update ledger_transaction set description = 'x'")]
    [InlineData("delete from ledger_transaction")]
    [InlineData("truncate ledger_transaction cascade")]
    [InlineData("update ledger_account set name = 'cash:x' where id = 1")]
    [InlineData("delete from ledger_account")]
    [InlineData("truncate account cascade")]
    [InlineData("update price_version set per_gpu_hour_nanos = 1")]
    [InlineData("delete from price_version")]
    [InlineData("truncate price_version cascade")]
    [InlineData("update run_interval_rating set per_gpu_hour_nanos = 1")]
    [InlineData("update run_interval_gpus set uuids = '{GPU-1}'")]
    public async Task History_cannot_be_changed(string sql)
    {
        await DeclareAsync(Acme);
        await GrantAsync(Acme, "5.00");
        Assert.Equal("TM007", await StateOfAsync(sql));
    }

    [Fact]
    public async Task A_customers_balance_cannot_go_below_zero_even_past_the_function()
    {
        await DeclareAsync(Acme);
        Assert.Equal("23514", await StateOfAsync("update ledger_balance set amount_nanos = -1"));
    }

    [Fact]
    public async Task Fifty_posts_of_one_key_at_once_are_one()
    {
        await DeclareAsync(Acme);
        var movement = Movements.TopUp(Acme, Money.Parse("20.00"), "sandbox", "pi_same", "pm_card_visa");
        var results = await Task.WhenAll(Enumerable.Range(0, 50).Select(_ => Task.Run(() => Ledger.PostAsync(movement, Cancellation))));
        var id = Assert.Single(results.OfType<PostResult.Posted>()).TransactionId;
        Assert.Equal(49, results.OfType<PostResult.AlreadyPosted>().Count(result => result.TransactionId == id));
        Assert.Equal(Money.Parse("20.00"), await PostedAsync());
    }

    [Fact]
    public async Task One_key_for_two_accounts_at_once_credits_one_of_them()
    {
        await DeclareAsync(Acme);
        await DeclareAsync(Beta);
        var results = await Task.WhenAll(Enumerable.Range(0, 20).Select(i => Task.Run(() => Ledger.PostAsync(
            Raw("shared", To("cash:sandbox", -5), To(i % 2 == 0 ? "customer:acme" : "customer:beta", 5)), Cancellation))));
        Assert.Single(results.OfType<PostResult.Posted>());
        Assert.Equal(9, results.OfType<PostResult.AlreadyPosted>().Count());
        Assert.Equal(10, results.OfType<PostResult.Refused>().Count(result => result.Reason == LedgerRefusal.KeyReusedWithOtherContent));
        Assert.Equal(new Money(5), await PostedAsync() + await PostedAsync(Beta));
    }

    [Fact]
    public async Task First_uses_of_new_ledger_accounts_race_without_losing_a_post()
    {
        await DeclareAsync(Acme);
        await DeclareAsync(Beta);
        var results = await Task.WhenAll(Enumerable.Range(0, 60).Select(i => Task.Run(() => Ledger.PostAsync(
            Movements.TopUp(i % 2 == 0 ? Acme : Beta, new(1), $"provider{i % 3}", $"pi_{i}", "pm"), Cancellation))));
        Assert.All(results, result => Assert.IsType<PostResult.Posted>(result));
        Assert.Equal((new Money(30), new Money(30)), (await PostedAsync(), await PostedAsync(Beta)));
    }

    [Fact]
    public async Task A_balance_is_never_spent_twice_by_posts_at_once()
    {
        await DeclareAsync(Acme);
        Assert.IsType<PostResult.Posted>(await Ledger.PostAsync(Movements.CreditGrant(Acme, new(10), "ten", "tests", "ten"), Cancellation));
        var results = await Task.WhenAll(Enumerable.Range(0, 40).Select(i => Task.Run(() => Ledger.PostAsync(
            Raw($"spend-{i}", To("customer:acme", -1), To("revenue:gpu", 1)), Cancellation))));
        Assert.Equal(10, results.OfType<PostResult.Posted>().Count());
        Assert.Equal(30, results.OfType<PostResult.Refused>().Count(result => result.Reason == LedgerRefusal.InsufficientBalance));
        Assert.Equal(Money.Zero, await PostedAsync());
    }

    [Fact]
    public async Task Any_order_of_posts_with_duplicates_gives_one_balance()
    {
        var round = 0;
        await Gen.Select(Gen.Long[1, 1_000_000].Array[1, 12], Gen.Int[0, 1_000_000]).SampleAsync(async (amounts, seed) =>
        {
            var account = new AccountId($"perm-{Interlocked.Increment(ref round)}");
            await DeclareAsync(account);
            var posts = amounts.SelectMany(
                (amount, i) => Enumerable.Repeat(Movements.CreditGrant(account, new(amount), $"g{i}", "tests", "x"), 1 + i % 3)).ToArray();
            new Random(seed).Shuffle(posts);
            await Task.WhenAll(posts.Select(post => Ledger.PostAsync(post, Cancellation)));
            Assert.Equal(amounts.Sum(), (await PostedAsync(account)).Nanos);
        }, iter: 30, threads: 1);
    }

    [Fact]
    public async Task Lists_a_customers_transactions_newest_first_in_pages_seen_from_its_side()
    {
        await OpenAsync(Acme, "0.00");
        for (var i = 1; i <= 5; i++) await Ledger.PostAsync(
            Movements.TopUp(Acme, Money.FromUnits(i), "sandbox", $"pi_{i}", "pm_card_visa"), Cancellation);
        await Ledger.PostAsync(Raw("spend", To("customer:acme", -7), To("revenue:gpu", 7)), Cancellation);

        var first = await Transactions.ListAsync(Acme, null, 2, Cancellation);
        Assert.Equal([new Money(-7), Money.FromUnits(5)], first.Select(row => row.Amount));
        Assert.Equal(("TopUp", "pi_5", "pm_card_visa"), (first[1].Type, first[1].PaymentIntentId, first[1].PaymentMethodId));
        var rest = await Transactions.ListAsync(Acme, first[^1].Position, 1000, Cancellation);
        Assert.Equal([4L, 3, 2, 1], rest.Select(row => row.Amount.Nanos / Money.NanosPerUnit));
        Assert.Empty(await Transactions.ListAsync(new("nobody"), null, 10, Cancellation));
        await Assert.ThrowsAsync<ArgumentOutOfRangeException>(() => Transactions.ListAsync(Acme, null, 1001, Cancellation));
    }

    [Fact]
    public async Task Tells_listeners_whose_standing_changed()
    {
        await DeclareAsync(Acme);
        await using var listener = await Database.OpenConnectionAsync(Cancellation);
        var heard = new List<string>();
        listener.Notification += (_, notification) => heard.Add($"{notification.Channel} {notification.Payload}");
        await using (var listen = new NpgsqlCommand($"listen {StandingChannel.Name}", listener)) await listen.ExecuteNonQueryAsync(
            Cancellation);
        await GrantAsync(Acme, "1.00");
        Assert.True(await listener.WaitAsync(TimeSpan.FromSeconds(10), Cancellation));
        Assert.Equal(["tensormesh_standing acme"], heard);
    }
}
