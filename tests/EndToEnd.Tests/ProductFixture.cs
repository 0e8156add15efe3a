using Tensormesh.TestKit;

namespace Tensormesh.EndToEnd.Tests;

/// <summary>The whole product on a dev cluster with its real node: the executables as processes, as `make demo` starts them. One for each class: a story begins with an account that has nothing.</summary>
public sealed class ProductFixture : IAsyncLifetime
{
    private DevCluster? cluster;
    private Installation? product;

    public DevCluster Cluster => cluster ?? throw new InvalidOperationException("the fixture is not started");
    public Installation Product => product ?? throw new InvalidOperationException("the fixture is not started");
    public string EnvironmentFile { get; private set; } = "";

    public async ValueTask InitializeAsync()
    {
        cluster = await DevCluster.StartAsync(new DevClusterOptions { HollowGpuB = true }, Console.WriteLine, CancellationToken.None);
        product = await Installation.StartAsync(cluster, InstallationOptions.Quick, Console.WriteLine, CancellationToken.None);
        EnvironmentFile = Path.Combine(cluster.StateDirectory, "env");
        await File.WriteAllTextAsync(EnvironmentFile, TestKit.EnvironmentFile.Render(cluster, product));
    }

    public async ValueTask DisposeAsync()
    {
        if (product is not null) await product.DisposeAsync();
        if (cluster is not null) await cluster.DisposeAsync();
    }
}
