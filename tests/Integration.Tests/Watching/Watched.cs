using System.Collections.Concurrent;
using k8s;
using k8s.Models;
using Microsoft.Extensions.Logging.Abstractions;
using Prometheus;
using Tensormesh.Operator.Telemetry;
using Tensormesh.Operator.Watching;
using Tensormesh.TestKit;

namespace Tensormesh.Integration.Tests.Watching;

/// <summary>A change as an informer tells it; versions of the ConfigMap's one entry, null where there was or is no object.</summary>
internal sealed record Told(string Name, string? Before, string? After, bool SameObject);

/// <summary>An informer of one namespace's ConfigMaps that runs, and what it has told.</summary>
internal sealed class Watched : IAsyncDisposable
{
    /// <summary>What is watched has it: a namespace has ConfigMaps of its own as well.</summary>
    public const string Label = "tests.tensormesh.ai/watched";

    private readonly CancellationTokenSource _stop = new();
    private readonly ConcurrentQueue<Told> _told = new();
    private readonly OperatorMetrics _metrics = new(Metrics.NewCustomRegistry());
    private readonly Kubernetes _client;
    private readonly Task _running;

    private Watched(Kubernetes client, string @namespace, InformerOptions options)
    {
        _client = client;
        Informer = new Informer<V1ConfigMap>(
            new KubernetesStream(client, options, TimeProvider.System), new ResourcePath($"api/v1/namespaces/{@namespace}/configmaps", Label), options, _metrics, TimeProvider.System,
            NullLogger<Informer<V1ConfigMap>>.Instance);
        Informer.Changed += (before, after) => _told.Enqueue(
            new((before ?? after)!.Name(), Version(before), Version(after), before?.Uid() == after?.Uid()));
        _running = Informer.RunAsync(_stop.Token);
    }

    public Informer<V1ConfigMap> Informer { get; }
    public IReadOnlyList<Told> Told => [.. _told];

    /// <summary>Quick, so that a test need not wait for what takes minutes.</summary>
    public static InformerOptions Quick { get; } = new() { FirstBackoff = TimeSpan.FromMilliseconds(20), LongestBackoff = TimeSpan.FromMilliseconds(500) };

    public static Watched Start(string kubeconfig, string @namespace, InformerOptions? options = null) =>
        new(ApiServerConnection.Open(kubeconfig), @namespace, options ?? Quick);

    public double Relists(string cause) => _metrics.InformerRelists.WithLabels(nameof(V1ConfigMap), cause).Value;

    /// <summary>The local copy: names and entries.</summary>
    public string Copy => string.Join(' ', Informer.All.Select(each => $"{each.Name()}={Version(each)}").Order(StringComparer.Ordinal));

    public Task SeeAsync(string copy) => Eventually.SeeAsync(() => Task.FromResult(Copy), seen => seen == copy);

    public async ValueTask DisposeAsync()
    {
        await _stop.CancelAsync();
        await _running;
        _client.Dispose();
        _stop.Dispose();
    }

    private static string? Version(V1ConfigMap? map) => map?.Data["v"];
}

/// <summary>A namespace on the shared cluster and a faulty way to its API server, with words for what the tests of the informer do often.</summary>
public abstract class WatchingTest(ClusterFixture fixture) : IAsyncLifetime
{
    protected static CancellationToken Ended => TestContext.Current.CancellationToken;

    protected DevCluster Cluster => fixture.Cluster;
    protected string Namespace { get; private set; } = "";
    protected FaultyProxy Proxy { get; private set; } = null!;

    public async ValueTask InitializeAsync()
    {
        Assert.SkipWhen(Cluster.IsUsersOwn, "nothing is put before a user's own API server");
        Namespace = await fixture.CreateNamespaceAsync("watch");
        Proxy = await FaultyProxy.StartAsync(Cluster, Ended);
    }

    public async ValueTask DisposeAsync()
    {
        GC.SuppressFinalize(this);
        if (Proxy is not null) await Proxy.DisposeAsync();
        if (Namespace.Length > 0) await Cluster.Client.CoreV1.DeleteNamespaceAsync(Namespace);
    }

    protected Task CreateAsync(string name, string version = "1", string label = Watched.Label) => Cluster.Client.CoreV1.CreateNamespacedConfigMapAsync(
        new V1ConfigMap
        {
            Metadata = new V1ObjectMeta { Name = name, Labels = new Dictionary<string, string> { [label] = "" } },
            Data = new Dictionary<string, string> { ["v"] = version },
        }, Namespace, cancellationToken: Ended);

    protected Task ChangeAsync(string name, string version) => Cluster.Client.CoreV1.PatchNamespacedConfigMapAsync(
        new V1Patch(KubernetesJson.Serialize(new { data = new { v = version } }), V1Patch.PatchType.MergePatch), name, Namespace, cancellationToken: Ended);

    protected Task DeleteAsync(string name) => Cluster.Client.CoreV1.DeleteNamespacedConfigMapAsync(name, Namespace, cancellationToken: Ended);

    protected static Task UntilAsync(Func<bool> condition) => Eventually.SeeAsync(() => Task.FromResult(condition()), seen => seen);
}
