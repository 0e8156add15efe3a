using Tensormesh.Billing;

namespace Tensormesh.Simulation.Tests;

/// <summary>What people do to GpuDeployments and to the prices of GPUs.</summary>
internal sealed class DeploymentActs(Stage stage, Leadership leadership, TokenPrice tokenPrice)
{
    private readonly World world = stage.World;
    private readonly Dictionary<GpuProduct, Money> prices = [];
    private int names;

    public IEnumerable<Act> All =>
    [
        new(10, "create", CreateAsync), new(8, "scale", () => ChangeAsync(Scale)), new(4, "pause", () => ChangeAsync(each => each.Paused = !each.Paused)),
        new(3, "delete", () => ChangeAsync(world.DeleteObject)), new(2, "relabel", () => ChangeAsync(each => each.Account = stage.Pick(stage.Accounts))),
        new(6, "price", PriceAsync),
    ];

    public Task CreateAsync()
    {
        var deployment = new ModelDeployment
        {
            Name = $"d{++names}",
            Uid = world.NewUid(),
            Account = stage.Pick(stage.Accounts),
            Product = stage.Pick(stage.Products),
            Replicas = stage.Chance.Next(8) switch { 0 => 0, < 4 => 1, < 7 => 2, _ => 3 },
            Gpus = stage.Chance.Next(1, 4),
            MaxTotalCost = stage.OneIn(4) ? RandomBudget() : null,
        };
        world.Deployments.Add(deployment);
        stage.Tell($"  {deployment.Name} for {deployment.Account}: {deployment.Describe()}");
        return Task.CompletedTask;
    }

    public Task PublishFirstAsync(GpuProduct product) => PublishAsync(product, RandomPrice(), world.Now);

    public void Scale(ModelDeployment deployment)
    {
        if (stage.OneIn(3)) deployment.Gpus = stage.Chance.Next(1, 4);
        else deployment.Replicas = stage.Chance.Next(0, 5);
        if (stage.OneIn(6)) deployment.MaxTotalCost = stage.OneIn(2) ? null : RandomBudget();
    }

    public void Change(ModelDeployment deployment, Action<ModelDeployment> change)
    {
        deployment.Version++;
        change(deployment);
        stage.Tell($"  {deployment.Name}: {deployment.Describe()}");
        world.Control();
    }

    private Task ChangeAsync(Action<ModelDeployment> change)
    {
        if (world.Kept is { Count: > 0 } kept) Change(stage.Pick(kept), change);
        return Task.CompletedTask;
    }

    private Task PriceAsync()
    {
        // Now and then a change that was asked for a moment ago, or the withdrawal of a product.
        var at = stage.OneIn(3) ? world.Now.AddSeconds(-stage.Chance.Next(1, 50)) : world.Now;
        return PublishAsync(stage.Pick(stage.Products), stage.OneIn(6) ? null : RandomPrice(), at);
    }

    private async Task PublishAsync(GpuProduct product, Money? price, DateTimeOffset at)
    {
        if (price is { } named) prices[product] = named;
        else prices.Remove(product);
        var written = await leadership.Current.Prices.PublishAsync($"book-{stage.Seed}", prices, [tokenPrice], at, stage.Cancellation);
        stage.Tell($"  {product} costs {price?.ToDecimalString() ?? "nothing that is said"} from {at:HH:mm:ss.ffffff}");
        leadership.Current.ForgetPrices();
        await stage.Auditor.AfterAsync(written.Count > 0 ? new Effect.Publish(product, price?.Nanos, at) : new Effect.Nothing("prices are as they were"), stage.Cancellation);
    }

    private Money RandomPrice() => new(stage.Chance.NextInt64(1, (stage.OneIn(3) ? 20 : 5) * Money.NanosPerUnit));

    private Money RandomBudget() => new(stage.Chance.NextInt64(1, 4 * Money.NanosPerUnit));
}
