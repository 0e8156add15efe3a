using Npgsql;
using Tensormesh.Billing;

namespace Tensormesh.Integration.Tests.Billing;

/// <summary>What takes something back: never twice, never more than there was, never below zero.</summary>
public sealed class CorrectionsTests(PostgresFixture postgres) : BillingTest(postgres)
{
    private static readonly Actor Ada = new("ada", "ADMIN", null, null);

    private Corrections Corrections => new(Database);

    private async Task<string> PostAsync(Movement movement)
        => Assert.IsType<PostResult.Posted>(await Ledger.PostAsync(movement, Cancellation)).TransactionId;

    private Task<string> TopUpAsync(string dollars, string intent = "pi_1")
        => PostAsync(Movements.TopUp(Acme, Money.Parse(dollars), "sandbox", intent, "pm"));

    private Task<PostResult> RefundAsync(string topUp, string dollars, string id = "re_1")
        => Corrections.RefundAsync(Acme, Money.Parse(dollars), "sandbox", id, topUp, T0, Cancellation);

    private Task<PostResult> DisputeAsync(string topUp, string dollars, string id = "dp_1")
        => Corrections.DisputeAsync(Acme, Money.Parse(dollars), "sandbox", id, topUp, T0, Cancellation);

    private static void AssertRefused(LedgerRefusal reason, PostResult result) => Assert.Equal(reason, Assert.IsType<PostResult.Refused>(result).Reason);

    private static string Id(PostResult result) => Assert.IsType<PostResult.Posted>(result).TransactionId;

    private Task<decimal> BalanceOfAsync(string ledgerAccount)
        => ScalarAsync<decimal>($"select balance from v_trial_balance where ledger_account = '{ledgerAccount}'");

    [Fact]
    public async Task A_refund_is_once_and_all_refunds_of_a_top_up_are_never_more_than_it()
    {
        await DeclareAsync(Acme);
        var topUp = await TopUpAsync("10.00");
        await TopUpAsync("10.00", "pi_2");
        var first = Id(await RefundAsync(topUp, "6.00"));
        Assert.Equal(new PostResult.AlreadyPosted(first), await RefundAsync(topUp, "6.00"));
        AssertRefused(LedgerRefusal.KeyReusedWithOtherContent, await RefundAsync(topUp, "5.00"));
        AssertRefused(LedgerRefusal.CorrectionUnsound, await RefundAsync(topUp, "4.01", "re_2"));
        Id(await RefundAsync(topUp, "4.00", "re_2"));
        AssertRefused(LedgerRefusal.CorrectionUnsound, await RefundAsync(topUp, "0.01", "re_3"));
        Assert.Equal(Money.Parse("10.00"), await PostedAsync());
    }

    [Fact]
    public async Task A_refund_is_of_the_same_customer_and_the_same_payment_company_as_its_top_up()
    {
        AccountId beta = new("beta");
        await DeclareAsync(Acme);
        await DeclareAsync(beta);
        var topUp = await TopUpAsync("10.00");
        await PostAsync(Movements.TopUp(beta, Money.Parse("10.00"), "other", "pi_2", "pm"));
        AssertRefused(LedgerRefusal.CorrectionUnsound, await Corrections.RefundAsync(beta, Money.Parse("1.00"), "sandbox", "re_1", topUp, T0, Cancellation));
        AssertRefused(LedgerRefusal.CorrectionUnsound, await Corrections.RefundAsync(Acme, Money.Parse("1.00"), "other", "re_1", topUp, T0, Cancellation));
        AssertRefused(LedgerRefusal.AccountUnknown, await Corrections.RefundAsync(new("nobody"), Money.Parse("1.00"), "other", "re_1", topUp, T0, Cancellation));
        Assert.Equal((Money.Parse("10.00"), Money.Parse("10.00")), (await PostedAsync(), await PostedAsync(beta)));
    }

    [Fact]
    public async Task Refunds_at_once_give_back_a_top_up_once()
    {
        await DeclareAsync(Acme);
        var topUp = await TopUpAsync("10.00");
        await TopUpAsync("90.00", "pi_2");
        var results = await Task.WhenAll(Enumerable.Range(0, 20).Select(i => Task.Run(() => RefundAsync(topUp, "1.50", $"re_{i}"))));
        Assert.Equal(6, results.OfType<PostResult.Posted>().Count());
        Assert.All(results.OfType<PostResult.Refused>(), refused => Assert.Equal(LedgerRefusal.CorrectionUnsound, refused.Reason));
        Assert.Equal(Money.Parse("91.00"), await PostedAsync());
    }

    [Fact]
    public async Task Granted_credit_and_used_time_are_not_refunded()
    {
        await PublishAsync(T0.AddDays(-1), (H100, "2.50"));
        await OpenAsync(Acme, "0.00");
        var topUp = await TopUpAsync("10.00");
        await RunAsync(1, T0.AddHours(-1));
        // 2.50 ran until now and is settled first; the grant that comes then is no paid money.
        AssertRefused(LedgerRefusal.InsufficientBalance, await RefundAsync(topUp, "7.51"));
        Assert.Equal(Money.Parse("7.50"), await PostedAsync());
        await GrantAsync(Acme, "100.00");
        AssertRefused(LedgerRefusal.InsufficientBalance, await RefundAsync(topUp, "7.51"));
        Id(await RefundAsync(topUp, "7.50"));
        Assert.Equal(Money.Parse("100.00"), await PostedAsync());
    }

    [Fact]
    public async Task A_dispute_takes_what_the_balance_has_and_the_rest_is_owed_until_it_is_won_or_written_off()
    {
        await DeclareAsync(Acme);
        var topUp = await TopUpAsync("10.00");
        await PostAsync(Movements.Adjustment(Acme, Money.Parse("-7.00"), "spent", "ada", "spent"));
        var dispute = Id(await DisputeAsync(topUp, "10.00"));
        Assert.Equal((Money.Zero, -7m), (await PostedAsync(), await BalanceOfAsync("receivable:disputes")));
        // The same again finds it, whatever the balance is by now.
        await TopUpAsync("5.00", "pi_2");
        Assert.Equal(new PostResult.AlreadyPosted(dispute), await DisputeAsync(topUp, "10.00"));
        AssertRefused(LedgerRefusal.CorrectionUnsound, await DisputeAsync(topUp, "0.01", "dp_2"));
        AssertRefused(LedgerRefusal.CorrectionUnsound, await RefundAsync(topUp, "0.01"));

        AssertRefused(LedgerRefusal.CorrectionUnsound,
            await Ledger.PostAsync(Movements.WriteOff(dispute, Money.Parse("7.01"), "all", "ada", "gone"), Cancellation));
        var writeOff = await PostAsync(Movements.WriteOff(dispute, Money.Parse("7.00"), "all", "ada", "gone"));
        Assert.Equal((0m, -7m), (await BalanceOfAsync("receivable:disputes"), await BalanceOfAsync("expense:write_offs")));
        // Won after all: what was written off is taken back first.
        AssertRefused(LedgerRefusal.CorrectionUnsound, await Corrections.ReverseDisputeAsync(dispute, Cancellation));
        Id(await Corrections.ReverseAsync(writeOff, Ada, "it was won", Cancellation));
        var won = Id(await Corrections.ReverseDisputeAsync(dispute, Cancellation));
        Assert.Equal(new PostResult.AlreadyPosted(won), await Corrections.ReverseDisputeAsync(dispute, Cancellation));
        Assert.Equal((Money.Parse("8.00"), 0m), (await PostedAsync(), await BalanceOfAsync("receivable:disputes")));
        AssertRefused(LedgerRefusal.CorrectionUnsound, await Corrections.ReverseAsync(dispute, Ada, "twice", Cancellation));
        // The top-up is whole again, and the card company may take it back another time.
        Id(await DisputeAsync(topUp, "10.00", "dp_3"));
    }

    [Fact]
    public async Task A_reversal_is_the_exact_mirror_once_and_is_not_reversed()
    {
        await DeclareAsync(Acme);
        var grant = await PostAsync(Movements.CreditGrant(Acme, Money.Parse("5.00"), "wrong", "ada", "typo"));
        var results = await Task.WhenAll(Enumerable.Range(0, 20).Select(_ => Task.Run(() => Corrections.ReverseAsync(grant, Ada, "typo", Cancellation))));
        var reversal = Assert.Single(results.OfType<PostResult.Posted>()).TransactionId;
        Assert.All(results.OfType<PostResult.AlreadyPosted>(), again => Assert.Equal(reversal, again.TransactionId));
        Assert.Equal(Money.Zero, await PostedAsync());
        AssertRefused(LedgerRefusal.CorrectionUnsound, await Corrections.ReverseAsync(reversal, Ada, "again", Cancellation));
        AssertRefused(LedgerRefusal.CorrectionUnsound, await Corrections.ReverseAsync("txn_none", Ada, "again", Cancellation));
        // Spent money cannot come back.
        var spent = await PostAsync(Movements.CreditGrant(Acme, Money.Parse("5.00"), "spent", "ada", "x"));
        await PostAsync(Movements.Adjustment(Acme, Money.Parse("-1.00"), "spend", "ada", "x"));
        AssertRefused(LedgerRefusal.InsufficientBalance, await Corrections.ReverseAsync(spent, Ada, "x", Cancellation));
        // No mirror.
        var unlike = Movements.Reversal(new(spent, "CreditGrant", Acme,
            [new("expense:credit_grants", new(-1)), new("customer:acme", new(1))]), "ada", "x");
        AssertRefused(LedgerRefusal.CorrectionUnsound, await Ledger.PostAsync(unlike, Cancellation));
    }

    [Fact]
    public async Task What_a_run_was_charged_is_not_reversed_past_its_run()
    {
        await PublishAsync(T0.AddDays(-1), (H100, "2.50"));
        await OpenAsync(Acme, "10.00");
        await RunAsync(1, T0);
        await Meter.SettleAsync(Acme, T0.AddMinutes(10), Cancellation);
        var usage = (await Transactions.ListAsync(Acme, null, 1, Cancellation))[0].TransactionId;
        AssertRefused(LedgerRefusal.CorrectionUnsound, await Corrections.ReverseAsync(usage, Ada, "x", Cancellation));
    }

    [Fact]
    public async Task In_a_batch_each_correction_has_its_own_answer()
    {
        await DeclareAsync(Acme);
        var topUp = await TopUpAsync("10.00");
        var movements = Enumerable.Range(0, 30).Select(i => Movements.Refund(Acme, Money.Parse("1.00"), "sandbox", $"re_{i}", topUp)).ToList();
        var results = await Ledger.PostManyAsync(movements, Cancellation);
        Assert.Equal(10, results.OfType<PostResult.Posted>().Count());
        // The balance is looked at before what is left of the top-up.
        Assert.Equal(20, results.OfType<PostResult.Refused>().Count(refused => refused.Reason == LedgerRefusal.InsufficientBalance));
    }

    [Fact]
    public async Task A_grant_that_expires_pays_for_what_ran_until_then_and_the_rest_goes_back_once()
    {
        await PublishAsync(T0.AddDays(-1), (H100, "2.50"));
        await OpenAsync(Acme, "0.00");
        await PostAsync(Movements.CreditGrant(Acme, Money.Parse("10.00"), "trial", "ada", "trial", T0.AddHours(1)));
        await PostAsync(Movements.CreditGrant(Acme, Money.Parse("1.00"), "short", "ada", "used up", T0.AddMinutes(30)));
        await TopUpAsync("20.00");
        await RunAsync(1, T0);
        var grants = new CreditGrants(Database);
        Assert.Empty(await grants.ExpireAsync(T0.AddMinutes(29), Cancellation));
        // An hour at 2.50: the short one is used first, and nothing of it is left.
        Assert.Equal([Acme], await grants.ExpireAsync(T0.AddHours(2), Cancellation));
        Assert.Empty(await grants.ExpireAsync(T0.AddHours(3), Cancellation));
        Assert.Equal(Money.Parse("-8.50"), await SumAsync(MovementType.CreditExpiry));
        Assert.Equal(Money.Parse("20.00"), await PostedAsync());
        Assert.Equal(2L, await ScalarAsync<long>("select count(*) from expired_grant"));
        Assert.Equal("TM007", (await Assert.ThrowsAsync<PostgresException>(() => ExecuteAsync("delete from expired_grant"))).SqlState);
    }

    [Fact]
    public async Task An_adjustment_goes_both_ways_and_never_below_zero()
    {
        await DeclareAsync(Acme);
        await PostAsync(Movements.Adjustment(Acme, Money.Parse("3.00"), "up", "ada", "goodwill"));
        AssertRefused(LedgerRefusal.InsufficientBalance,
            await Ledger.PostAsync(Movements.Adjustment(Acme, Money.Parse("-3.000000001"), "down", "ada", "x"), Cancellation));
        await PostAsync(Movements.Adjustment(Acme, Money.Parse("-3.00"), "down", "ada", "x"));
        Assert.Equal(Money.Zero, await PostedAsync());
    }

    [Fact]
    public async Task Every_type_of_movement_is_in_the_databases_list_and_no_other_is_posted()
    {
        Assert.Equal(Enum.GetNames<MovementType>().Order(), (await ScalarAsync<string[]>("select movement_types()")).Order());
        await DeclareAsync(Acme);
        var fault = await Assert.ThrowsAsync<PostgresException>(() => ExecuteAsync(
            "select * from post_transaction('Gift', 'k', null, '', '{}', '{customer:acme,expense:credit_grants}', '{5,-5}', '{USD,USD}')"));
        Assert.Equal(PostgresErrorCodes.CheckViolation, fault.SqlState);
        Assert.Contains("Gift", fault.MessageText, StringComparison.Ordinal);
        Assert.Equal(Money.Zero, await PostedAsync());
    }

    [Fact]
    public async Task Whoever_writes_past_the_function_cannot_take_back_too_much_either()
    {
        await DeclareAsync(Acme);
        var topUp = await TopUpAsync("10.00");
        string Insert(string type, string of, long nanos) =>
            $$"""
            insert into ledger_transaction (id, type, idempotency_key, effective_at, description, currency, accounts, amounts, details)
            select 'txn_x', '{{type}}', 'x', now(), '', 'USD', t.accounts, array[{{nanos}}, {{-nanos}}], '{"transaction": "{{of}}"}' from ledger_transaction t
            """;
        foreach (var sql in new[] { Insert("Refund", topUp, 10_000_000_001), Insert("Refund", "txn_none", 1), Insert("Reversal", topUp, 1), Insert("WriteOff", topUp, 1) })
        {
            Assert.Equal("TM010", (await Assert.ThrowsAsync<PostgresException>(() => ExecuteAsync(sql))).SqlState);
        }
    }

    [Fact]
    public async Task At_the_bounds_of_64_bits_everything_is_exact_or_refused_and_nothing_is_lost()
    {
        await DeclareAsync(Acme);
        await PostAsync(Movements.CreditGrant(Acme, new(long.MaxValue), "all", "ada", "all there is"));
        AssertRefused(LedgerRefusal.AmountOverflow, await Ledger.PostAsync(Movements.Adjustment(Acme, new(1), "one", "ada", "x"), Cancellation));
        AssertRefused(LedgerRefusal.AmountOverflow,
            await Ledger.PostAsync(Movements.TopUp(Acme, new(long.MaxValue), "sandbox", "pi", "pm"), Cancellation));
        Assert.Equal(new Money(long.MaxValue), await PostedAsync());
        await PostAsync(Movements.Adjustment(Acme, new(-long.MaxValue), "back", "ada", "x"));
        Assert.Equal(Money.Zero, await PostedAsync());
        Assert.Throws<OverflowException>(() => Movements.Adjustment(Acme, new(long.MinValue), "least", "ada", "x"));
        // The least number has no opposite, for the server neither: an error, and the books are as they were.
        await Assert.ThrowsAsync<PostgresException>(() => ExecuteAsync(
            "select * from post_transaction('Adjustment', 'k', null, '', '{}', '{customer:acme,expense:adjustments}', '{-9223372036854775808,1}', '{USD,USD}')"));
        Assert.Equal(2L, await ScalarAsync<long>("select count(*) from ledger_transaction"));
    }
}
