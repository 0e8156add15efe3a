using Npgsql;
using Tensormesh.Billing;

namespace Tensormesh.Integration.Tests.Billing;

/// <summary>Posts to one account that meet in a process share an SQL transaction; no answer, and no balance, is another for it.</summary>
public sealed class AccountTurnsTests(PostgresFixture postgres) : BillingTest(postgres)
{
    private static Movement Spend(int i, string details = "{}") => new()
    {
        Type = MovementType.CreditGrant,
        Key = $"spend-{i}",
        Entries = [new("customer:acme", new(-1)), new("revenue:gpu", new(1))],
        Description = "spent",
        Details = details,
    };

    /// <summary>Holds the account's row while posts begin, so that all but the first wait for their turn.</summary>
    private async Task<T> WhileLockedAsync<T>(Func<Task<T>> begin)
    {
        await using var connection = await Database.OpenConnectionAsync(Cancellation);
        await using var transaction = await connection.BeginTransactionAsync(Cancellation);
        await using (var hold = new NpgsqlCommand(
            "select from ledger_balance b join ledger_account a on a.id = b.ledger_account where a.account = 'acme' for update of b",
            connection)) await hold.ExecuteNonQueryAsync(Cancellation);
        var begun = await begin();
        await transaction.RollbackAsync(Cancellation);
        return begun;
    }

    private Task<Task<PostResult>[]> BeginAsync(IEnumerable<Movement> movements, CancellationToken cancellation)
        => WhileLockedAsync(async () =>
        {
            var posts = movements.Select(movement => Ledger.PostAsync(movement, cancellation)).ToArray();
            await Eventually.SeeAsync(() => ScalarAsync<long>(
                "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"), waiting => waiting > 0);
            return posts;
        });

    [Fact]
    public async Task What_waits_for_one_account_is_written_together_and_answered_one_by_one()
    {
        await OpenAsync(Acme, "0.00");
        Assert.IsType<PostResult.Posted>(await Ledger.PostAsync(Movements.CreditGrant(Acme, new(10), "ten", "tests", "x"), Cancellation));
        var posts = await BeginAsync(Enumerable.Range(0, 40).Select(i => Spend(i % 20)), Cancellation);
        var results = await Task.WhenAll(posts);
        Assert.Equal(
            Enumerable.Range(0, 40).Select(i => i % 20 >= 10 ? "Refused" : i < 20 ? "Posted" : "AlreadyPosted"),
            results.Select(result => result.GetType().Name));
        Assert.Equal(Money.Zero, await PostedAsync());
        // The first alone, and all the others in one SQL transaction.
        Assert.Equal(2L, await ScalarAsync<long>("select count(distinct xmin::text) from ledger_transaction where idempotency_key like 'spend-%'"));
    }

    [Fact]
    public async Task A_post_that_the_server_cannot_read_fails_alone()
    {
        await OpenAsync(Acme, "1.00");
        var posts = await BeginAsync(Enumerable.Range(0, 12).Select(i => Spend(i, i == 7 ? "no json" : "{}")), Cancellation);
        for (var i = 0; i < posts.Length; i++)
        {
            if (i == 7) Assert.Equal("22P02", (await Assert.ThrowsAsync<PostgresException>(() => posts[7])).SqlState);
            else Assert.IsType<PostResult.Posted>(await posts[i]);
        }

        Assert.Equal(Money.Parse("1.00") - new Money(11), await PostedAsync());
    }

    [Fact]
    public async Task Whoever_gives_up_before_its_turn_posts_nothing_and_holds_nobody_up()
    {
        await OpenAsync(Acme, "1.00");
        using var givesUp = new CancellationTokenSource();
        var (first, second) = await WhileLockedAsync(async () =>
        {
            var ahead = Ledger.PostAsync(Spend(0), Cancellation);
            var gone = Ledger.PostAsync(Spend(1), givesUp.Token);
            await givesUp.CancelAsync();
            await Assert.ThrowsAnyAsync<OperationCanceledException>(() => gone);
            return (ahead, Ledger.PostAsync(Spend(2), Cancellation));
        });
        Assert.IsType<PostResult.Posted>(await first);
        Assert.IsType<PostResult.Posted>(await second);
        Assert.Equal(0L, await ScalarAsync<long>("select count(*) from ledger_transaction where idempotency_key = 'spend-1'"));
    }
}
