using Tensormesh.Billing;

namespace Tensormesh.Integration.Tests.Billing;

/// <summary>Somebody with every right goes round the triggers and changes one thing: the verifier names it.</summary>
public sealed class VerifyTests(PostgresFixture postgres) : BillingTest(postgres)
{
    private readonly List<string> progress = [];

    private Task<VerifyReport> VerifyAsync() => new LedgerVerifier(Database).VerifyAsync(progress.Add, Cancellation);

    /// <summary>Two seals of two transactions each, and one that is not sealed. Positions 1 to 5.</summary>
    private async Task GivenAsync()
    {
        await PublishAsync(T0.AddDays(-1), (H100, "2.50"));
        await OpenAsync(Acme, "100.00");
        var (_, pod) = await RunAsync(2, T0);
        await Meter.SettleAsync(Acme, T0.AddMinutes(10), Cancellation);
        await SealAsync();
        await PublishAsync(T0.AddMinutes(20), (H100, "6.00"));
        await Meter.SettleAsync(Acme, T0.AddMinutes(30), Cancellation);
        await SealAsync();
        await Runs.CloseAsync(pod, T0.AddMinutes(25), Cancellation);
    }

    private async Task SealAsync() => Assert.NotNull(await new LedgerSeals(Database, TimeProvider.System).SealAsync(Cancellation));

    /// <summary>What is tampered with is put back in the end, for the books are looked at after every test.</summary>
    private async Task<LedgerDifference> FirstDifferenceAsync(string table, string tamper)
    {
        await GivenAsync();
        await ExecuteAsync($"create table kept as table {table}");
        await ExecuteAsync($"alter table {table} disable trigger all");
        await ExecuteAsync(tamper);
        var report = await VerifyAsync();
        var step = await new LedgerProof(Database).StepAsync(Cancellation);
        await ExecuteAsync($"delete from {table}");
        await ExecuteAsync($"insert into {table} overriding system value select * from kept");
        await ExecuteAsync($"alter table {table} enable trigger all");
        Assert.Null((await VerifyAsync()).Difference);
        // What the prover of the operator looks at as well, it finds as well.
        if (table is "ledger_transaction" or "ledger_seal" or "ledger_balance") Assert.Equal(report.Difference, step.Difference);
        return report.Difference!;
    }

    [Fact]
    public async Task Sound_books_are_proven_whole()
    {
        await GivenAsync();
        var report = await VerifyAsync();
        Assert.Null(report.Difference);
        Assert.Equal((5L, 2L, 4L, 1L, 1L), (report.Transactions, report.Seals, report.SealedPosition, report.Unsealed, report.Runs));
        Assert.Contains("4 transactions in 2 seals are as they were sealed", progress);
        Assert.Equal(new ProofStep(true, 4, null), await new LedgerProof(Database).StepAsync(Cancellation));
    }

    [Fact]
    public async Task An_empty_ledger_is_sound()
        => Assert.Equal((0L, null), ((await VerifyAsync()).Transactions, (await VerifyAsync()).Difference));

    [Theory]
    [InlineData("update spending_bucket set amount_nanos = amount_nanos + 1", "not is_day", "the quarter of an hour after 2026-03-01T12:00", 833333333, "833333334 nanos")]
    [InlineData("delete from spending_bucket", "not is_day", "the quarter of an hour after 2026-03-01T12:00", 833333333, "none")]
    [InlineData("update spending_bucket set amount_nanos = amount_nanos + 1", "is_day", "the day after 2026-03-01T00:00", 3666666666, "3666666667 nanos")]
    public async Task A_sum_that_reports_add_up_is_changed(string tamper, string which, string where, long expected, string found)
    {
        var difference = await FirstDifferenceAsync(
            "spending_bucket", $"{tamper} where {which} and bucket = (select min(bucket) from spending_bucket where {which})");
        Assert.Equal(
            ($"spending of customer:acme by GpuUsage in {where}:00.0000000+00:00", $"{expected} nanos", found), (difference.What, difference.Expected, difference.Found));
    }

    private async Task<string> NameAsync(int position)
        => $"transaction {await ScalarAsync<string>($"select id from ledger_transaction where position = {position}")} at position {position}";

    [Fact]
    public async Task One_amount_is_changed()
    {
        var difference = await FirstDifferenceAsync("ledger_transaction", "update ledger_transaction set amounts[1] = amounts[1] - 1 where position = 2");
        Assert.Equal(new($"sum of {await NameAsync(2)}", "0 nanos", "-1 nanos"), difference);
    }

    [Fact]
    public async Task Both_amounts_are_changed()
    {
        var difference = await FirstDifferenceAsync(
            "ledger_transaction", "update ledger_transaction set amounts = array[amounts[1] + 1, amounts[2] - 1] where position = 2");
        Assert.Equal(await NameAsync(2), difference.What);
        Assert.StartsWith("what was sealed, ", difference.Expected, StringComparison.Ordinal);
        Assert.StartsWith("other content, ", difference.Found, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("details = details || '{\"node\": \"gpu-b\"}'")]
    [InlineData("description = description || ' '")]
    [InlineData("type = 'Adjustment'")]
    [InlineData("idempotency_key = 'other'")]
    [InlineData("effective_at = effective_at + interval '1 microsecond'")]
    [InlineData("created_at = created_at + interval '1 microsecond'")]
    [InlineData("corrects = 1")]
    public async Task Any_other_part_is_changed(string change)
    {
        var difference = await FirstDifferenceAsync("ledger_transaction", $"update ledger_transaction set {change} where position = 3");
        Assert.Equal(await NameAsync(3), difference.What);
    }

    [Fact]
    public async Task One_transaction_is_deleted()
    {
        var difference = await FirstDifferenceAsync("ledger_transaction", "delete from ledger_transaction where position = 2");
        Assert.Equal(("transaction at position 2", "none: it was deleted"), (difference.What, difference.Found));
    }

    [Fact]
    public async Task One_transaction_is_inserted_in_the_middle()
    {
        // In a place that was free: a post that was rolled back has left one.
        await ExecuteAsync("select nextval(pg_get_serial_sequence('ledger_transaction', 'position'))");
        var difference = await FirstDifferenceAsync(
            "ledger_transaction",
            """
            insert into ledger_transaction (position, id, type, idempotency_key, effective_at, description, currency, accounts, amounts, customer)
            overriding system value select 1, 'txn_slipped_in', 'CreditGrant', 'slipped in', now(), '', currency, accounts, amounts, customer
            from ledger_transaction where position = 2
            """);
        Assert.Equal(
            new("transaction txn_slipped_in at position 1", "no transaction at this position when it was sealed", "one that was inserted later"), difference);
    }

    [Theory]
    [InlineData("delete from ledger_seal where to_position = 2", "seal of positions 3 to 4")]
    [InlineData("update ledger_seal set previous_hash = repeat('x', 32)::bytea where to_position = 4", "seal of positions 3 to 4")]
    [InlineData("update ledger_seal set from_position = 4 where to_position = 4", "seal of positions 4 to 4")]
    public async Task A_seal_is_changed_or_deleted(string tamper, string what)
        => Assert.Equal(what, (await FirstDifferenceAsync("ledger_seal", tamper)).What);

    [Fact]
    public async Task A_balance_is_changed()
    {
        var difference = await FirstDifferenceAsync("ledger_balance", "update ledger_balance set amount_nanos = amount_nanos + 7");
        Assert.Equal("balance of customer:acme in ledger_balance", difference.What);
        Assert.EndsWith(" nanos by its entries", difference.Expected, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_balance_is_deleted()
        => Assert.Equal("no row", (await FirstDifferenceAsync("ledger_balance", "delete from ledger_balance")).Found);

    [Fact]
    public async Task A_ledger_account_is_renamed()
    {
        await GivenAsync();
        await ExecuteAsync("alter table ledger_account disable trigger append_only");
        await ExecuteAsync("update ledger_account set name = 'expense:gifts' where name = 'expense:credit_grants'");
        Assert.Equal(await NameAsync(1), (await VerifyAsync()).Difference?.What);
        await ExecuteAsync("update ledger_account set name = 'expense:credit_grants' where name = 'expense:gifts'");
        Assert.Null((await VerifyAsync()).Difference);
    }

    [Theory]
    [InlineData("run_interval", "update run_interval set total_nanos = total_nanos + 1", "total of the run of pod ")]
    [InlineData("run_interval", "update run_interval set gpus = 3", "what was posted for the run of pod ")]
    [InlineData("run_interval_rating", "update run_interval_rating set per_gpu_hour_nanos = 1 where price_version = 1", "price version 1 of the run of pod ")]
    [InlineData("run_interval_rating", "delete from run_interval_rating", "prices of the run of pod ")]
    public async Task A_run_is_not_what_was_posted_for_it(string table, string tamper, string what)
        => Assert.StartsWith(what, (await FirstDifferenceAsync(table, tamper)).What, StringComparison.Ordinal);

    [Fact]
    public async Task The_proof_in_steps_goes_on_from_where_it_was_and_finds_a_change_of_what_it_had_proven()
    {
        await GivenAsync();
        var proof = new LedgerProof(Database);
        Assert.Equal(new ProofStep(true, 4, null), await proof.StepAsync(Cancellation));
        await GrantAsync(Acme, "1.00");
        await SealAsync();
        Assert.Equal(new ProofStep(true, 6, null), await proof.StepAsync(Cancellation));
        await ExecuteAsync("alter table ledger_transaction disable trigger append_only");
        await ExecuteAsync("update ledger_transaction set description = description || '!' where position = 1");
        Assert.Equal(await NameAsync(1), (await proof.StepAsync(Cancellation)).Difference?.What);
        Assert.Equal(await NameAsync(1), (await proof.StepAsync(Cancellation)).Difference?.What);
        await ExecuteAsync("update ledger_transaction set description = rtrim(description, '!') where position = 1");
        Assert.Equal(new ProofStep(true, 6, null), await proof.StepAsync(Cancellation));
    }
}
