using k8s;
using k8s.Models;
using Tensormesh.Billing;
using Tensormesh.Resources;

namespace Tensormesh.Integration.Tests.Operators;

/// <summary>Work that its owner stops is charged to the second in which its container ended.</summary>
public sealed class StopTests(OperatorFixture product) : OperatorTest(product)
{
    [Fact]
    public async Task Paused_work_is_charged_to_its_end_and_resumed_work_from_its_new_start()
    {
        var team = await OpenTeamAsync("1000.00");
        var deployment = await StartAsync(team, "train");
        var pod = Assert.Single(await PodsAsync(team, "train"));
        await KeepInSightAsync(pod);

        await PatchAsync(team, "train", new { spec = new { paused = true } });
        var finished = await FinishedAtAsync(pod);
        Assert.Equal(finished, (await ClosedRunAsync(pod)).EndedAt);
        await LetGoAsync(pod);
        var paused = await SeeStoppedAsync(team, "train", ConditionReasons.Paused);
        Assert.Equal(("True", ConditionReasons.Paused),
            (Condition(paused, ConditionTypes.Suspended)!.Status, Condition(paused, ConditionTypes.Suspended)!.Reason));
        await UntilNoHoldAsync(deployment);

        await PatchAsync(team, "train", new { spec = new { paused = false } });
        await UntilRunningAsync(team, "train");
        Assert.Equal(2, (await RunsAsync(deployment)).Count);
        Assert.Equal(0, await ScalarAsync<long>($"select count(*) from suspension where account = '{team.Account}'"));
    }

    [Fact]
    public async Task A_deleted_deployment_is_gone_when_its_last_usage_is_recorded_and_its_hold_with_it()
    {
        var team = await OpenTeamAsync("1000.00");
        var deployment = await StartAsync(team, "train", replicas: 2);
        var pods = await PodsAsync(team, "train");
        foreach (var pod in pods) await KeepInSightAsync(pod);
        Assert.Contains(WellKnown.MeteringFinalizer, (await ReadAsync(team, "train")).Metadata.Finalizers);

        await KubectlAsync("-n", team.Namespace, "delete", "gpud/train", "--wait=false");
        foreach (var pod in pods) Assert.Equal(await FinishedAtAsync(pod), (await ClosedRunAsync(pod)).EndedAt);
        foreach (var pod in pods)
        {
            await Eventually.SeeAsync(
                () => Client.CoreV1.ReadNamespacedPodAsync(pod.Name(), team.Namespace, cancellationToken: Ended),
                now => !now.Finalizers().Contains(WellKnown.MeteringFinalizer));
            await LetGoAsync(pod);
        }

        await UntilGoneAsync(team, "train");
        Assert.Equal(-1, (await HoldOfAsync(deployment)).Nanos);
        Assert.Null(await ChildAsync(team, "train"));
        Assert.All(await RunsAsync(deployment), run => Assert.NotNull(run.EndedAt));
    }

    [Fact]
    public async Task Pods_that_ignore_sigterm_are_charged_until_they_really_ended_when_their_owner_paused_them()
    {
        const int grace = 4;
        var team = await OpenTeamAsync("1000.00");
        var deployment = await StartAsync(team, "stubborn", change: Stubborn(grace));
        var pod = Assert.Single(await PodsAsync(team, "stubborn"));
        await KeepInSightAsync(pod);

        await PatchAsync(team, "stubborn", new { spec = new { paused = true } });
        var draining = await Eventually.SeeAsync(
            () => Client.CoreV1.ReadNamespacedPodAsync(pod.Name(), team.Namespace, cancellationToken: Ended), now =>
                now.DeletionTimestamp() is not null);
        // It still holds its GPUs, so it still costs, and its money stays aside.
        Assert.True((await RunAsync(pod)).Accrues);
        Assert.NotEqual(-1, (await HoldOfAsync(deployment)).Nanos);
        var finished = await FinishedAtAsync(pod);
        // Both instants are whole seconds, and a deletion timestamp includes the grace.
        Assert.InRange((finished - new DateTimeOffset(draining.DeletionTimestamp()!.Value)).TotalSeconds, -1, 3);
        var run = await ClosedRunAsync(pod);
        Assert.Equal((finished, (DateTimeOffset?)null), (run.EndedAt!.Value, run.ChargeUntil));
        Assert.Equal(Rating.Due(finished - run.StartedAt, run.PerGpuHour, 1), run.Total);
        await LetGoAsync(pod);
        await UntilNoHoldAsync(deployment);
    }

    [Fact]
    public async Task A_pod_that_was_deleted_by_hand_is_replaced_and_both_are_charged_for_their_own_time()
    {
        var team = await OpenTeamAsync("1000.00");
        var deployment = await StartAsync(team, "train");
        var first = Assert.Single(await PodsAsync(team, "train"));
        await KeepInSightAsync(first);

        await Client.CoreV1.DeleteNamespacedPodAsync(first.Name(), team.Namespace, cancellationToken: Ended);
        Assert.Equal(await FinishedAtAsync(first), (await ClosedRunAsync(first)).EndedAt);
        await LetGoAsync(first);
        await Eventually.SeeAsync(() => RunsAsync(deployment), runs => runs.Count == 2 && runs.Count(run => run.Accrues) == 1);
    }

    [Fact]
    public async Task A_pod_whose_image_never_comes_costs_nothing()
    {
        var team = await OpenTeamAsync("1000.00");
        await CreateAsync(Deployment(team, "pulling", change: each => each.Spec.Template.Metadata = new V1ObjectMeta
        {
            Annotations = new Dictionary<string, string> { [TestKit.HollowFault.Annotation] = TestKit.HollowFault.HangImagePullName },
        }));
        var pending = await SeeAsync(team, "pulling", seen => Condition(seen, ConditionTypes.Ready)?.Reason == ConditionReasons.Starting
            && seen.Status!.Replicas == 1);
        Assert.Equal(0, pending.Status!.Gpus);
        await Eventually.SeeAsync(() => PodsAsync(team, "pulling"), pods => pods.Count == 1 && pods[0].Spec.NodeName is not null);
        Assert.Empty(await RunsAsync(pending));

        await DeleteAsync(team, "pulling");
        await UntilGoneAsync(team, "pulling");
        Assert.Empty(await RunsAsync(pending));
        Assert.Equal(Money.Parse("1000.00"), await PostedAsync(team.Account));
    }
}
