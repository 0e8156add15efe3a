using Tensormesh.TestKit;

namespace Tensormesh.Integration.Tests.Operators;

/// <summary>Stories in which operators are killed, paused, doubled, misled about the time or robbed of their rights: one after the other.</summary>
[CollectionDefinition(Name)]
public sealed class FaultSuite : ICollectionFixture<FaultFixture>
{
    public const string Name = "faults";
}

/// <summary>The product on a cluster of its own: most of such a story is waiting, which other stories need not do with it.</summary>
public sealed class FaultFixture : IAsyncLifetime
{
    private readonly ClusterFixture cluster = new() { Options = new DevClusterOptions { RealNode = false } };

    public OperatorFixture Product { get; private set; } = null!;

    public async ValueTask InitializeAsync()
    {
        await cluster.InitializeAsync();
        Product = new OperatorFixture(cluster);
        await Product.InitializeAsync();
    }

    public async ValueTask DisposeAsync()
    {
        if (Product is not null) await Product.DisposeAsync();
        await cluster.DisposeAsync();
    }
}
