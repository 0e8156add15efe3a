using k8s;
using k8s.Models;
using Tensormesh.Integration.Tests.Operators;
using Tensormesh.Resources;
using Tensormesh.TestKit;

namespace Tensormesh.Integration.Tests.Agents;

/// <summary>What the cluster hears of a node's GPUs, and when.</summary>
public sealed class GpuNodeTests(OperatorFixture product) : AgentTest(product)
{
    [Fact]
    public async Task A_node_is_told_of_once_until_something_changes()
    {
        var node = await AddNodeAsync();
        using var server = await ServerAsync(node);
        var gpus = await MountAsync(node, 8);
        await using var agent = await AgentRun.StartAsync(gpus.Probe, server, Options(node));

        var first = (await UntilAsync(node, _ => true))!;
        Assert.Equal((8, 8, "NVIDIA-H100-80GB-HBM3", "550.54.15"),
            (first.Status!.Gpus, first.Status.HealthyGpus, first.Status.Product, first.Status.DriverVersion));
        Assert.Equal("Node", Assert.Single(first.Metadata.OwnerReferences).Kind);
        await agent.UntilLookedAsync(times: 10);
        Assert.Equal(first.ResourceVersion(), (await FindAsync(node))!.ResourceVersion());
        Assert.Null(agent.Readiness.Problem());

        gpus.Change(3, gpu => gpu with { EccUncorrected = 1 });
        var sick = (await UntilAsync(node, status => status.HealthyGpus == 7))!;
        var device = sick.Status!.Devices![3];
        Assert.Equal((GpuHealth.Unhealthy, "UncorrectedEcc"), (device.Health, device.Reason));
        Assert.InRange((device.Since - device.LastHealthyTime)!.Value, TimeSpan.Zero, TimeSpan.FromSeconds(10));
        await agent.UntilLookedAsync(times: 10);
        Assert.Equal(sick.ResourceVersion(), (await FindAsync(node))!.ResourceVersion());

        gpus.Change(3, gpu => gpu with { EccUncorrected = 0 });
        var well = (await UntilAsync(node, status => status.HealthyGpus == 8))!;
        var outage = Assert.Single(well.Status!.Outages!);
        Assert.Equal((device.Uuid, device.LastHealthyTime, device.Since), (outage.Uuid, outage.LastHealthyTime, outage.From));
        Assert.Equal(well.Status.Devices![3].Since, outage.Until);
    }

    [Fact]
    public async Task Silence_is_told_from_health_by_the_heartbeat()
    {
        var node = await AddNodeAsync();
        using var server = await ServerAsync(node);
        var gpus = await MountAsync(node, 1);
        GpuNode last;
        await using (await AgentRun.StartAsync(gpus.Probe, server, Options(node, TimeSpan.FromSeconds(1))))
        {
            var first = (await UntilAsync(node, _ => true))!;
            last = (await UntilAsync(node, status => status.HeartbeatTime > first.Status!.HeartbeatTime))!;
            Assert.InRange((last.Status!.HeartbeatTime - first.Status!.HeartbeatTime)!.Value, TimeSpan.FromSeconds(1), TimeSpan.FromMinutes(1));
            Assert.Equal(first.Status.Devices![0].Since, last.Status.Devices![0].Since);
        }

        // Another process goes on where this one ended, and owns up to the time in which nobody looked.
        var silentSince = (await FindAsync(node))!.Status!.HeartbeatTime!.Value;
        await Eventually.SeeAsync(() => Task.FromResult(TimeProvider.System.GetUtcNow()), now => now - silentSince > TimeSpan.FromSeconds(3.2));
        await using var another = await AgentRun.StartAsync(gpus.Probe, server, Options(node, TimeSpan.FromSeconds(1)));
        var after = (await UntilAsync(node, status => status.HeartbeatTime > silentSince))!;
        var outage = Assert.Single(after.Status!.Outages!);
        Assert.Equal((GpuHealth.Unknown, "NotObserved", silentSince), (outage.Health, outage.Reason, outage.From));
        Assert.Equal(outage.Until, after.Status.Devices![0].Since);
    }

    [Fact]
    public async Task Kubectl_shows_a_node_in_one_line()
    {
        var node = await AddNodeAsync();
        using var server = await ServerAsync(node);
        var gpus = await MountAsync(node, 8);
        gpus.Change(0, gpu => gpu with { EccUncorrected = 1 });
        await using var agent = await AgentRun.StartAsync(gpus.Probe, server, Options(node));
        await UntilAsync(node, _ => true);

        var lines = (await Kubectl.RunAsync(Cluster.KubeconfigPath, "get", "gpun", node)).Split('\n');
        Assert.Equal(["NAME", "NODE", "GPUS", "MODEL", "DRIVER", "HEALTHY", "FREE", "AGE"], Words(lines[0]));
        // No kubelet says who holds what here, so nobody knows what is free.
        Assert.Equal([node, node, "8", "NVIDIA-H100-80GB-HBM3", "550.54.15", "7"], Words(lines[1])[..6]);
    }

    [Fact]
    public async Task A_node_is_labelled_where_nothing_else_does_it()
    {
        var node = await AddNodeAsync();
        using var server = await ServerAsync(node);
        var gpus = await MountAsync(node, 4);
        var options = Options(node);
        options.LabelNode = true;

        // Without the right the agent goes on without the labels.
        await using (var agent = await AgentRun.StartAsync(gpus.Probe, server, options))
        {
            await UntilAsync(node, _ => true);
            await agent.UntilLookedAsync(times: 3);
            Assert.Null((await Client.CoreV1.ReadNodeAsync(node, cancellationToken: Ended)).GetLabel(WellKnown.GpuProductLabel));
        }

        await AgentRights.GrantLabelsAsync(Cluster, Ended);
        await using (var agent = await AgentRun.StartAsync(gpus.Probe, server, options))
        {
            var labelled = await Eventually.SeeAsync(
                () => Client.CoreV1.ReadNodeAsync(node, cancellationToken: Ended), seen => seen.GetLabel(WellKnown.GpuProductLabel) is not null);
            Assert.Equal(
                ("NVIDIA-H100-80GB-HBM3", "81559", "4", "9", "0"),
                (labelled.GetLabel(WellKnown.GpuProductLabel), labelled.GetLabel(WellKnown.GpuMemoryLabel), labelled.GetLabel(WellKnown.GpuCountLabel),
                    labelled.GetLabel(WellKnown.GpuComputeMajorLabel), labelled.GetLabel(WellKnown.GpuComputeMinorLabel)));
        }

        await Kubectl.RunAsync(Cluster.KubeconfigPath, "label", "node", node, "--overwrite", $"{WellKnown.GpuProductLabel}=NVIDIA-H100-80GB-HBM3-SHARED");
        await using (var agent = await AgentRun.StartAsync(gpus.Probe, server, options))
        {
            await agent.UntilLookedAsync(times: 3);
            Assert.Equal("NVIDIA-H100-80GB-HBM3-SHARED", (await Client.CoreV1.ReadNodeAsync(node, cancellationToken: Ended)).GetLabel(WellKnown.GpuProductLabel));
        }
    }

    private static string[] Words(string line) => line.Split(' ', StringSplitOptions.RemoveEmptyEntries);
}
