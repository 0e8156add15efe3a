using k8s;
using k8s.Models;
using Tensormesh.Billing;
using Tensormesh.Resources;

namespace Tensormesh.Integration.Tests.Operators;

/// <summary>A balance ends at one exact instant, and everything that it paid for ends with it.</summary>
public sealed class ExhaustionTests(OperatorFixture product) : OperatorTest(product)
{
    [Fact]
    public async Task Two_deployments_run_out_together_draining_is_free_and_a_top_up_starts_both_again()
    {
        var team = await OpenTeamAsync("60.50");
        // Kubelets report whole seconds: a pod that ended within the second of the suspension would get the rest of that second back.
        var (one, two) = (await StartAsync(team, "one", change: Stubborn(graceSeconds: 4)),
            await StartAsync(team, "two", gpus: 2, change: Stubborn(graceSeconds: 2)));
        var stubborn = Assert.Single(await PodsAsync(team, "one"));
        await KeepInSightAsync(stubborn);
        var known = (await StandingAsync(team.Account)).ExhaustsAt!.Value;

        var stopped = await SeeAsync(team, "one", seen => Condition(seen, ConditionTypes.Suspended)?.Status == "True");
        Assert.Equal("InsufficientBalance", Condition(stopped, ConditionTypes.Suspended)!.Reason);
        await SeeStoppedAsync(team, "two", "InsufficientBalance");

        // Both ended at one instant, which was known beforehand, and nothing was left of the balance.
        var at = await ScalarAsync<DateTime>(
            $"select at from suspension where account = '{team.Account}' and reason = 'InsufficientBalance'");
        var runs = (IReadOnlyList<RunRow>)[.. await RunsAsync(one), .. await RunsAsync(two)];
        Assert.Equal(2, runs.Count);
        Assert.All(runs, run => Assert.Equal(new DateTimeOffset(at), run.ChargeUntil));
        Assert.InRange((known - at).Duration(), TimeSpan.Zero, TimeSpan.FromMicroseconds(2));
        Assert.InRange((await PostedAsync(team.Account)).Nanos, 0, 3 * 1000 + 2);
        var granted = Money.Parse("60.50");
        Assert.Equal(granted - await PostedAsync(team.Account),
            runs.Aggregate(Money.Zero, (sum, run) => sum + Rating.Due(at - run.StartedAt, run.PerGpuHour, run.Gpus)));
        Assert.Equal(0, await HoldsAsync(team.Account));
        Assert.Equal(Money.Zero, await SumAsync("Uncollected", $"customer:{team.Account}"));
        Assert.Equal(0L, await ScalarAsync<long>($"select uncollected_nanos from suspension where account = '{team.Account}'"));

        // The stubborn pod drained for seconds after, at nobody's cost.
        var finished = await FinishedAtAsync(stubborn);
        Assert.True(finished > at, $"{finished:O} is not after {at:O}");
        var drained = await ClosedRunAsync(stubborn);
        Assert.Equal((new DateTimeOffset(at), finished), (drained.SettledUntil, drained.EndedAt!.Value));
        await LetGoAsync(stubborn);
        await SeeStoppedAsync(team, "one", "InsufficientBalance");
        Assert.Contains("Suspended", await KubectlAsync("-n", team.Namespace, "get", "events", "-o", "jsonpath={.items[*].reason}"),
            StringComparison.Ordinal);

        await GrantAsync(team.Account, "500.00");
        await UntilRunningAsync(team, "one");
        await UntilRunningAsync(team, "two");
        Assert.Contains("Resumed", await KubectlAsync("-n", team.Namespace, "get", "events", "-o", "jsonpath={.items[*].reason}"),
            StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_top_up_while_pods_drain_starts_new_ones_and_leaves_the_draining_free()
    {
        var team = await OpenTeamAsync("20.00");
        var deployment = await StartAsync(team, "train", change: Stubborn(graceSeconds: 6));
        var draining = Assert.Single(await PodsAsync(team, "train"));
        await SeeAsync(team, "train", seen => Condition(seen, ConditionTypes.Suspended)?.Status == "True");

        await GrantAsync(team.Account, "500.00");
        await UntilRunningAsync(team, "train");
        var run = await ClosedRunAsync(draining);
        Assert.True(run.EndedAt > run.ChargeUntil);
        Assert.Equal(run.ChargeUntil, run.SettledUntil);
        Assert.InRange(run.Total.Nanos, Money.Parse("19.99").Nanos, Money.Parse("20.00").Nanos);
        Assert.Equal(2, (await RunsAsync(deployment)).Count);
    }
}
