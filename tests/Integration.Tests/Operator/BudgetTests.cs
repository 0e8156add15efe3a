using Tensormesh.Billing;
using Tensormesh.Resources;

namespace Tensormesh.Integration.Tests.Operators;

/// <summary>The customer's own limit on what one deployment may cost in all.</summary>
public sealed class BudgetTests(OperatorFixture product) : OperatorTest(product)
{
    [Fact]
    public async Task It_stops_at_the_exact_instant_alone_stays_stopped_and_goes_on_with_a_larger_budget()
    {
        var team = await OpenTeamAsync("5000.00");
        var other = await StartAsync(team, "other");
        var limited = await StartAsync(team, "limited", gpus: 2, change: each =>
        {
            // Kubelets report whole seconds: a pod that ended within the second of the suspension would get the rest of that second back.
            Stubborn(graceSeconds: 2)(each);
            each.Spec.Budget = new GpuBudget { MaxTotalCost = "8.00" };
        });

        var stopped = await SeeStoppedAsync(team, "limited", "BudgetExhausted");
        Assert.Contains("raise", Condition(stopped, ConditionTypes.Ready)!.Message, StringComparison.Ordinal);
        var run = Assert.Single(await RunsAsync(limited));
        // Within the budget, and one more microsecond would not have been.
        Assert.InRange(Money.Parse("8.00").Nanos - run.Total.Nanos, 0, 2 * 1000);
        Assert.Equal(run.ChargeUntil, run.SettledUntil);
        await UntilNoHoldAsync(limited);
        await UntilSettledAsync(other, times: 2);
        Assert.Single(await RunsAsync(limited));
        Assert.True(Assert.Single(await RunsAsync(other)).Accrues);
        await SeeAsync(team, "limited", seen => seen.Status!.CostToDate == run.Total.ToDecimalString());

        await PatchAsync(team, "limited", new { spec = new { budget = new { maxTotalCost = "500" } } });
        await UntilRunningAsync(team, "limited");
        Assert.Equal(2, (await RunsAsync(limited)).Count);
    }

    [Fact]
    public async Task A_budget_lowered_below_what_was_spent_stops_it_and_takes_nothing_back()
    {
        var team = await OpenTeamAsync("5000.00");
        var deployment = await StartAsync(team, "train", gpus: 4, change: Stubborn(graceSeconds: 2));
        await Eventually.SeeAsync(() => RunsAsync(deployment), runs => runs.Single().Total > Money.Parse("0.50"));
        await PatchAsync(team, "train", new { spec = new { budget = new { maxTotalCost = "0.50" } } });
        await SeeStoppedAsync(team, "train", "BudgetExhausted");
        Assert.True(Assert.Single(await RunsAsync(deployment)).Total > Money.Parse("0.50"));
        Assert.Equal(Money.Zero, await SumAsync("GpuUsageCorrection", $"customer:{team.Account}"));
    }
}
