using k8s.Models;
using Tensormesh.Billing;
using Tensormesh.TestKit;

namespace Tensormesh.Integration.Tests.Operators;

/// <summary>The wall clock of the operator's machine is set, an hour forth and an hour back, while it works.</summary>
public sealed class ClockTests(FaultFixture faults) : FaultTest(faults)
{
    [Fact]
    public async Task A_wall_clock_that_steps_by_an_hour_in_either_direction_charges_nothing_more_and_stops_nothing_sooner_or_later()
    {
        var clock = await SteppingClock.CreateAsync(Cluster, Console.WriteLine, Ended);
        var (rich, early, late) = (await OpenTeamAsync("5000.00"), await OpenTeamAsync("25.00"), await OpenTeamAsync("45.00"));
        await Installation.StopOperatorAsync();
        try
        {
            await using var misled = await Installation.StartAnotherOperatorAsync("misled", clock.Environment);
            await UntilLeadingAsync(misled.MetricsUrl);
            var (kept, first, second) = (await StartAsync(rich, "kept"), await StartAsync(early, "train"), await StartAsync(late, "train"));
            var pods = (await PodOfAsync(early), await PodOfAsync(late));

            clock.Set(TimeSpan.FromHours(1));
            await UntilLoggedAsync(misled.Log, "clock is ahead of the ledger's by 01:00:00");
            await SeeExhaustedAsync(early, first, pods.Item1, seconds: 25);
            await UntilSettledAsync(kept, times: 1, poll: NothingIsChargedAheadAsync);

            clock.Set(-TimeSpan.FromHours(1));
            await UntilLoggedAsync(misled.Log, "clock is ahead of the ledger's by -01:00:00");
            await SeeExhaustedAsync(late, second, pods.Item2, seconds: 45);
            await UntilSettledAsync(kept, times: 1, poll: NothingIsChargedAheadAsync);

            // Nor was money kept back: what starts under a wrong clock starts as ever.
            await CreateAsync(Deployment(rich, "new"));
            await SeeExactlyAsync(rich, ("kept", 1), ("new", 1));
            clock.Set(TimeSpan.Zero);
            await UntilSettledAsync(kept, times: 1, poll: NothingIsChargedAheadAsync);
            await misled.StopAsync();
        }
        finally
        {
            await StartOverAsync();
        }
    }

    /// <summary>Stopped for want of money, by the kubelet's start and the price alone: not before that instant, and charged to it.</summary>
    private async Task SeeExhaustedAsync(Team team, Resources.GpuDeployment deployment, V1Pod pod, int seconds)
    {
        await SeeAsync(team, "train", seen => Condition(seen, Resources.ConditionTypes.Suspended)?.Status == "True");
        var ended = await FinishedAtAsync(pod);
        var run = await ClosedRunAsync(pod);
        await LetGoAsync(pod);
        Assert.Equal(run.StartedAt + TimeSpan.FromSeconds(seconds), run.ChargeUntil);
        Assert.True(ended >= run.ChargeUntil, $"ended at {ended:O}, paid until {run.ChargeUntil:O}");
        Assert.Equal((new Money(seconds * Money.NanosPerUnit), Money.Zero), (run.Total, await PostedAsync(team.Account)));
        Assert.Single(await RunsAsync(deployment));
        var (at, decided, _) = await SuspensionAsync(team);
        // Not an hour late. How soon after the instant it came is another test's question.
        Assert.InRange(decided - at, TimeSpan.Zero, TimeSpan.FromMinutes(5));
    }

    /// <summary>The deployment's pod, which stays readable after its end.</summary>
    private async Task<V1Pod> PodOfAsync(Team team)
    {
        var pod = Assert.Single(await PodsAsync(team, "train"));
        await KeepInSightAsync(pod);
        return pod;
    }

    private async Task NothingIsChargedAheadAsync()
        => Assert.Equal(0L, await ScalarAsync<long>("select count(*) from run_interval where settled_until > clock_timestamp()"));
}
