using k8s;
using k8s.Models;
using Tensormesh.Operator.Watching;

namespace Tensormesh.Integration.Tests.Watching;

/// <summary>The API server reads a lease's times with exactly six fractional digits, and refuses the lease otherwise.</summary>
public sealed class LeaseTimeTests(ClusterFixture fixture)
{
    [Fact]
    public async Task A_lease_of_any_instant_is_taken_and_read_back_to_the_microsecond()
    {
        var team = await fixture.CreateNamespaceAsync("lease");
        var client = fixture.Cluster.Client.CoordinationV1;
        var second = new DateTimeOffset(2026, 11, 23, 8, 26, 23, TimeSpan.Zero);
        // None to seven digits, in ticks of 100 ns.
        long[] fractions = [0, 1_000_000, 1_200_000, 1_230_000, 1_234_000, 1_234_500, 1_234_560, 1_234_567, 9_999_999];
        var lease = await client.CreateNamespacedLeaseAsync(
            new V1Lease { Metadata = new V1ObjectMeta { Name = "times" }, Spec = new V1LeaseSpec() }, team, cancellationToken: TestContext.Current.CancellationToken);
        foreach (var ticks in fractions)
        {
            var instant = second.AddTicks(ticks);
            lease.Spec.RenewTime = LeaderLease.MicroTime(instant);
            lease = await client.ReplaceNamespacedLeaseAsync(lease, "times", team, cancellationToken: TestContext.Current.CancellationToken);
            Assert.InRange((new DateTimeOffset(lease.Spec.RenewTime!.Value.ToUniversalTime()) - instant).Duration(), TimeSpan.Zero, TimeSpan.FromMicroseconds(1));
        }

        await fixture.Cluster.Client.CoreV1.DeleteNamespaceAsync(team, cancellationToken: TestContext.Current.CancellationToken);
    }
}
