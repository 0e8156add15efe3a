using Tensormesh.Billing;

namespace Tensormesh.Simulation.Tests;

/// <summary>
/// Found by a story: what could not be started anew could not be made smaller either. The gate was asked the start rule about less than what was held, its
/// refusal ended the round before the child was scaled, and the next round was the same at once, while the customer went on paying for what was not wanted.
/// </summary>
public sealed class ScaleDownTests(StoriesFixture stories)
{
    private static readonly Dictionary<GpuProduct, Money> NoPrices = [];

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    [Theory]
    [InlineData(true, false)]
    [InlineData(false, true)]
    [InlineData(true, true)]
    public async Task Less_of_what_runs_is_carried_out_when_nothing_could_start_anew(bool priceIsWithdrawn, bool cardIsRemoved)
    {
        await using var database = await stories.CreateAsync(Cancellation);
        using var stage = new Stage(1, database, Flaw.None, Cancellation);
        var (account, product, cards) = (stage.Accounts[0], stage.Products[0], new PaymentMethods(database, new SandboxPaymentProvider(), stage.World.Time));
        await new Accounts(database).DeclareAsync(account, new AccountPolicy("a", null, TimeSpan.FromHours(1), "UTC"), Cancellation);
        await cards.AttachAsync(account, "pm_card_visa", Cancellation);
        await stage.Auditor.OpenAsync(Cancellation);
        await new Ledger(database).PostAsync(Movements.CreditGrant(account, Money.FromUnits(100), "g", "simulation", "a test"), Cancellation);
        await stage.Auditor.AfterAsync(new Effect.Customer(), Cancellation);
        await using var leadership = new Leadership(stage);
        await leadership.ReplaceAsync();
        var leader = leadership.Current;
        await leader.Prices.PublishAsync("book", new Dictionary<GpuProduct, Money> { [product] = Money.FromUnits(2) }, [], stage.World.Now, Cancellation);
        await stage.Auditor.AfterAsync(new Effect.Publish(product, Money.FromUnits(2).Nanos, stage.World.Now), Cancellation);
        var deployment = new ModelDeployment { Name = "train", Uid = stage.World.NewUid(), Account = account, Product = product, Replicas = 3, Gpus = 2 };
        stage.World.Deployments.Add(deployment);
        while (await leader.ChangesAnythingAsync()) { }

        stage.World.AdvanceTo(stage.World.Now.AddSeconds(30));
        if (priceIsWithdrawn) await leader.Prices.PublishAsync("book", NoPrices, [], stage.World.Now, Cancellation);
        if (cardIsRemoved) await cards.DetachAsync(account, "pm_card_visa", Cancellation);
        leader.ForgetPrices();
        deployment.Replicas = 1;
        await leader.RoundAsync(deployment);
        Assert.Equal((1, 2), (deployment.ChildReplicas, stage.Auditor.Last.Holds[deployment.Uid].Gpus));
    }
}
