using Tensormesh.Billing;
using Tensormesh.Resources;

namespace Tensormesh.Integration.Tests.Operators;

/// <summary>The last card goes while work runs.</summary>
public sealed class CardTests(OperatorFixture product) : OperatorTest(product)
{
    [Fact]
    public async Task Nothing_new_starts_at_once_what_runs_goes_on_for_the_grace_and_a_card_brings_it_back()
    {
        var team = await OpenTeamAsync("1000.00", cardGrace: "4s");
        var deployment = await StartAsync(team, "train");

        Assert.Equal(DetachResult.Detached, await Cards.DetachAsync(team.Account, "pm_card_visa", Ended));
        var removed = (await StandingAsync(team.Account)).Cards.LastDetachedAt!.Value;
        Assert.Contains("has no valid card on file", await RefusalOfAsync(Deployment(team, "new")), StringComparison.Ordinal);
        var warned = await SeeAsync(team, "train", seen => Condition(seen, ConditionTypes.BillingAuthorized)?.Message.StartsWith(
            "No valid card is on file after", StringComparison.Ordinal) == true);
        Assert.Equal("True", Condition(warned, ConditionTypes.Ready)!.Status);
        Assert.True(Assert.Single(await RunsAsync(deployment)).Accrues);

        var stopped = await SeeStoppedAsync(team, "train", "NoValidCard");
        Assert.Equal(("True", "NoValidCard"),
            (Condition(stopped, ConditionTypes.Suspended)!.Status, Condition(stopped, ConditionTypes.Suspended)!.Reason));
        Assert.Equal(removed + TimeSpan.FromSeconds(4), Assert.Single(await RunsAsync(deployment)).ChargeUntil);
        Assert.Equal("NoValidCard", await ScalarAsync<string>($"select reason from suspension where account = '{team.Account}'"));
        await UntilNoHoldAsync(deployment);

        Assert.Equal(AttachResult.Attached, await Cards.AttachAsync(team.Account, "pm_card_mastercard", Ended));
        await UntilRunningAsync(team, "train");
    }

    [Fact]
    public async Task A_card_that_comes_within_the_grace_stops_nothing()
    {
        var team = await OpenTeamAsync("1000.00", cardGrace: "4s");
        var deployment = await StartAsync(team, "train");
        await Cards.DetachAsync(team.Account, "pm_card_visa", Ended);
        await SeeAsync(team, "train", seen =>
            Condition(seen, ConditionTypes.BillingAuthorized)?.Message.StartsWith("No valid card", StringComparison.Ordinal) == true);
        await Cards.AttachAsync(team.Account, "pm_card_amex", Ended);
        await SeeAsync(team, "train", seen =>
            Condition(seen, ConditionTypes.BillingAuthorized)?.Message.StartsWith("The balance lasts", StringComparison.Ordinal) == true);

        var graceIsOver = TimeProvider.System.GetUtcNow() + TimeSpan.FromSeconds(5);
        await Eventually.SeeAsync(() => RunsAsync(deployment), runs => runs.Single().SettledUntil > graceIsOver);
        Assert.True(Assert.Single(await RunsAsync(deployment)).Accrues);
        Assert.Equal(0L, await ScalarAsync<long>($"select count(*) from suspension where account = '{team.Account}'"));
    }
}
