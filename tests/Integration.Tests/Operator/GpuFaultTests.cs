using System.Text.Json.Nodes;
using k8s;
using k8s.Models;
using Tensormesh.Billing;
using Tensormesh.Resources;
using Tensormesh.TestKit;

namespace Tensormesh.Integration.Tests.Operators;

/// <summary>What the operator makes of what agents tell. The nodes are hollow, so the test says what an agent would; that a real one says it is tested with agents.</summary>
public sealed class GpuFaultTests(OperatorFixture product) : OperatorTest(product)
{
    private const int Gpus = 8;

    [Fact]
    public async Task A_gpu_that_fails_is_paid_for_until_it_was_last_seen_healthy_and_its_pod_goes_elsewhere()
    {
        var gpu = Gpu + "-FAILS";
        var (one, two) = (await AddNodeAsync(gpu, "one"), await AddNodeAsync(gpu, "two"));
        var team = await OpenTeamAsync("5000.00");
        var running = await StartOnAsync(team, "train", gpu, gpus: 2);
        var pod = Assert.Single(await PodsAsync(team, "train"));
        var sick = pod.Spec.NodeName == one.Name ? one : two;
        var well = sick == one ? two : one;

        // The evidence: on the run, and on what is charged for it.
        sick.Hold(pod, 2, 5);
        await sick.TellAsync();
        await SeeAsync(team, "train", seen => Condition(seen, ConditionTypes.GpuVerified) is { Status: "True", Reason: ConditionReasons.AllHealthy });
        string[] held = [.. ((string[])[sick.Uuid(2), sick.Uuid(5)]).Order(StringComparer.Ordinal)];
        var uuids = new JsonArray(held[0], held[1]).ToJsonString();
        await Eventually.SeeAsync(() => DetailsAsync("GpuUsage", running), all => all.Any(details => details["gpuUuids"]?.ToJsonString() == uuids));

        await UntilSettledAsync(running, times: 2);
        var failedAt = Micros(TimeProvider.System.GetUtcNow());
        var lastHealthy = failedAt.AddSeconds(-1.5);
        sick.Fail(5, "UncorrectedEcc", lastHealthy, failedAt);
        await sick.TellAsync();

        var ended = await Eventually.SeeAsync(() => RunAsync(pod), run => run.ChargeUntil is not null, run => run.ToString());
        Assert.Equal((lastHealthy, lastHealthy), (ended.ChargeUntil!.Value, ended.SettledUntil));
        Assert.Equal(Rating.Due(lastHealthy - ended.StartedAt, ended.PerGpuHour, 2), ended.Total);
        var credit = Assert.Single(await DetailsAsync("GpuFaultCredit", running));
        Assert.Equal(
            (sick.Uuid(5), "UncorrectedEcc", uuids), ((string?)credit["gpu"], (string?)credit["reason"], credit["gpuUuids"]!.ToJsonString()));

        // Said where the customer looks.
        var told = await KubectlAsync("-n", team.Namespace, "get", "events", "--field-selector", "reason=GpuUnhealthy", "-o", "jsonpath={.items[*].message}");
        Assert.Contains($"GPU {sick.Uuid(5)} of node {sick.Name} failed: UncorrectedEcc", told, StringComparison.Ordinal);
        Assert.Contains("was credited", told, StringComparison.Ordinal);

        // It goes on elsewhere, on the same hold, and the sick node takes nothing new.
        var next = await Eventually.SeeAsync(() => PodsAsync(team, "train"), pods => pods.Count == 1 && pods[0].Uid() != pod.Uid() && pods[0].Status.Phase == "Running", pods =>
            string.Join("\n", pods.Select(each => KubernetesJson.Serialize(each.Status))));
        Assert.Equal(well.Name, next[0].Spec.NodeName);
        Assert.True((await Eventually.SeeAsync(() => RunsAsync(running), runs => runs.Any(run => run.Accrues))).Single(run => run.Accrues).Pod.ToString() == next[0].Uid());
        Assert.Equal("true", await MarkOfAsync(sick));
        Assert.Null(await MarkOfAsync(well));

        // What is repaired is used again.
        sick.Release();
        sick.Repair(5, TimeProvider.System.GetUtcNow());
        await sick.TellAsync();
        await Eventually.SeeAsync(() => MarkOfAsync(sick), mark => mark is null);
        Assert.Single(await DetailsAsync("GpuFaultCredit", running));
    }

    [Fact]
    public async Task A_refusal_counts_what_is_healthy_and_names_what_is_not_and_ends_with_the_repair()
    {
        var gpu = Gpu + "-SICK";
        var node = await AddNodeAsync(gpu, "sick");
        var team = await OpenTeamAsync("50000.00");
        node.Fail(1, "UncorrectedEcc", null, TimeProvider.System.GetUtcNow());
        node.Fail(6, "UncorrectedEcc", null, TimeProvider.System.GetUtcNow());
        await node.TellAsync();

        var expected = $"cannot be given 8 GPUs on one node, product {gpu}: the cluster has ";
        var refused = await Eventually.SeeAsync(() => RefusalOfAsync(Ask(8), dryRun: true), refusal => refusal is not null);
        Assert.Contains(expected, refused, StringComparison.Ordinal);
        Assert.Contains($"6 x {gpu} (81559 MiB, compute 9.0, at most 6 on one node)", refused, StringComparison.Ordinal);
        Assert.Contains($"{node.Name} has 6 healthy of 8 (2 UncorrectedEcc)", refused, StringComparison.Ordinal);
        Assert.Null(await RefusalOfAsync(Ask(6), dryRun: true));

        node.Repair(1, TimeProvider.System.GetUtcNow());
        node.Repair(6, TimeProvider.System.GetUtcNow());
        await node.TellAsync();
        await Eventually.SeeAsync(() => RefusalOfAsync(Ask(8), dryRun: true), refusal => refusal is null, refusal => refusal!);
        await CreateAsync(Ask(8));
        await UntilRunningAsync(team, "train");

        GpuDeployment Ask(int gpus) => Deployment(team, "train", gpus: gpus, change: deployment => deployment.Spec.Gpu.Product = gpu);
    }

    [Fact]
    public async Task A_failure_that_came_and_went_while_no_operator_watched_gives_the_same_bill()
    {
        var gpu = Gpu + "-AWAY";
        var node = await AddNodeAsync(gpu, "away");
        var team = await OpenTeamAsync("5000.00");
        var running = await StartOnAsync(team, "train", gpu, gpus: 1);
        var pod = Assert.Single(await PodsAsync(team, "train"));
        node.Hold(pod, 0);
        await node.TellAsync();
        await SeeAsync(team, "train", seen => Condition(seen, ConditionTypes.GpuVerified)?.Status == "True");
        await UntilSettledAsync(running, times: 1);

        await Installation.StopOperatorAsync();
        var failedAt = Micros(TimeProvider.System.GetUtcNow());
        await Installation.StartOperatorAsync(Ended);

        // Without an operator nobody lets an agent write. What it could not tell meanwhile it tells now.
        node.Fail(0, "Lost", failedAt.AddMilliseconds(-100), failedAt);
        node.Repair(0, failedAt.AddMilliseconds(200));
        await node.TellAsync();

        var ended = await Eventually.SeeAsync(() => RunAsync(pod), run => run.ChargeUntil is not null, run => run.ToString());
        Assert.Equal(failedAt.AddMilliseconds(-100), ended.ChargeUntil);
        await Eventually.SeeAsync(() => PodsAsync(team, "train"), pods => pods.Count == 1 && pods[0].Uid() != pod.Uid() && pods[0].Status.Phase == "Running");
    }

    [Fact]
    public async Task A_pod_that_holds_gpus_and_that_nobody_pays_for_is_told_of_until_it_is_gone()
    {
        var node = await AddNodeAsync(Gpu + "-UNPAID", "unpaid");
        var team = await OpenTeamAsync("10.00");
        var stray = await Client.CoreV1.CreateNamespacedPodAsync(
            new V1Pod
            {
                Metadata = new V1ObjectMeta { Name = "stray" },
                Spec = new V1PodSpec { NodeName = node.Name, AutomountServiceAccountToken = false, Containers = [new V1Container { Name = "main", Image = DevCluster.WorkloadImage }] },
            }, team.Namespace, cancellationToken: Ended);
        node.Hold(stray, 3, 4);
        await node.TellAsync();

        var series = $"tensormesh_unmetered_gpus{{namespace=\"{team.Namespace}\"}} 2";
        await Eventually.SeeAsync(Product.MetricsAsync, metrics => metrics.Contains(series, StringComparison.Ordinal), _ => "not told of");
        var told = await Eventually.SeeAsync(
            () => KubectlAsync("-n", team.Namespace, "get", "events", "--field-selector", "reason=UnmeteredGpus", "-o", "jsonpath={.items[*].message}"), message => message.Length > 0);
        Assert.Contains(node.Uuid(3), told, StringComparison.Ordinal);

        node.Release();
        await node.TellAsync();
        await Eventually.SeeAsync(Product.MetricsAsync, metrics => !metrics.Contains($"tensormesh_unmetered_gpus{{namespace=\"{team.Namespace}\"}}", StringComparison.Ordinal));
    }

    private async Task<GpuDeployment> StartOnAsync(Team team, string name, string gpu, int gpus)
    {
        await CreateAsync(Deployment(team, name, gpus: gpus, change: deployment => deployment.Spec.Gpu.Product = gpu));
        return await UntilRunningAsync(team, name);
    }

    /// <summary>A hollow node with eight healthy GPUs, of which an agent has told.</summary>
    private async Task<ToldNode> AddNodeAsync(string gpu, string suffix)
    {
        await Product.PublishAsync(OperatorFixture.BookOf(gpu), (gpu, OperatorFixture.PerHour));
        var name = $"gpu-{suffix}-{Guid.NewGuid().ToString("N")[..6]}";
        await Cluster.AddHollowNodeAsync(HollowNodeOptions.H100(name) with { GpuProduct = gpu, GpuCount = Gpus, StartLatency = TimeSpan.FromMilliseconds(100) });
        var node = new ToldNode(Client, name, gpu, Gpus);
        await node.TellAsync();
        await Eventually.SeeAsync(Product.MetricsAsync, metrics => metrics.Contains($"tensormesh_running_gpus{{product=\"{gpu}\"}}", StringComparison.Ordinal), _ => gpu);
        return node;
    }

    private async Task<string?> MarkOfAsync(ToldNode node)
        => (await Client.CoreV1.ReadNodeAsync(node.Name, cancellationToken: Ended)).Metadata.Labels.TryGetValue(WellKnown.GpuUnhealthyLabel, out var mark) ? mark : null;

    private async Task<IReadOnlyList<JsonNode>> DetailsAsync(string type, GpuDeployment deployment)
    {
        await using var command = Product.Database.CreateCommand(
            $"select details::text from ledger_transaction where type = '{type}' and details ->> 'deployment' = '{deployment.Metadata.Uid}' order by position");
        await using var reader = await command.ExecuteReaderAsync(Ended);
        var all = new List<JsonNode>();
        while (await reader.ReadAsync(Ended)) all.Add(JsonNode.Parse(reader.GetString(0))!);
        return all;
    }

    private static DateTimeOffset Micros(DateTimeOffset instant) => new(instant.UtcTicks / TimeSpan.TicksPerMicrosecond * TimeSpan.TicksPerMicrosecond, TimeSpan.Zero);
}
