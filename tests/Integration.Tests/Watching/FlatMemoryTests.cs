using k8s;
using Microsoft.Extensions.Logging.Abstractions;
using Prometheus;
using Tensormesh.Operator.Telemetry;
using Tensormesh.Operator.Watching;

namespace Tensormesh.Integration.Tests.Watching;

/// <summary>Measures the heap of this process, so nothing else may run in it.</summary>
[CollectionDefinition(Name, DisableParallelization = true)]
public sealed class AloneSuite
{
    public const string Name = "alone";
}

/// <summary>What happens ten thousand times in a month must leave nothing behind.</summary>
[Collection(AloneSuite.Name)]
public sealed class FlatMemoryTests(ClusterFixture fixture) : WatchingTest(fixture)
{
    private const int WarmUp = 1000;
    private const int Reconnects = 10_000;
    /// <summary>100 bytes left behind by each reconnect would be as much.</summary>
    private const long Bound = 1_000_000;

    [Fact]
    public async Task Ten_thousand_reconnects_of_a_watch_leave_the_heap_as_it_was()
    {
        for (var i = 0; i < 20; i++) await CreateAsync($"m{i}");
        var options = new InformerOptions { FirstBackoff = TimeSpan.Zero, LongestBackoff = TimeSpan.Zero };
        Proxy.EndsWatchesAtOnce = true;
        await using var watched = Watched.Start(Proxy.KubeconfigPath, Namespace, options);
        await UntilAsync(() => Proxy.Watches >= WarmUp);
        // A watch that is cut is another path than one that ends: it throws, and is followed by a new list.
        Proxy.CutsWatchesAtOnce = true;
        Proxy.EndsWatchesAtOnce = false;
        await UntilAsync(() => watched.Relists("fault") >= 100);
        var before = Heap();
        var from = Proxy.Watches;

        Proxy.CutsWatchesAtOnce = false;
        Proxy.EndsWatchesAtOnce = true;
        await UntilAsync(() => Proxy.Watches - from >= Reconnects * 9 / 10);
        Proxy.CutsWatchesAtOnce = true;
        Proxy.EndsWatchesAtOnce = false;
        await UntilAsync(() => Proxy.Watches - from >= Reconnects);
        var after = Heap();

        Console.WriteLine($"heap {before:N0} -> {after:N0} bytes over {Proxy.Watches - from:N0} reconnects");
        Assert.True(after - before < Bound, $"{before:N0} bytes before, {after:N0} after {Proxy.Watches - from:N0} reconnects");
        Proxy.Heal();
        await ChangeAsync("m0", "2");
        await UntilAsync(() => watched.Informer.Find($"{Namespace}/m0")!.Data["v"] == "2");
    }

    [Fact]
    public async Task Fifteen_hundred_renewals_of_the_lease_leave_the_heap_as_it_was()
    {
        const int warmUp = 300;
        const int renewals = 1500;
        var requests = new Counting();
        using var client = new Kubernetes(KubernetesClientConfiguration.BuildConfigFromConfigFile(Cluster.KubeconfigPath), requests);
        var options = new LeaseOptions { Namespace = Namespace, RetryPeriod = TimeSpan.FromTicks(1) };
        var lease = new LeaderLease(client, options, new OperatorMetrics(Metrics.NewCustomRegistry()), TimeProvider.System, NullLogger<LeaderLease>.Instance);
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(Ended);
        var running = lease.RunAsync(term => Task.Delay(Timeout.InfiniteTimeSpan, term), stop.Token);
        await UntilAsync(() => requests.Puts >= warmUp);
        var before = Heap();
        var from = requests.Puts;
        await UntilAsync(() => requests.Puts - from >= renewals);
        var after = Heap();
        await stop.CancelAsync();
        // It returns or is cancelled, whichever step of it the end meets.
        await running.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing | ConfigureAwaitOptions.ContinueOnCapturedContext);
        Assert.False(running.IsFaulted);

        Console.WriteLine($"heap {before:N0} -> {after:N0} bytes over {requests.Puts - from:N0} renewals");
        Assert.True(after - before < 250 * renewals, $"{before:N0} bytes before, {after:N0} after {requests.Puts - from:N0} renewals");
    }

    private sealed class Counting : DelegatingHandler
    {
        private int _puts;

        public int Puts => Volatile.Read(ref _puts);

        protected override async Task<HttpResponseMessage> SendAsync(HttpRequestMessage request, CancellationToken cancellationToken)
        {
            var answer = await base.SendAsync(request, cancellationToken);
            if (request.Method == HttpMethod.Put && answer.IsSuccessStatusCode) Interlocked.Increment(ref _puts);
            return answer;
        }
    }

    private static long Heap()
    {
        for (var i = 0; i < 3; i++)
        {
            GC.Collect(GC.MaxGeneration, GCCollectionMode.Forced, blocking: true, compacting: true);
            GC.WaitForPendingFinalizers();
        }

        return GC.GetTotalMemory(forceFullCollection: true);
    }
}
