using System.Diagnostics;
using k8s;
using k8s.Models;
using Tensormesh.Resources;

namespace Tensormesh.Integration.Tests.Operators;

/// <summary>The API server goes away and comes back under running work.</summary>
public sealed class ApiServerRestartTests(OwnClusterFixture product) : OperatorTest(product), IClassFixture<OwnClusterFixture>
{
    /// <summary>How long a restart takes depends on the machine: this operator may go on without its lease for longer.</summary>
    private static readonly Dictionary<string, string> PatientLease = new()
    {
        ["Tensormesh__Lease__Duration"] = "00:03:00",
        ["Tensormesh__Lease__RenewDeadline"] = "00:02:30",
    };

    [Fact]
    public async Task A_restarted_api_server_stops_nothing_loses_nothing_and_finds_the_same_operator_at_work()
    {
        Assert.SkipWhen(Cluster.IsUsersOwn, "a user's own cluster is not stopped");
        await Product.RestartOperatorAsync(PatientLease);
        var team = await OpenTeamAsync("5000.00");
        var (running, pausing) = (await StartAsync(team, "running", replicas: 2), await StartAsync(team, "pausing"));
        var pods = await UidsAsync(team, "running");
        using var process = Process.GetProcessById(Installation.OperatorPid);

        await PatchAsync(team, "pausing", new { spec = new { paused = true } });
        await Cluster.StopApiServerAsync();
        // What runs is charged meanwhile: that needs the ledger alone.
        await UntilSettledAsync(running, times: 3);
        await Cluster.StartApiServerAsync();

        // All that the customer wanted before, and whatever comes after.
        await SeeStoppedAsync(team, "pausing", ConditionReasons.Paused);
        await UntilNoHoldAsync(pausing);
        await StartAsync(team, "new");
        await DeleteAsync(team, "new");
        await UntilGoneAsync(team, "new");
        await PatchAsync(team, "pausing", new { spec = new { paused = false } });
        await UntilRunningAsync(team, "pausing");

        Assert.Equal(pods, await UidsAsync(team, "running"));
        Assert.Equal(2, (await RunsAsync(running)).Count(run => run.Accrues));
        Assert.False(process.HasExited);
        Assert.Contains("\ntensormesh_leader 1\n", await Product.MetricsAsync(), StringComparison.Ordinal);
    }

    private async Task<string> UidsAsync(Team team, string name) =>
        string.Join(' ', (await PodsAsync(team, name)).Select(pod => pod.Uid()).Order(StringComparer.Ordinal));
}
