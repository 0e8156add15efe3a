using Npgsql;
using Tensormesh.Billing;

namespace Tensormesh.Integration.Tests.Billing;

/// <summary>Every change of money is one SQL transaction: it may end at any statement, and then it was not begun.</summary>
public sealed class AtomicityTests(PostgresFixture postgres) : BillingTest(postgres)
{
    private static readonly string[] Tables =
    [
        "ledger_transaction", "ledger_balance", "run_interval", "run_interval_rating", "credit_hold", "suspension",
        "price_version", "top_up", "payment_method",
    ];

    /// <summary>All that is stored, as text.</summary>
    private async Task<string> EverythingAsync()
    {
        var parts = new List<string>();
        foreach (var table in Tables) parts.Add(await ScalarAsync<string>(
            $"select '{table}: ' || coalesce(string_agg(t::text, E'\\n' order by t::text), '') from {table} t"));
        return string.Join("\n", parts);
    }

    [Fact]
    public async Task A_change_that_ends_at_any_of_its_writes_leaves_nothing_behind_and_can_be_made_again()
    {
        await ExecuteAsync(
            """
            create function end_here() returns trigger language plpgsql as $$
            begin raise exception 'ended here' using errcode = 'XX000'; end $$
            """);
        await PublishAsync(T0.AddDays(-1), (H100, "2.50"));
        await OpenAsync(Acme, "10.00");
        var (deployment, pod) = await RunAsync(2, T0);
        var (other, _) = await RunAsync(1, T0);
        var fresh = NewDeployment();
        string[] books = ["ledger_transaction", "ledger_balance"];
        (string What, string[] Writes, Func<Task> Change)[] changes =
        [
            ("post", books, () => Ledger.PostAsync(Movements.CreditGrant(Acme, new(5), "once", "tests", "x"), Cancellation)),
            ("post many", books, () => Ledger.PostManyAsync(
                [.. Enumerable.Range(0, 30).Select(i => Movements.CreditGrant(Acme, new(1), $"many-{i}", "tests", "x"))], Cancellation)),
            ("top up", books, () => TopUps.ChargeAsync(Acme, Money.Parse("5.00"), "pm_card_visa", "top-up", Cancellation)),
            ("place", ["credit_hold"], () => Holds.PlaceAsync(Ask(fresh, 1), Policy, T0, Cancellation)),
            ("open", ["run_interval", "run_interval_rating"], () => Runs.OpenAsync(
                Start(fresh, new PodId(fresh.Value), 1, T0), Cancellation)),
            ("settle", [.. books, "run_interval", "credit_hold"], () => Meter.SettleAsync(Acme, T0.AddMinutes(10), Cancellation)),
            ("publish", [.. books, "price_version", "run_interval", "run_interval_rating"], () => PublishAsync(
                T0.AddMinutes(20), (H100, "3.00"))),
            ("close", [.. books, "run_interval", "credit_hold"], () => Runs.CloseAsync(pod, T0.AddMinutes(30), Cancellation)),
            ("suspend", [.. books, "run_interval", "credit_hold", "suspension"], () => Meter.SuspendAsync(
                other, T0.AddMinutes(40), Cancellation)),
            ("exhaust", [.. books, "run_interval", "credit_hold", "suspension"], () => Meter.SuspendIfExhaustedAsync(
                Acme, Policy, T0.AddDays(9), Cancellation)),
        ];

        // The row of an attempt to top up is written before the card is charged, and stays: it is how the same key finds the charge.
        await Assert.ThrowsAnyAsync<PostgresException>(() => EndingAtAsync("ledger_transaction", changes[2].Change));
        foreach (var (what, writes, change) in changes)
        {
            foreach (var table in writes)
            {
                var before = await EverythingAsync();
                var ended = await Assert.ThrowsAsync<PostgresException>(() => EndingAtAsync(table, change));
                Assert.Equal(("ended here", before), (ended.MessageText, await EverythingAsync()));
            }

            var untouched = await EverythingAsync();
            await change();
            Assert.True(untouched != await EverythingAsync(), $"{what} changed nothing in the end");
        }
    }

    /// <summary>The change, while the first write to a table ends the transaction that it is made in.</summary>
    private async Task EndingAtAsync(string table, Func<Task> change)
    {
        await ExecuteAsync($"create trigger end_here after insert or update or delete on {table} for each row execute function end_here()");
        try
        {
            await change();
        }
        finally
        {
            await ExecuteAsync($"drop trigger end_here on {table}");
        }
    }

    [Fact]
    public async Task Every_answer_under_load_names_a_transaction_that_is_there()
    {
        AccountId[] accounts = [.. Enumerable.Range(0, 4).Select(i => new AccountId($"load-{i}"))];
        foreach (var account in accounts) await DeclareAsync(account);
        var posts = await Task.WhenAll(Enumerable.Range(0, 300).Select(i => Task.Run(async () =>
        {
            var movement = Movements.CreditGrant(accounts[i % 4], new(1 + i % 150), $"k{i % 150}", "tests", "x");
            return (movement.Key, Result: await Ledger.PostAsync(movement, Cancellation));
        })));
        foreach (var (key, result) in posts)
        {
            var id = result switch
            {
                PostResult.Posted posted => posted.TransactionId,
                PostResult.AlreadyPosted posted => posted.TransactionId,
                _ => throw new InvalidOperationException($"{key}: {result}"),
            };
            Assert.Equal(key, await ScalarAsync<string>($"select idempotency_key from ledger_transaction where id = '{id}'"));
        }

        var keys = posts.Select(post => post.Key).Distinct().Count();
        Assert.Equal(keys, posts.Count(post => post.Result is PostResult.Posted));
        Assert.Equal(keys, await ScalarAsync<long>("select count(*) from ledger_transaction"));
    }

    [Fact]
    public async Task Only_what_was_admitted_and_not_released_since_holds_money_and_holds_never_pass_the_funds()
    {
        await PublishAsync(T0.AddDays(-1), (H100, "2.50"));
        await OpenAsync(Acme, "20.00");
        var random = new Random(11);
        var deployments = Enumerable.Range(0, 6).Select(_ => NewDeployment()).ToArray();
        var admitted = new Dictionary<DeploymentId, int>();
        for (var step = 0; step < 150; step++)
        {
            var (deployment, gpus) = (deployments[random.Next(deployments.Length)], random.Next(0, 5));
            switch (random.Next(5))
            {
                case 0:
                    await Holds.ReleaseAsync(deployment, Cancellation);
                    admitted.Remove(deployment);
                    break;
                case 1:
                    await Meter.SuspendAsync(deployment, T0, Cancellation);
                    admitted.Remove(deployment);
                    break;
                default:
                    // A refusal leaves what was there, and is not made good by what comes after it.
                    if (await Holds.PlaceAsync(Ask(deployment, gpus), Policy, T0, Cancellation) is Verdict.Admit) admitted[deployment] = gpus;
                    break;
            }

            var standing = await StandingAsync();
            Assert.Equal(
                admitted.OrderBy(one => one.Key.Value), standing.Holds.ToDictionary(hold => hold.Deployment, hold => hold.Gpus).OrderBy(one => one.Key.Value));
            Assert.True(standing.Held(T0) <= standing.Posted, $"{standing.Held(T0)} of {standing.Posted} is held");
            Assert.Equal(standing.Posted - standing.Held(T0), standing.Available(T0));
        }
    }
}
