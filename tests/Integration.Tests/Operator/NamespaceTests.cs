using k8s;
using k8s.Models;
using Tensormesh.Billing;

namespace Tensormesh.Integration.Tests.Operators;

/// <summary>A namespace goes with everything in it, in whatever order Kubernetes pleases.</summary>
public sealed class NamespaceTests(OperatorFixture product) : OperatorTest(product)
{
    [Fact]
    public async Task A_namespace_deleted_under_running_pods_is_gone_when_their_usage_is_recorded_and_no_money_stays_aside()
    {
        var team = await OpenTeamAsync("1000.00");
        var deployments = await Task.WhenAll(
            StartAsync(team, "prompt", replicas: 2), StartAsync(team, "stubborn", change: Stubborn(4)), StartAsync(team, "third"));
        var pods = await PodsAsync(team);
        var stubborn = pods.Single(pod => pod.Name().StartsWith("stubborn", StringComparison.Ordinal));
        await KeepInSightAsync(stubborn);

        await Client.CoreV1.DeleteNamespaceAsync(team.Namespace, cancellationToken: Ended);
        var finished = await FinishedAtAsync(stubborn);
        Assert.Equal(finished, (await ClosedRunAsync(stubborn)).EndedAt);
        await LetGoAsync(stubborn);
        await Eventually.SeeAsync(
            async () => (await Client.CoreV1.ListNamespaceAsync(fieldSelector: $"metadata.name={team.Namespace}", cancellationToken: Ended)).Items,
            left => left.Count == 0, left => KubernetesJson.Serialize(left));

        foreach (var deployment in deployments)
        {
            Assert.All(await RunsAsync(deployment), run => Assert.True(run is { EndedAt: not null, ChargeUntil: null }));
            await UntilNoHoldAsync(deployment);
        }

        Assert.Equal(4, await ScalarAsync<long>($"select count(*) from run_interval where account = '{team.Account}'"));
        Assert.Equal(Money.Zero, (await StandingAsync(team.Account)).BurnPerHour);
        // Nothing was tried to be made where nothing can be made any more.
        Assert.DoesNotContain(await OperatorLogAsync(), line => line.Contains(team.Namespace, StringComparison.Ordinal) && line.Contains("refused with 403", StringComparison.Ordinal));
    }
}
