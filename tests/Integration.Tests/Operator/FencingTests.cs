using k8s.Models;
using Tensormesh.Billing;
using Tensormesh.Resources;

namespace Tensormesh.Integration.Tests.Operators;

/// <summary>Two operators at once: one waits; both believe that they lead; one was paused and wakes up.</summary>
public sealed class FencingTests(FaultFixture faults) : FaultTest(faults)
{
    private const string Refused = "Another operator has taken over, and the ledger refused a write of this one";

    /// <summary>Leases in two namespaces: both processes hold one, and neither knows of the other.</summary>
    private IReadOnlyDictionary<string, string> LeaseOfItsOwn => new Dictionary<string, string>
    {
        ["Tensormesh__Namespace"] = "default",
        ["Tensormesh__Kubeconfig"] = Cluster.KubeconfigPath,
    };

    [Fact]
    public async Task Of_two_that_both_believe_they_lead_the_older_one_is_refused_and_ends_and_nothing_is_done_twice()
    {
        var team = await OpenTeamAsync("5000.00");
        var kept = await StartAsync(team, "kept");
        var logged = new FileInfo(Installation.OperatorLog).Length;
        await using (var second = await Installation.StartAnotherOperatorAsync("second-leader", LeaseOfItsOwn))
        {
            try
            {
                // All of it falls into the seconds in which both act.
                await CreateAsync(Deployment(team, "during", replicas: 2));
                await PatchAsync(team, "kept", new { spec = new { replicas = 2 } });
                Assert.Equal(1, await Eventually.SeeAsync(() => Task.FromResult(Installation.OperatorExitCode), code => code is not null));
                Assert.Contains(Refused, await LogAsync(Installation.OperatorLog, logged), StringComparison.Ordinal);
                await UntilLeadingAsync(second.MetricsUrl);
                await UntilSettledAsync(kept, times: 1);
                await SeeExactlyAsync(team, ("during", 2), ("kept", 2));
                Assert.Null(second.ExitCode);

                // And back again: what was refused comes back, and is the newer one now.
                await Installation.KillOperatorAsync();
                await ForgetLeaseAsync(TestKit.Installation.Namespace);
                await Installation.LaunchOperatorAsync();
                await PatchAsync(team, "during", new { spec = new { replicas = 1 } });
                await CreateAsync(Deployment(team, "after"));
                Assert.Equal(1, await Eventually.SeeAsync(() => Task.FromResult(second.ExitCode), code => code is not null));
                Assert.Contains(Refused, await LogAsync(second.Log), StringComparison.Ordinal);
            }
            finally
            {
                await second.StopAsync();
                await ForgetLeaseAsync("default");
                if (Installation.OperatorExitCode is not null) await StartOverAsync();
            }
        }

        await Installation.WaitForOperatorAsync(Ended);
        await UntilSettledAsync(kept, times: 1);
        await SeeExactlyAsync(team, ("after", 1), ("during", 1), ("kept", 2));
        Assert.Null(Installation.OperatorExitCode);
    }

    /// <summary>A minute is longer than its lease. What it had begun before is refused; it ends, and is started again as the standby.</summary>
    [Fact]
    public async Task One_that_was_paused_for_a_minute_and_wakes_after_another_took_over_ends_and_charges_nothing_again()
    {
        var (rich, poor) = (await OpenTeamAsync("5000.00"), await OpenTeamAsync("21.00"));
        var kept = await StartAsync(rich, "kept");
        await using (var standby = await Installation.StartAnotherOperatorAsync("standby", NoChanges))
        {
            try
            {
                await standby.WaitUntilReadyAsync(Ended);
                var broke = await StartAsync(poor, "train");
                await UntilSettledAsync(kept, times: 1);
                // Two at once with one lease: one leads, the other waits.
                Assert.Equal((1, 0), (await MetricAsync(Installation.MetricsUrl, "tensormesh_leader"), await MetricAsync(standby.MetricsUrl, "tensormesh_leader")));

                Installation.PauseOperator();
                var paused = await LedgerNowAsync();
                await UntilLeadingAsync(standby.MetricsUrl);
                // The webhook is paused with its operator, and advice that does not come stops nobody.
                await CreateAsync(Deployment(rich, "during"));
                await UntilRunningAsync(rich, "during");
                await SeeStoppedAsync(poor, "train", "InsufficientBalance");
                await UntilSettledAsync(kept, times: 1);
                await UntilAsync(paused + TimeSpan.FromSeconds(60));
                var (epoch, suspended) = (await EpochAsync(), await SuspensionAsync(poor));

                Installation.ResumeOperator();
                Assert.Equal(1, await Eventually.SeeAsync(() => Task.FromResult(Installation.OperatorExitCode), code => code is not null));
                await UntilSettledAsync(kept, times: 1);
                await SeeExactlyAsync(rich, ("during", 1), ("kept", 1));
                Assert.Null(standby.ExitCode);
                Assert.Equal((epoch, suspended), (await EpochAsync(), await SuspensionAsync(poor)));
                var run = Assert.Single(await RunsAsync(broke));
                Assert.Equal(run.StartedAt + TimeSpan.FromSeconds(21), run.ChargeUntil);
                Assert.Equal(Money.Zero, await PostedAsync(poor.Account));
                if (suspended.Uncollected > 0) await AssertWrittenOffOnceAsync(poor, run);
            }
            finally
            {
                await standby.StopAsync();
                await StartOverAsync();
            }
        }

        await UntilSettledAsync(kept, times: 1);
        await SeeExactlyAsync(rich, ("during", 1), ("kept", 1));
    }

    /// <summary>Nobody took over, so the same process goes on; what ran past the balance meanwhile is a movement of its own.</summary>
    [Fact]
    public async Task One_that_was_paused_through_an_exhaustion_with_nobody_beside_it_goes_on_and_writes_off_what_it_missed_once()
    {
        var (rich, poor) = (await OpenTeamAsync("5000.00"), await OpenTeamAsync("25.00"));
        var kept = await StartAsync(rich, "kept");
        var broke = await StartAsync(poor, "train");
        var exhausts = Assert.Single(await RunsAsync(broke)).StartedAt + TimeSpan.FromSeconds(25);
        var (pid, epoch) = (Installation.OperatorPid, await EpochAsync());
        try
        {
            Installation.PauseOperator();
            await UntilAsync(exhausts + OperatorFixture.Options.SuspensionTolerance + TimeSpan.FromSeconds(1));
            var pod = Assert.Single(await PodsAsync(poor, "train"));
            Assert.Null(pod.Metadata.DeletionTimestamp);
        }
        finally
        {
            Installation.ResumeOperator();
        }

        await SeeStoppedAsync(poor, "train", "InsufficientBalance");
        var run = Assert.Single(await RunsAsync(broke));
        Assert.Equal(exhausts, run.ChargeUntil);
        Assert.Equal((Money.Parse("25.00"), Money.Zero), (run.Total, await PostedAsync(poor.Account)));
        Assert.True((await SuspensionAsync(poor)).Uncollected > 0);
        await AssertWrittenOffOnceAsync(poor, run);
        await UntilSettledAsync(kept, times: 1);
        await SeeExactlyAsync(rich, ("kept", 1));
        Assert.Equal((pid, epoch, null), (Installation.OperatorPid, await EpochAsync(), Installation.OperatorExitCode));
    }

    /// <summary>A settlement that its own account refuses must not end the settlements of all others, nor the loop of them.</summary>
    [Fact]
    public async Task An_account_that_cannot_be_settled_does_not_keep_others_from_theirs_and_is_charged_in_full_later()
    {
        var (sick, well) = (await OpenTeamAsync("5000.00"), await OpenTeamAsync("5000.00"));
        var (of, other) = (await StartAsync(sick, "train"), await StartAsync(well, "train"));
        await UntilSettledAsync(of, times: 1);
        await ExecuteAsync(
            $"""
            create function sick() returns trigger language plpgsql as $$
            begin
              raise exception 'account {sick.Account} is sick' using errcode = 'TM005';
            end $$;
            create trigger sick before update on run_interval for each row when (old.account = '{sick.Account}') execute function sick();
            """);
        try
        {
            await UntilLoggedAsync(Installation.OperatorLog, $"{sick.Account}: could not be settled");
            var until = (await RunsAsync(of)).Single().SettledUntil;
            await UntilSettledAsync(other, times: 2);
            Assert.Equal(until, (await RunsAsync(of)).Single().SettledUntil);
        }
        finally
        {
            await ExecuteAsync("drop trigger sick on run_interval; drop function sick()");
        }

        await UntilSettledAsync(of, times: 1);
    }

    private Task<long> EpochAsync() => ScalarAsync<long>("select epoch from operator_epoch");
}
