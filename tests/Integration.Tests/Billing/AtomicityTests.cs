using Tensormesh.Billing;

namespace Tensormesh.Integration.Tests.Billing;

/// <summary>Many changes of money, at once or one after the other: what was answered is what is there.</summary>
public sealed class AtomicityTests(PostgresFixture postgres) : BillingTest(postgres)
{
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
