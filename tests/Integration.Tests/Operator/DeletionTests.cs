using k8s;
using k8s.Models;
using Tensormesh.Billing;
using Tensormesh.Resources;

namespace Tensormesh.Integration.Tests.Operators;

/// <summary>Things go in ways that nobody planned: while the ledger or the operator is away, and without their finalizers.</summary>
public sealed class DeletionTests(OperatorFixture product) : OperatorTest(product)
{
    [Fact]
    public async Task A_deployment_deleted_while_the_ledger_is_away_stops_at_once_and_is_recorded_when_it_is_back()
    {
        var team = await OpenTeamAsync("1000.00");
        var deployment = await StartAsync(team, "train");
        var pod = Assert.Single(await PodsAsync(team, "train"));
        await KeepInSightAsync(pod);
        DateTimeOffset finished;
        await Cluster.Postgres.StopAsync();
        try
        {
            await KubectlAsync("-n", team.Namespace, "delete", "gpud/train", "--wait=false");
            finished = await FinishedAtAsync(pod);
            // It ended, and both wait for the record of it.
            Assert.NotNull((await ReadAsync(team, "train")).Metadata.DeletionTimestamp);
            Assert.Contains(WellKnown.MeteringFinalizer, (await Client.CoreV1.ReadNamespacedPodAsync(pod.Name(), team.Namespace, cancellationToken: Ended)).Finalizers());
        }
        finally
        {
            await Cluster.Postgres.RestartAsync();
            Product.Database.Clear();
        }

        Assert.Equal(finished, (await ClosedRunAsync(pod)).EndedAt);
        await LetGoAsync(pod);
        await UntilGoneAsync(team, "train");
        Assert.Equal(-1, (await HoldOfAsync(deployment)).Nanos);
    }

    [Fact]
    public async Task What_goes_without_its_finalizer_is_charged_to_its_end_all_the_same()
    {
        var team = await OpenTeamAsync("1000.00");
        var deployment = await StartAsync(team, "stripped", change: Stubborn(4));
        var draining = Assert.Single(await PodsAsync(team, "stripped"));
        await KeepInSightAsync(draining);
        var other = await StartAsync(team, "other");
        var forced = Assert.Single(await PodsAsync(team, "other"));

        // The object is gone at once, while its pod still ends.
        await DeleteAsync(team, "stripped");
        await PatchAsync(team, "stripped", new { metadata = new { finalizers = Array.Empty<string>() } });
        await UntilGoneAsync(team, "stripped");
        // A pod that is gone without a word, while the operator watches.
        var before = TimeProvider.System.GetUtcNow();
        await StripAsync(forced);
        var after = TimeProvider.System.GetUtcNow();

        Assert.Equal(await FinishedAtAsync(draining), (await ClosedRunAsync(draining)).EndedAt);
        await LetGoAsync(draining);
        await UntilNoHoldAsync(deployment);
        await Eventually.SeeAsync(() => PodsAsync(team, "stripped"), pods => pods.Count == 0);

        var run = await ClosedRunAsync(forced);
        // Where the operator put its finalizer back in time, the end is the deletion's own time stamp, which Kubernetes writes in whole seconds.
        before = before.AddTicks(-(before.Ticks % TimeSpan.TicksPerSecond));
        Assert.True(run.EndedAt >= before && run.EndedAt <= after + TimeSpan.FromSeconds(10), $"{before:O} {run.EndedAt:O} {after:O}");
        await Eventually.SeeAsync(() => RunsAsync(other), runs => runs.Count == 2 && runs.Count(each => each.Accrues) == 1);
    }

    [Fact]
    public async Task While_the_operator_is_away_others_are_not_hindered_and_what_vanished_is_charged_no_longer_than_it_was_seen()
    {
        var team = await OpenTeamAsync("1000.00");
        var cardless = await OpenTeamAsync("1000.00", card: false);
        var (kept, orphaned) = (await StartAsync(team, "kept"), await StartAsync(team, "orphaned"));
        var (vanished, left) = (Assert.Single(await PodsAsync(team, "kept")), Assert.Single(await PodsAsync(team, "orphaned")));
        // Each was seen for a while, so that there is something to charge.
        await Task.WhenAll(UntilSettledAsync(kept, times: 1), UntilSettledAsync(orphaned, times: 1));

        await Installation.StopOperatorAsync();
        DateTimeOffset gone;
        try
        {
            // Nobody answers the webhook: what is none of ours is not even asked about, and what is ours passes.
            await KubectlAsync("-n", team.Namespace, "create", "configmap", "theirs");
            await KubectlAsync("-n", team.Namespace, "create", "deployment", "theirs", "--image=example.com/theirs");
            await Eventually.SeeAsync(() => PodsAsync(team), pods => pods.Any(pod => pod.Status.Phase == "Running" && pod.Name().StartsWith("theirs", StringComparison.Ordinal)));
            await CreateAsync(Deployment(cardless, "train"));

            gone = TimeProvider.System.GetUtcNow();
            await StripAsync(vanished);
            await DeleteAsync(team, "orphaned");
            await PatchAsync(team, "orphaned", new { metadata = new { finalizers = Array.Empty<string>() } });
            await UntilGoneAsync(team, "orphaned");
            await StripAsync(left);
        }
        finally
        {
            await Installation.StartOperatorAsync(Ended);
        }

        foreach (var pod in (V1Pod[])[vanished, left])
        {
            var run = await ClosedRunAsync(pod);
            Assert.True(run.EndedAt <= gone && run.EndedAt > run.StartedAt, $"ended at {run.EndedAt:O}, gone at {gone:O}");
            Assert.Equal(run.SettledUntil, run.EndedAt);
        }

        await UntilNoHoldAsync(orphaned);
        await Eventually.SeeAsync(() => RunsAsync(kept), runs => runs.Count == 2 && runs.Count(run => run.Accrues) == 1);
        await SeeAsync(cardless, "train", seen => Condition(seen, ConditionTypes.Ready)?.Reason == "NoValidCard");
        Assert.Null(await ChildAsync(cardless, "train"));
    }

    [Fact]
    public async Task Gpus_that_are_free_between_two_pods_of_a_deployment_are_not_another_ones_to_take()
    {
        // Of $800, four GPUs hold $80; thirty-eight more would need $760 of the other $720.
        var team = await OpenTeamAsync("800.00");
        var deployment = await StartAsync(team, "train", replicas: 4);
        var other = Deployment(team, "other", replicas: 38);
        var first = await PodsAsync(team, "train");

        await PatchAsync(team, "train", new { spec = new { template = new { metadata = new { labels = new { step = "2" } } } } });
        await Client.CoreV1.DeleteNamespacedPodAsync(first[0].Name(), team.Namespace, cancellationToken: Ended);
        await Eventually.SeeAsync(
            async () =>
            {
                Assert.Contains("is short by $", await RefusalOfAsync(other, dryRun: true) ?? "accepted", StringComparison.Ordinal);
                Assert.Equal(4L, await ScalarAsync<long>($"select coalesce(sum(gpus), 0)::bigint from credit_hold where deployment = '{deployment.Metadata.Uid}'"));
                return await RunsAsync(deployment);
            },
            runs => runs.Count(run => run.EndedAt is not null) >= 4 && runs.Count(run => run.Accrues) == 4, runs => string.Join("\n", runs));
        await UntilRunningAsync(team, "train", replicas: 4);
        // An end is recorded a moment before its pod is let go.
        await Eventually.SeeAsync(() => PodsAsync(team, "train"), pods => pods.All(pod => first.All(old => old.Uid() != pod.Uid())));
    }

    /// <summary>Takes the finalizer off a pod and deletes it by force: it is gone when this returns.</summary>
    private async Task StripAsync(V1Pod pod)
    {
        await Client.CoreV1.PatchNamespacedPodAsync(
            new V1Patch("""{"metadata":{"finalizers":null}}""", V1Patch.PatchType.MergePatch), pod.Name(), pod.Namespace(), cancellationToken: Ended);
        await Client.CoreV1.DeleteNamespacedPodAsync(pod.Name(), pod.Namespace(), new V1DeleteOptions { GracePeriodSeconds = 0 }, cancellationToken: Ended);
        await Eventually.SeeAsync(
            async () => (await Client.CoreV1.ListNamespacedPodAsync(pod.Namespace(), fieldSelector: $"metadata.name={pod.Name()}", cancellationToken: Ended)).Items,
            left => left.Count == 0);
    }
}
