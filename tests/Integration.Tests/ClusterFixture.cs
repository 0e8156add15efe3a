using Tensormesh.TestKit;

[assembly: AssemblyFixture(typeof(Tensormesh.Integration.Tests.ClusterFixture))]

namespace Tensormesh.Integration.Tests;

/// <summary>One dev cluster for all integration tests; each class has its own namespace in it.</summary>
public sealed class ClusterFixture : IAsyncLifetime
{
    public DevCluster Cluster { get; private set; } = null!;

    public async ValueTask InitializeAsync() =>
        Cluster = await DevCluster.StartAsync(new DevClusterOptions { RealNode = false }, Console.WriteLine, CancellationToken.None);

    public ValueTask DisposeAsync() => Cluster.DisposeAsync();
}
