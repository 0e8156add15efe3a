using Tensormesh.Billing;
using Tensormesh.Resources;
using Tensormesh.TestKit;

namespace Tensormesh.Integration.Tests.Operators;

/// <summary>The leader's way to the API server swallows everything, and tells nobody. The ledger hears both operators all the while.</summary>
public sealed class BlackHoleTests(FaultFixture faults) : FaultTest(faults)
{
    /// <summary>After this long without a renewal a leader may change nothing more.</summary>
    private static readonly TimeSpan RenewDeadline = TimeSpan.FromSeconds(10);

    /// <summary>Another takes over after 15 s at the soonest: a stop that is seen this late is still in time on a slow machine.</summary>
    private static readonly TimeSpan Slack = TimeSpan.FromSeconds(4);

    public override async ValueTask InitializeAsync()
    {
        Assert.SkipWhen(Cluster.IsUsersOwn, "nothing is put before a user's own API server");
        await base.InitializeAsync();
    }

    [Fact]
    public async Task A_leader_in_a_black_hole_stops_by_its_deadline_another_takes_over_and_nothing_is_doubled_when_it_is_heard_again()
    {
        await using var wire = FaultyWire.Start(Cluster.ApiServer);
        try
        {
            await Product.RestartOperatorAsync(Through(wire));
            await using var standby = await Installation.StartAnotherOperatorAsync("standby", Directly);
            try
            {
                await standby.WaitUntilReadyAsync(Ended);
                await TellAsync(wire, standby);
            }
            finally
            {
                await standby.StopAsync();
            }
        }
        finally
        {
            Installation.OperatorExtras.Clear();
            await StartOverAsync();
        }
    }

    private async Task TellAsync(FaultyWire wire, OperatorProcess standby)
    {
        var (rich, poor) = (await OpenTeamAsync("5000.00"), await OpenTeamAsync("30.00"));
        var (kept, ending) = (await StartAsync(rich, "kept"), await StartAsync(rich, "ending"));
        var broke = await StartAsync(poor, "train");
        await UntilSettledAsync(kept, times: 1);
        Assert.Equal((1, 0), (await LeadsAsync(Installation.MetricsUrl), await LeadsAsync(standby.MetricsUrl)));
        // Its balance ends when the leader may not act any more and nobody else may yet.
        var exhausts = Assert.Single(await RunsAsync(broke)).StartedAt + TimeSpan.FromSeconds(30);
        await UntilAsync(exhausts - RenewDeadline - Slack);

        var swallowed = await LedgerNowAsync();
        wire.Swallow();
        await CreateAsync(Deployment(rich, "during"));
        await PatchAsync(rich, "kept", new { spec = new { replicas = 2 } });
        await DeleteAsync(rich, "ending");
        await Eventually.SeeAsync(() => LeadsAsync(Installation.MetricsUrl), leads => leads == 0);
        Assert.InRange(await LedgerNowAsync() - swallowed, TimeSpan.Zero, RenewDeadline + Slack);
        Assert.Equal(0, await LeadsAsync(standby.MetricsUrl));
        Assert.Equal(1, await Eventually.SeeAsync(() => Task.FromResult(Installation.OperatorExitCode), code => code is not null));

        // As its Deployment would start it again, into the same black hole.
        await Installation.KillOperatorAsync();
        await Installation.LaunchOperatorAsync();
        await UntilLeadingAsync(standby.MetricsUrl);
        await SeeStoppedAsync(poor, "train", nameof(RefusalReason.InsufficientBalance));
        await UntilGoneAsync(rich, "ending");
        await SeeExactlyAsync(rich, ("during", 1), ("kept", 2));
        var (epoch, suspended) = (await EpochAsync(), await SuspensionAsync(poor));
        // The stop of an account is one decision, and it was the second leader's.
        Assert.True(suspended.DecidedAt >= epoch.TakenAt, $"suspended at {suspended.DecidedAt:O}, taken over at {epoch.TakenAt:O}");
        Assert.Null(Installation.OperatorExitCode);

        wire.Heal();
        await Installation.WaitForOperatorAsync(Ended);
        await UntilSettledAsync(kept, times: 1);
        await SeeExactlyAsync(rich, ("during", 1), ("kept", 2));
        Assert.Equal((0, 1), (await LeadsAsync(Installation.MetricsUrl), await LeadsAsync(standby.MetricsUrl)));
        Assert.Equal((epoch, suspended), (await EpochAsync(), await SuspensionAsync(poor)));
        Assert.Null(standby.ExitCode);
        Assert.NotNull(Assert.Single(await RunsAsync(ending)).EndedAt);
        Assert.Equal(exhausts, Assert.Single(await RunsAsync(broke)).ChargeUntil);
        Assert.Equal(Money.Zero, await PostedAsync(poor.Account));
        if (suspended.Uncollected > 0) await AssertWrittenOffOnceAsync(poor, Assert.Single(await RunsAsync(broke)));
    }

    private Dictionary<string, string> Through(FaultyWire wire) => new() { ["Tensormesh__Kubeconfig"] = wire.Lead(Installation.OperatorKubeconfig) };

    private Dictionary<string, string> Directly => new() { ["Tensormesh__Kubeconfig"] = Installation.OperatorKubeconfig };

    private static Task<double> LeadsAsync(Uri metrics) => MetricAsync(metrics, "tensormesh_leader");

    private async Task<(long Number, DateTimeOffset TakenAt)> EpochAsync() => (
        await ScalarAsync<long>("select epoch from operator_epoch"), new(await ScalarAsync<DateTime>("select taken_at from operator_epoch")));
}
