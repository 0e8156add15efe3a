using System.Collections.Concurrent;
using k8s;
using k8s.Models;
using Npgsql;
using Tensormesh.Billing;
using Tensormesh.Resources;
using Tensormesh.TestKit;

namespace Tensormesh.Integration.Tests.Operators;

/// <summary>Only one operator may work on a cluster, and some tests kill it: these classes run one after the other.</summary>
[CollectionDefinition(Name)]
public sealed class OperatorSuite : ICollectionFixture<OperatorFixture>
{
    public const string Name = "operator";
}

/// <summary>The product on the dev cluster with short windows, and silicon and a price for each class that asks for them.</summary>
public class OperatorFixture(ClusterFixture cluster) : IAsyncLifetime
{
    /// <summary>$1 a second for one GPU.</summary>
    public const string PerHour = "3600.00";
    /// <summary>What one GPU at <see cref="PerHour"/> has set aside when it starts.</summary>
    public const string HoldOfOne = "20.00";
    public const int GpusOfANode = 64;

    public static readonly InstallationOptions Options = new()
    {
        HoldWindow = TimeSpan.FromSeconds(20),
        MinimumRun = TimeSpan.FromSeconds(2),
        SettlementInterval = TimeSpan.FromSeconds(2),
        SettlementLag = TimeSpan.FromSeconds(1),
        SuspensionTolerance = TimeSpan.FromSeconds(5),
        AuditPatience = TimeSpan.FromSeconds(3),
        Database = "operator_tests",
    };

    private readonly ConcurrentDictionary<string, Task> products = new(StringComparer.Ordinal);

    /// <summary>How this product is configured: <see cref="Options"/> for most.</summary>
    public InstallationOptions Settings { get; init; } = Options;
    public ClusterFixture Shared => cluster;
    public DevCluster Cluster => cluster.Cluster;
    public Installation Installation { get; private set; } = null!;
    public NpgsqlDataSource Database { get; private set; } = null!;
    public GenericClient Deployments { get; private set; } = null!;
    public GenericClient Accounts { get; private set; } = null!;
    public GenericClient Books { get; private set; } = null!;

    public virtual async ValueTask InitializeAsync()
    {
        Deployments = new(Cluster.Client, WellKnown.Group, WellKnown.Version, GpuDeployment.PluralName, disposeClient: false);
        Accounts = new(Cluster.Client, WellKnown.Group, WellKnown.Version, BillingAccount.PluralName, disposeClient: false);
        Books = new(Cluster.Client, WellKnown.Group, WellKnown.Version, PriceBook.PluralName, disposeClient: false);
        Installation = await Installation.StartAsync(Cluster, Settings, Console.WriteLine, CancellationToken.None);
        Database = BillingServices.OpenDataSource(Installation.ConnectionString);
    }

    public virtual async ValueTask DisposeAsync()
    {
        GC.SuppressFinalize(this);
        if (Installation is null) return;
        await Installation.DisposeAsync();
        await Database.DisposeAsync();
        Deployments.Dispose();
        Accounts.Dispose();
        Books.Dispose();
    }

    /// <summary>A node of GPUs that no other class has, and their price in a book of its own, both seen by the operator.</summary>
    public Task EnsureProductAsync(string product) => products.GetOrAdd(product, AddProductAsync);

    public async Task<string> MetricsAsync()
    {
        using var http = new HttpClient();
        return await http.GetStringAsync(Installation.MetricsUrl, TestContext.Current.CancellationToken);
    }

    private async Task AddProductAsync(string product)
    {
        await AddNodeAsync(product);
        await PublishAsync(BookOf(product), (product, PerHour));
    }

    /// <summary>Adds the node alone, and returns when the operator has seen it.</summary>
    public async Task AddNodeAsync(string product)
    {
        await Cluster.AddHollowNodeAsync(HollowNodeOptions.H100("node-" + product.ToLowerInvariant()) with
        {
            GpuProduct = product,
            GpuCount = GpusOfANode,
            StartLatency = TimeSpan.FromMilliseconds(100),
        });
        await Eventually.SeeAsync(MetricsAsync, metrics =>
            metrics.Contains($"tensormesh_running_gpus{{product=\"{product}\"}}", StringComparison.Ordinal), _ => product);
    }

    /// <summary>Creates or changes a book, and returns when the operator has answered it.</summary>
    public async Task<PriceBook> PublishAsync(string book, params (string Product, string PerHour)[] prices)
    {
        var spec = new PriceBookSpec
        {
            Gpus = [.. prices.Select(price => new GpuPriceEntry { Product = price.Product, PerHour = price.PerHour })],
        };
        var patch = new { apiVersion = WellKnown.ApiVersion, kind = PriceBook.KubeKind, metadata = new { name = book }, spec };
        var written = await Cluster.Client.CustomObjects.PatchClusterCustomObjectAsync(
            new V1Patch(KubernetesJson.Serialize(patch), V1Patch.PatchType.ApplyPatch),
            WellKnown.Group, WellKnown.Version, PriceBook.PluralName, book, fieldManager: "tests", force: true);
        var generation = KubernetesJson.Deserialize<PriceBook>(KubernetesJson.Serialize(written)).Metadata.Generation;
        return await Eventually.SeeAsync(
            () => Books.ReadAsync<PriceBook>(book), seen => seen.Status?.ObservedGeneration >= generation,
            seen => KubernetesJson.Serialize(seen));
    }

    public static string BookOf(string product) => product.ToLowerInvariant();

    /// <summary>Starts the operator anew, with these settings over its usual ones.</summary>
    internal async Task RestartOperatorAsync(IReadOnlyDictionary<string, string> settings)
    {
        Installation.OperatorExtras.Clear();
        foreach (var (name, value) in settings) Installation.OperatorExtras[name] = value;
        await Installation.StopOperatorAsync();
        await Installation.StartOperatorAsync(CancellationToken.None);
    }
}

/// <summary>The product on a cluster of its own, whose API server may be stopped.</summary>
public sealed class OwnClusterFixture : OperatorFixture
{
    public OwnClusterFixture()
        : base(new ClusterFixture { Options = new DevClusterOptions { RealNode = false } })
    {
    }

    public override async ValueTask InitializeAsync()
    {
        await Shared.InitializeAsync();
        await base.InitializeAsync();
    }

    public override async ValueTask DisposeAsync()
    {
        await base.DisposeAsync();
        await Shared.DisposeAsync();
    }
}
