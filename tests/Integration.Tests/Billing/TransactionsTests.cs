using Tensormesh.Billing;

namespace Tensormesh.Integration.Tests.Billing;

/// <summary>The transaction list, and one of its rows.</summary>
public sealed class TransactionsTests(PostgresFixture postgres) : BillingTest(postgres)
{
    private static readonly AccountId Beta = new("beta");

    [Fact]
    public async Task Pages_of_any_type_and_time_are_the_rows_of_the_whole_list_that_fit()
    {
        await DeclareAsync(Acme);
        await DeclareAsync(Beta);
        var seed = Random.Shared.Next();
        var random = new Random(seed);
        for (var i = 0; i < 150; i++)
        {
            var account = random.Next(3) == 0 ? Beta : Acme;
            await Ledger.PostAsync(
                random.Next(3) switch
                {
                    0 => Movements.TopUp(account, Money.FromUnits(1 + i), "sandbox", $"pi_{i}", "pm"),
                    1 => Movements.CreditGrant(account, Money.FromUnits(1 + i), $"{i}", "tests", "a test"),
                    _ => Movements.Adjustment(account, Money.FromUnits(1 + i), $"{i}", "tests", "a test"),
                }, Cancellation);
        }

        var all = await Transactions.ListAsync(Acme, null, 1000, Cancellation);
        MovementType[]?[] types = [null, [MovementType.TopUp], [MovementType.CreditGrant, MovementType.Adjustment], [MovementType.Refund]];
        for (var i = 0; i < 60; i++)
        {
            var filter = new TransactionFilter(types[i % types.Length], InstantOrNull(), InstantOrNull());
            var expected = all.Where(row => (filter.Types is null || filter.Types.Any(type => type.ToString() == row.Type))
                && (filter.From is null || row.CreatedAt >= filter.From) && (filter.Until is null || row.CreatedAt < filter.Until)).ToList();
            var (seen, before, size) = (new List<AccountTransaction>(), default(long?), random.Next(1, 40));
            while (await Transactions.ListAsync(Acme, before, size, Cancellation, filter) is { Count: > 0 } page)
            {
                Assert.True(page.Count <= size);
                seen.AddRange(page);
                before = page[^1].Position;
            }

            Assert.True(expected.SequenceEqual(seen), $"TENSORMESH_SEED={seed} {filter}");
        }

        DateTimeOffset? InstantOrNull() => random.Next(4) switch
        {
            0 => null,
            1 => all[random.Next(all.Count)].CreatedAt.AddTicks(random.Next(3) * 10 - 10),
            2 => all[random.Next(all.Count)].CreatedAt,
            _ => all[^1].CreatedAt.AddHours(random.Next(-2, 3)),
        };
    }

    /// <summary>Also where numbers are missing, as refused posts leave them, and for another's rows in between.</summary>
    [Fact]
    public async Task Where_a_time_begins_is_found_among_positions_with_gaps()
    {
        Assert.Equal(0L, await PositionAtAsync("now()"));
        await DeclareAsync(Acme);
        for (var i = 0; i < 40; i++)
        {
            await GrantAsync(Acme, "1.00");
            if (i % 7 == 0) await ExecuteAsync("select nextval(pg_get_serial_sequence('ledger_transaction', 'position')) from generate_series(1, 50)");
        }

        foreach (var row in await Transactions.ListAsync(Acme, null, 1000, Cancellation))
        {
            // Anything up to its own position, and past the one before it, is where it begins.
            var found = await PositionAtAsync($"(select created_at from ledger_transaction where position = {row.Position})");
            Assert.Equal(row.Position, await ScalarAsync<long>($"select min(position) from ledger_transaction where position >= {found}"));
        }

        Assert.Equal(await ScalarAsync<long>("select max(position) + 1 from ledger_transaction"), await PositionAtAsync("now() + interval '1 hour'"));
    }

    [Fact]
    public async Task One_transaction_tells_what_it_takes_back_and_what_takes_it_back()
    {
        await DeclareAsync(Acme);
        await DeclareAsync(Beta);
        var topUp = Assert.IsType<PostResult.Posted>(await Ledger.PostAsync(Movements.TopUp(Acme, Money.FromUnits(20), "sandbox", "pi_1", "pm_1"), Cancellation)).TransactionId;
        var corrections = new Corrections(Database);
        var first = Assert.IsType<PostResult.Posted>(await corrections.RefundAsync(Acme, Money.FromUnits(5), "sandbox", "re_1", topUp, T0, Cancellation)).TransactionId;
        var second = Assert.IsType<PostResult.Posted>(await corrections.RefundAsync(Acme, Money.FromUnits(6), "sandbox", "re_2", topUp, T0, Cancellation)).TransactionId;

        var detail = (await Transactions.FindAsync(Acme, topUp, Cancellation))!;
        Assert.Equal(((string?)null, "pi_1", Money.FromUnits(20)), (detail.Corrects, detail.Transaction.PaymentIntentId, detail.Transaction.Amount));
        Assert.Equal([first, second], detail.CorrectedBy);
        var refund = (await Transactions.FindAsync(Acme, second, Cancellation))!;
        Assert.Equal((topUp, Money.FromUnits(-6)), (refund.Corrects, refund.Transaction.Amount));
        Assert.Empty(refund.CorrectedBy);
        Assert.Equal(refund.Transaction, (await Transactions.ListAsync(Acme, null, 1, Cancellation))[0]);
        Assert.Null(await Transactions.FindAsync(Beta, topUp, Cancellation));
        Assert.Null(await Transactions.FindAsync(Acme, "txn_none", Cancellation));
    }

    private Task<long> PositionAtAsync(string instant) => ScalarAsync<long>($"select position_at({instant})");
}
