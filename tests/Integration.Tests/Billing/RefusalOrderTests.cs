using Npgsql;
using Tensormesh.Billing;
using Tensormesh.TestKit;

namespace Tensormesh.Integration.Tests.Billing;

/// <summary>Everything that the ledger refuses, in one table in the order in which it looks: of several faults the first is named.</summary>
public sealed class RefusalOrderTests(PostgresFixture postgres) : BillingTest(postgres)
{
    private sealed record Draft(string Key, string Customer, long Amount, string Currency, IReadOnlyList<Entry> More)
    {
        public MovementType Type { get; init; } = MovementType.CreditGrant;

        public Movement ToMovement() => new()
        {
            Type = Type,
            Key = Key,
            Entries = [To(Customer, -Amount, Currency), To("revenue:gpu", Amount, Currency), .. More.Select(one => one with { Currency = Currency })],
            Description = "draft",
        };
    }

    private static Entry[] TwiceAllThereIs(string customer) =>
    [
        To("expense:uncollected", -long.MaxValue), To("expense:uncollected", -long.MaxValue),
        To(customer, long.MaxValue), To(customer, long.MaxValue),
    ];

    /// <summary>In order of precedence. Each fault leaves room for all of the others.</summary>
    private static readonly (string State, LedgerRefusal Reason, Func<Draft, Draft> Spoil)[] Table =
    [
        ("TM001", LedgerRefusal.KeyReusedWithOtherContent, draft => draft with { Key = "used" }),
        ("TM002", LedgerRefusal.AccountUnknown,            draft => draft with { Customer = "customer:nobody" }),
        ("TM003", LedgerRefusal.CurrencyMismatch,          draft => draft with { Currency = "EUR" }),
        ("TM004", LedgerRefusal.NotBalanced,               draft => draft with { More = AndThen(draft.More, To("expense:credit_grants", 9)) }),
        ("TM005", LedgerRefusal.AmountOverflow,            draft => draft with { More = AndThen(draft.More, TwiceAllThereIs(draft.Customer)) }),
        ("TM006", LedgerRefusal.InsufficientBalance,       draft => draft with { Amount = 6 }),
        ("TM010", LedgerRefusal.CorrectionUnsound,         draft => draft with { Type = MovementType.Reversal }),
    ];

    /// <summary>What none of the above is asked about: history is not changed, whatever the change.</summary>
    private const string ChangeOfHistory = "TM007";

    private static Entry[] AndThen(IEnumerable<Entry> entries, params Entry[] more) => [.. entries, .. more];

    private static Entry To(string account, long nanos, string currency = "USD") => new(account, new(nanos), currency);

    private static Movement Give(string key, long nanos) => new()
    {
        Type = MovementType.CreditGrant,
        Key = key,
        Entries = [To("expense:credit_grants", -nanos), To("customer:acme", nanos)],
        Description = "given",
    };

    private async Task<string> StateOfAsync(string sql)
        => (await Assert.ThrowsAsync<PostgresException>(() => ExecuteAsync(sql))).SqlState;

    [Fact]
    public void The_table_is_that_of_the_enum_and_of_the_readme()
    {
        Assert.Equal(Enum.GetValues<LedgerRefusal>(), Table.Select(row => row.Reason));
        Assert.All(Table, row => Assert.Equal(row.Reason, SqlStates.Refusal(row.State)));
        Assert.Null(SqlStates.Refusal(ChangeOfHistory));
        var readme = File.ReadAllLines(Path.Combine(Repository.Root, "src", "Tensormesh.Billing", "README.md"));
        Assert.Equal(
            [ChangeOfHistory, .. Table.Select(row => row.State)],
            readme.Where(line => line.StartsWith("| `TM", StringComparison.Ordinal)).Select(line => line[3..8]));
    }

    [Fact]
    public async Task Of_all_that_is_wrong_with_a_post_the_first_of_the_table_is_named_and_nothing_moves()
    {
        await DeclareAsync(Acme);
        Assert.IsType<PostResult.Posted>(await Ledger.PostAsync(Give("used", 5), Cancellation));
        var faults = Enumerable.Range(1, (1 << Table.Length) - 1).ToArray();
        var drafts = faults.Select(fault => Table.Where((_, i) => (fault >> i & 1) != 0)
            .Aggregate(new Draft($"free-{fault}", "customer:acme", 1, "USD", []), (draft, row) => row.Spoil(draft)).ToMovement()).ToArray();
        var expected = faults.Select(fault => Table.Where((_, i) => (fault >> i & 1) != 0).First().Reason).ToArray();

        var alone = new List<LedgerRefusal>();
        foreach (var draft in drafts) alone.Add(Reason(await Ledger.PostAsync(draft, Cancellation)));
        Assert.Equal(expected, alone);
        // A few together are posted one by one, many in bulk: the answers are the same.
        var few = new List<LedgerRefusal>();
        foreach (var chunk in drafts.Chunk(10)) few.AddRange((await Ledger.PostManyAsync(chunk, Cancellation)).Select(Reason));
        Assert.Equal(expected, few);
        Assert.Equal(expected, (await Ledger.PostManyAsync(drafts, Cancellation)).Select(Reason));
        Assert.Equal((new Money(5), 1L), (await PostedAsync(), await ScalarAsync<long>("select count(*) from ledger_transaction")));

        static LedgerRefusal Reason(PostResult result) => Assert.IsType<PostResult.Refused>(result).Reason;
    }

    [Theory]
    // What else is wrong with each of these is not looked at.
    [InlineData("update ledger_entry set amount_nanos = 0, currency = 'EUR', ledger_account = 0")]
    [InlineData("update ledger_transaction set idempotency_key = '', id = 'none'")]
    [InlineData("update ledger_account set name = '', currency = null")]
    [InlineData("update ledger_entry set amount_nanos = 1 where false")]
    [InlineData("delete from ledger_account")]
    [InlineData("delete from ledger_transaction")]
    [InlineData("delete from ledger_entry where false")]
    [InlineData("truncate ledger_transaction")]
    [InlineData("truncate ledger_account cascade")]
    public async Task A_change_of_history_is_refused_before_anything_else_is_looked_at(string sql)
    {
        await DeclareAsync(Acme);
        await GrantAsync(Acme, "5.00");
        Assert.Equal(ChangeOfHistory, await StateOfAsync(sql));
        Assert.Equal(Money.Parse("5.00"), await PostedAsync());
    }

    [Theory]
    [InlineData("TM002", "EUR", "{1,0,2}", "{5,-4,0}")]
    [InlineData("TM003", "EUR", "{1,2}", "{5,-4}")]
    [InlineData("TM004", "USD", "{1,2}", "{5,-4}")]
    public async Task The_database_looks_in_the_same_order_whoever_writes(string state, string currency, string accounts, string amounts)
        => Assert.Equal(state, await StateOfAsync(
            "insert into ledger_transaction (id, type, idempotency_key, effective_at, description, currency, accounts, amounts) "
            + $"values ('txn_x', 'x', 'x', now(), '', '{currency}', '{accounts}', '{amounts}')"));

    [Fact]
    public async Task Two_first_spends_of_an_account_whose_balance_has_no_row_yet_do_not_both_pass()
    {
        // A lock on a row that is not there locks nothing: each of these is the first to look for it.
        for (var round = 0; round < 5; round++)
        {
            var account = new AccountId($"first-{round}");
            await DeclareAsync(account);
            await ExecuteAsync($"delete from ledger_balance b using ledger_account a where a.id = b.ledger_account and a.account = '{account}'");
            // A Ledger each, as in as many processes.
            var results = await Task.WhenAll(Enumerable.Range(0, 8).Select(i => Task.Run(() => new Ledger(Database).PostAsync(
                i == 0
                    ? Movements.CreditGrant(account, new(1), "one", "tests", "x")
                    : new Draft($"{account}/{i}", $"customer:{account}", 1, "USD", []).ToMovement(), Cancellation))));
            Assert.InRange(results.OfType<PostResult.Posted>().Count(), 1, 2);
            Assert.All(results.OfType<PostResult.Refused>(), refused => Assert.Equal(LedgerRefusal.InsufficientBalance, refused.Reason));
            Assert.Equal(2 - results.OfType<PostResult.Posted>().Count(), (await PostedAsync(account)).Nanos);
        }
    }
}
