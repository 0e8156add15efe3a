using System.Text.Json.Nodes;
using k8s;
using k8s.Models;
using Tensormesh.Agent.Allocating;
using Tensormesh.Billing;
using Tensormesh.Integration.Tests.Operators;
using Tensormesh.Resources;
using Tensormesh.TestKit;

namespace Tensormesh.Integration.Tests.Agents;

/// <summary>From silicon to the bill, with every part real but the GPU: what a workload's own CUDA calls see is what is paid for.</summary>
public sealed class GpuChainTests(OperatorFixture product) : OperatorTest(product)
{
    private const string Node = "gpu-a";
    private const string H100 = "NVIDIA-H100-80GB-HBM3";

    [Fact]
    public async Task The_gpus_that_a_workload_sees_are_those_that_the_kubelet_gave_and_those_that_are_charged_until_one_of_them_fails()
    {
        if (!Cluster.HasRealNode)
        {
            Assert.True(Environment.GetEnvironmentVariable("CI") is null or "", "CI must run on a machine where gpu-a is real");
            Assert.Skip("gpu-a is hollow here: a real node needs root on Linux");
        }

        await Product.PublishAsync("chain", (H100, OperatorFixture.PerHour));
        await using var agent = await AgentDaemonSet.StartAsync(
            Cluster, Console.WriteLine, Ended, new Dictionary<string, string> { ["Tensormesh__Agent__HeartbeatInterval"] = "00:00:02" });
        try
        {
            await TellAsync();
        }
        finally
        {
            Cluster.Driver.Change(gpus => gpus.Faults.Clear());
        }
    }

    private async Task TellAsync()
    {
        var team = await OpenTeamAsync("5000.00");
        await CreateAsync(Deployment(team, "train", gpus: 2, change: deployment =>
        {
            deployment.Spec.Gpu.Product = H100;
            deployment.Spec.Template.Spec.NodeSelector = new Dictionary<string, string> { ["kubernetes.io/hostname"] = Node };
            deployment.Spec.Template.Spec.Containers[0].ImagePullPolicy = "IfNotPresent";
            deployment.Spec.Template.Spec.Containers[0].Command = ["sh", "-c", "cuda-uuids && echo all || exit 1; trap 'exit 0' TERM; while :; do sleep 1; done"];
        }));
        var running = await UntilRunningAsync(team, "train");
        var pod = Assert.Single(await PodsAsync(team, "train"));

        // Seen by the workload, given by the kubelet, on the run and on the charge.
        var (_, log, _) = await Eventually.SeeAsync(
            () => Kubectl.TryRunAsync(Cluster.KubeconfigPath, "logs", "-n", team.Namespace, pod.Name()),
            answer => answer.Output.Contains("all", StringComparison.Ordinal), answer => answer.Output + answer.Errors);
        string[] seen = [.. log.Split('\n').Where(line => line.StartsWith("GPU-", StringComparison.Ordinal)).Order(StringComparer.Ordinal)];
        Assert.Equal(2, seen.Length);
        using (var kubelet = new Kubelet(Cluster.PodResourcesSocket, TimeProvider.System))
        {
            Assert.Equal(seen, Assert.Single(await kubelet.ListAsync(Ended), held => held.Pod == new PodKey(team.Namespace, pod.Name())).Gpus);
        }

        await SeeAsync(team, "train", now => Condition(now, ConditionTypes.GpuVerified)?.Status == "True");
        var recorded = await Eventually.SeeAsync(
            () => ScalarAsync<string[]>($"select coalesce((select uuids from run_interval_gpus where pod = '{pod.Uid()}'), '{{}}')"), uuids => uuids.Length > 0);
        Assert.Equal(seen, recorded);
        var charge = await Eventually.SeeAsync(() => LastAsync("GpuUsage", running), last => last?["gpuUuids"] is not null, last => last?.ToJsonString() ?? "none");
        Assert.Equal(seen, charge!["gpuUuids"]!.AsArray().Select(uuid => (string?)uuid));

        // One of the two falls off the bus: the agent sees it, and the operator ends the charge, gives back and moves the work.
        var lost = Cluster.Driver.Gpus.Devices.FindIndex(gpu => gpu.Uuid == seen[1]);
        Cluster.Driver.Change(gpus => gpus.Faults.Add(MockFault.Lost(lost)));
        var ended = await Eventually.SeeAsync(() => RunAsync(pod), run => run.ChargeUntil is not null, run => run.ToString());
        var credit = await Eventually.SeeAsync(() => LastAsync("GpuFaultCredit", running), last => last is not null);
        Assert.Equal((seen[1], "Lost"), ((string?)credit!["gpu"], (string?)credit["reason"]));
        var told = (await Client.CustomObjects.GetClusterCustomObjectAsync<GpuNode>(WellKnown.Group, WellKnown.Version, GpuNode.PluralName, Node, Ended))
            .Status!.Devices!.Single(device => device.Uuid == seen[1]);
        Assert.Equal((GpuHealth.Unhealthy, told.LastHealthyTime), (told.Health, ended.ChargeUntil));
        Assert.Equal(Rating.Due(ended.ChargeUntil!.Value - ended.StartedAt, ended.PerGpuHour, 2), ended.Total);

        // There is no other node: it waits at no cost, and says for what.
        var waiting = await SeeAsync(team, "train", now => Condition(now, ConditionTypes.Ready)?.Message.Contains("has 7 healthy of 8 (1 Lost)", StringComparison.Ordinal) == true);
        Assert.Contains("Waiting for GPUs", Condition(waiting, ConditionTypes.Ready)!.Message, StringComparison.Ordinal);
        Assert.DoesNotContain(await RunsAsync(running), run => run.Accrues);

        Cluster.Driver.Change(gpus => gpus.Faults.Clear());
        await UntilRunningAsync(team, "train");
    }

    private async Task<JsonNode?> LastAsync(string type, GpuDeployment deployment)
    {
        var text = await ScalarAsync<string>(
            $"select coalesce((select details::text from ledger_transaction where type = '{type}' and details ->> 'deployment' = '{deployment.Metadata.Uid}' order by position desc limit 1), 'null')");
        return JsonNode.Parse(text);
    }
}
