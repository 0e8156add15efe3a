using k8s;
using k8s.Autorest;
using k8s.Models;
using Tensormesh.Billing;
using Tensormesh.Resources;

namespace Tensormesh.Integration.Tests.Operators;

/// <summary>Replicas by <c>kubectl scale</c>: the scale subresource, which autoscalers write too.</summary>
public sealed class ScaleTests(OperatorFixture product) : OperatorTest(product)
{
    [Fact]
    public async Task Up_is_denied_when_money_is_short_and_accepted_when_it_has_come_and_down_gives_the_hold_back()
    {
        var team = await OpenTeamAsync("50.00");
        await StartAsync(team, "train");

        var denied = await Assert.ThrowsAsync<HttpOperationException>(() => ScaleAsync(team, 3));
        Assert.Contains("is short by $", denied.Response.Content, StringComparison.Ordinal);
        Assert.Contains($"2 more x {Gpu}", denied.Response.Content, StringComparison.Ordinal);
        Assert.Equal(1, (await ReadAsync(team, "train")).Spec.Replicas);

        await GrantAsync(team.Account, "1000.00");
        await KubectlAsync("-n", team.Namespace, "scale", "gpud/train", "--replicas=3");
        var grown = await UntilRunningAsync(team, "train", replicas: 3);
        Assert.Equal((3, 3, "10800.00"), (grown.Status!.Replicas, grown.Status.Gpus, grown.Status.HourlyRate));
        Assert.Equal("3",
            await KubectlAsync("-n", team.Namespace, "get", "gpud/train", "--subresource=scale", "-o", "jsonpath={.status.replicas}"));
        Assert.Equal(3L, await GpusHeldForAsync(grown));

        await ScaleAsync(team, 1);
        await UntilRunningAsync(team, "train");
        await Eventually.SeeAsync(() => GpusHeldForAsync(grown), gpus => gpus == 1);
        Assert.InRange((await HoldOfAsync(grown)).Nanos, 0, Money.Parse(OperatorFixture.HoldOfOne).Nanos);
        await Eventually.SeeAsync(() => RunsAsync(grown), runs => runs.Count(run => run.EndedAt is null) == 1 && runs.Count == 3);
    }

    [Fact]
    public async Task To_zero_is_ready_with_nothing_held_and_nothing_charged_any_more()
    {
        var team = await OpenTeamAsync("1000.00");
        var deployment = await StartAsync(team, "train", replicas: 2, gpus: 2);

        await ScaleAsync(team, 0);
        var idle = await SeeAsync(team, "train", seen => Condition(seen, ConditionTypes.Ready)?.Reason == ConditionReasons.ScaledToZero);
        Assert.Equal("True", Condition(idle, ConditionTypes.Ready)!.Status);
        Assert.Equal("False", Condition(idle, ConditionTypes.Suspended)!.Status);
        await UntilNoHoldAsync(deployment);
        Assert.Empty(await PodsAsync(team));
        Assert.All(await RunsAsync(deployment), run => Assert.Equal(run.EndedAt, run.SettledUntil));
        Assert.Equal(Money.Zero, (await StandingAsync(team.Account)).BurnPerHour);
        var cost = (await RunsAsync(deployment)).Aggregate(Money.Zero, (sum, run) => sum + run.Total);
        await SeeAsync(team, "train", seen => seen.Status is { Replicas: 0, Gpus: 0 } && seen.Status.CostToDate == cost.ToDecimalString());

        await ScaleAsync(team, 1);
        await UntilRunningAsync(team, "train");
    }

    [Fact]
    public async Task A_horizontal_pod_autoscaler_scales_it_and_is_held_to_the_same_gate()
    {
        var team = await OpenTeamAsync("1000.00");
        var deployment = await StartAsync(team, "train");
        await AutoscaleAsync(team, "train", least: 2);

        // Below its minimum an autoscaler scales without asking for metrics, which this cluster serves none of.
        await UntilRunningAsync(team, "train", replicas: 2);
        Assert.Equal(2L, await GpusHeldForAsync(deployment));

        var poor = await OpenTeamAsync("45.00");
        await StartAsync(poor, "train");
        await AutoscaleAsync(poor, "train", least: 5);
        var told = await Eventually.SeeAsync(
            () => Client.AutoscalingV1.ReadNamespacedHorizontalPodAutoscalerAsync("train", poor.Namespace, cancellationToken: Ended),
            seen => seen.Metadata.Annotations?.Any(note => note.Value.Contains("is short by", StringComparison.Ordinal)) == true,
            seen => KubernetesJson.Serialize(seen));
        Assert.Equal(1, (await ReadAsync(poor, "train")).Spec.Replicas);
        Assert.NotNull(told);
    }

    [Fact]
    public async Task An_edit_that_asks_for_more_is_denied_like_a_scale_and_one_that_asks_for_less_never_is()
    {
        var team = await OpenTeamAsync("50.00");
        await StartAsync(team, "train");

        var denied = await Assert.ThrowsAsync<HttpOperationException>(() =>
            PatchAsync(team, "train", new { spec = new { gpu = new { count = 4 } } }));
        Assert.Contains("is short by $", denied.Response.Content, StringComparison.Ordinal);
        await PatchAsync(team, "train", new { metadata = new { labels = new { purpose = "test" } } });
        await PatchAsync(team, "train", new { spec = new { replicas = 0 } });
        await SeeAsync(team, "train", seen => Condition(seen, ConditionTypes.Ready)?.Reason == ConditionReasons.ScaledToZero);
    }

    private Task<V1HorizontalPodAutoscaler> AutoscaleAsync(Team team, string name, int least) => Client.AutoscalingV1.CreateNamespacedHorizontalPodAutoscalerAsync(
        new V1HorizontalPodAutoscaler
        {
            Metadata = new V1ObjectMeta { Name = name },
            Spec = new V1HorizontalPodAutoscalerSpec
            {
                MinReplicas = least,
                MaxReplicas = 9,
                ScaleTargetRef = new V1CrossVersionObjectReference { ApiVersion = WellKnown.ApiVersion, Kind = GpuDeployment.KubeKind, Name = name },
                TargetCPUUtilizationPercentage = 50,
            },
        }, team.Namespace, cancellationToken: Ended);

    private Task<object> ScaleAsync(Team team, int replicas) => Client.CustomObjects.PatchNamespacedCustomObjectScaleAsync(
        new V1Patch(KubernetesJson.Serialize(new { spec = new { replicas } }), V1Patch.PatchType.MergePatch),
        WellKnown.Group, WellKnown.Version, team.Namespace, GpuDeployment.PluralName, "train", cancellationToken: Ended);

    private Task<long> GpusHeldForAsync(GpuDeployment deployment)
        => ScalarAsync<long>($"select coalesce(sum(gpus), 0)::bigint from credit_hold where deployment = '{deployment.Metadata.Uid}'");
}
