using System.Diagnostics;
using k8s;
using k8s.Models;
using Tensormesh.Integration.Tests.Watching;
using Tensormesh.Resources;
using Tensormesh.TestKit;

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
    public async Task A_restarted_api_server_stops_nothing_loses_nothing_forgets_old_versions_and_finds_the_same_operator_at_work()
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

        // Asked for a version from before, this server accepts the watch and writes an ERROR event of 410 into it.
        await AssertAnOldVersionIsListedAnewAsync(team);

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

    /// <summary>No fault but the server's own: its memory of what was before went with it.</summary>
    private async Task AssertAnOldVersionIsListedAnewAsync(Team team)
    {
        await using var proxy = await FaultyProxy.StartAsync(Cluster, Ended);
        proxy.AsksFrom = "1";
        await using var watched = Watched.Start(proxy.KubeconfigPath, team.Namespace);
        await Eventually.SeeAsync(() => Task.FromResult(watched.Relists("expired")), times => times >= 2);
        Assert.Equal(0, watched.Relists("fault"));

        proxy.Heal();
        await Client.CoreV1.CreateNamespacedConfigMapAsync(
            new V1ConfigMap
            {
                Metadata = new V1ObjectMeta { Name = "a", Labels = new Dictionary<string, string> { [Watched.Label] = "" } },
                Data = new Dictionary<string, string> { ["v"] = "1" },
            }, team.Namespace, cancellationToken: Ended);
        await watched.SeeAsync("a=1");
    }

    private async Task<string> UidsAsync(Team team, string name) =>
        string.Join(' ', (await PodsAsync(team, name)).Select(pod => pod.Uid()).Order(StringComparer.Ordinal));
}
