using k8s;
using Microsoft.Extensions.Logging.Abstractions;
using Prometheus;
using Tensormesh.Operator.Telemetry;
using Tensormesh.Operator.Watching;

namespace Tensormesh.Integration.Tests.Watching;

public sealed class SlowLeaseTests(ClusterFixture fixture) : WatchingTest(fixture)
{
    private static readonly TimeSpan RenewDeadline = TimeSpan.FromSeconds(3);

    /// <summary>An answer that comes when the lease can no longer be relied on is not the end of the process: as busy as it then is, the next would fare no better.</summary>
    [Fact]
    public async Task A_lease_that_took_longer_to_get_than_it_may_be_relied_on_is_renewed_before_anything_is_done()
    {
        var server = new SlowAtFirst();
        using var client = new Kubernetes(KubernetesClientConfiguration.BuildConfigFromConfigFile(Cluster.KubeconfigPath), server);
        var options = new LeaseOptions { Namespace = Namespace, RenewDeadline = RenewDeadline, RetryPeriod = TimeSpan.FromMilliseconds(100) };
        var lease = new LeaderLease(client, options, new OperatorMetrics(Metrics.NewCustomRegistry()), TimeProvider.System, NullLogger<LeaderLease>.Instance);
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(Ended);
        var writesBefore = 0;
        var running = lease.RunAsync(
            term =>
            {
                lease.ThrowIfLapsed();
                writesBefore = server.Writes;
                return Task.Delay(Timeout.InfiniteTimeSpan, term);
            }, stop.Token);

        await UntilAsync(() => running.IsCompleted || server.Writes >= 5);

        Assert.False(running.IsCompleted);
        Assert.True(writesBefore >= 2, $"it led after {writesBefore} writes");
        await stop.CancelAsync();
        // It returns or is cancelled, whichever step of it the end meets.
        await running.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing | ConfigureAwaitOptions.ContinueOnCapturedContext);
        Assert.False(running.IsFaulted);
    }

    /// <summary>Keeps the answer to the first write for longer than the lease may be relied on.</summary>
    private sealed class SlowAtFirst : DelegatingHandler
    {
        private int writes;

        public int Writes => Volatile.Read(ref writes);

        protected override async Task<HttpResponseMessage> SendAsync(HttpRequestMessage request, CancellationToken cancellationToken)
        {
            var answer = await base.SendAsync(request, cancellationToken);
            if (request.Method != HttpMethod.Get && Interlocked.Increment(ref writes) == 1) await Task.Delay(RenewDeadline * 1.5, cancellationToken);
            return answer;
        }
    }
}
