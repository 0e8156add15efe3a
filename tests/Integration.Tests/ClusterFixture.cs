using k8s;
using k8s.Models;
using Tensormesh.TestKit;

[assembly: AssemblyFixture(typeof(Tensormesh.Integration.Tests.ClusterFixture))]

namespace Tensormesh.Integration.Tests;

/// <summary>One dev cluster for all integration tests, with gpu-a real where that can be had; each class has its own namespace in it.</summary>
public sealed class ClusterFixture : IAsyncLifetime
{
    private static readonly TimeSpan AccountLimit = TimeSpan.FromSeconds(30);

    public DevCluster Cluster { get; private set; } = null!;

    /// <summary>Set by a class that has a cluster of its own.</summary>
    internal DevClusterOptions Options { get; init; } = new();

    public async ValueTask InitializeAsync() =>
        Cluster = await DevCluster.StartAsync(Options, Console.WriteLine, CancellationToken.None);

    public ValueTask DisposeAsync() => Cluster?.DisposeAsync() ?? ValueTask.CompletedTask;

    /// <summary>Makes a namespace that no other test has, and returns when pods are accepted in it.</summary>
    public async Task<string> CreateNamespaceAsync(string prefix, IDictionary<string, string>? labels = null)
    {
        var name = $"{prefix}-{Guid.NewGuid().ToString("N")[..8]}";
        await Cluster.Client.CoreV1.CreateNamespaceAsync(new V1Namespace { Metadata = new V1ObjectMeta { Name = name, Labels = labels } });
        using var deadline = new CancellationTokenSource(AccountLimit);
        while (!(await Cluster.Client.CoreV1.ListNamespacedServiceAccountAsync(name, cancellationToken: deadline.Token)).Items
            .Any(account => account.Name() == "default"))
            await Task.Delay(TimeSpan.FromMilliseconds(50), deadline.Token);
        return name;
    }
}
