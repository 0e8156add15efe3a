using System.Text;
using Microsoft.Extensions.Time.Testing;
using Prometheus;
using Tensormesh.Agent.Allocating;
using Tensormesh.Agent.Reporting;
using Tensormesh.Agent.Telemetry;
using Tensormesh.Devices;
using Tensormesh.Resources;
using static Agent.Tests.Seen;

namespace Agent.Tests;

public sealed class AgentMetricsTests
{
    private const string Idle = "tensormesh_gpu_idle_allocated_seconds_total";
    private static readonly AllocationReading Trainer = Held(("trainer-0", "uid-0", [Gpu(0)]));

    private readonly CollectorRegistry registry = Metrics.NewCustomRegistry();
    private readonly FakeTimeProvider time = new(Start);
    private readonly AgentMetrics metrics;
    private GpuNodeStatus? known;
    private int second;

    public AgentMetricsTests() => metrics = new AgentMetrics(registry, time);

    [Fact]
    public async Task A_pod_that_holds_an_idle_gpu_is_counted_between_two_looks()
    {
        Look(0, Trainer, utilization: 0);
        Assert.Equal("0", await ShownAsync(Idle, Trained(0)));
        Look(10, Trainer, utilization: 0);
        Look(25, Trainer, utilization: 0);
        Assert.Equal("25", await ShownAsync(Idle, Trained(0)));
    }

    [Fact]
    public async Task What_was_busy_or_not_read_at_either_end_counts_as_nothing()
    {
        Look(0, Trainer, utilization: 0);
        Look(10, Trainer, utilization: 1);
        Look(20, Trainer, utilization: 0);
        Look(30, Trainer, utilization: null);
        Look(40, Trainer, utilization: 0);
        Assert.Equal("0", await ShownAsync(Idle, Trained(0)));
        Look(50, Trainer, utilization: 0);
        Assert.Equal("10", await ShownAsync(Idle, Trained(0)));
    }

    [Fact]
    public async Task A_pod_of_an_old_name_and_one_that_is_not_certain_count_as_nothing()
    {
        Look(0, Trainer, utilization: 0);
        Look(10, Held(("trainer-0", "uid-1", [Gpu(0)])), utilization: 0);
        Look(20, Held(("trainer-0", null, [Gpu(0)])), utilization: 0);
        Look(30, Held(("trainer-0", null, [Gpu(0)])), utilization: 0);
        Assert.Equal("0", await ShownAsync(Idle, Trained(0)));
    }

    [Fact]
    public async Task While_the_kubelet_is_silent_nothing_counts_and_nothing_is_forgotten()
    {
        Look(0, Trainer, utilization: 0);
        Look(10, Trainer, utilization: 0);
        Look(20, new AllocationReading.Unknown("silent"), utilization: 0);
        Look(30, new AllocationReading.Unknown("silent"), utilization: 0);
        Look(40, Trainer, utilization: 0);
        Assert.Equal("10", await ShownAsync(Idle, Trained(0)));
        Look(50, Trainer, utilization: 0);
        Assert.Equal("20", await ShownAsync(Idle, Trained(0)));
    }

    [Fact]
    public async Task Who_let_go_of_a_gpu_is_shown_no_longer()
    {
        Look(0, Held(("trainer-0", "uid-0", [Gpu(0), Gpu(1)])), utilization: 0);
        Look(10, Trainer, utilization: 0);
        Assert.Null(await ShownAsync(Idle, Trained(1)));
        Assert.Null(await ShownAsync("tensormesh_gpu_allocation_info", Trained(1, container: "main")));
        Assert.Equal("1", await ShownAsync("tensormesh_gpu_allocation_info", Trained(0, container: "main")));
        Look(20, Held(), utilization: 0);
        Assert.Empty(await LinesAsync(Idle));
        Assert.Empty(await LinesAsync("tensormesh_gpu_allocation_info"));

        // It starts anew when the GPU is taken again.
        Look(30, Trainer, utilization: 0);
        Assert.Equal("0", await ShownAsync(Idle, Trained(0)));
    }

    [Fact]
    public async Task Two_pods_that_share_a_gpu_are_counted_each()
    {
        var both = Held(("trainer-0", "uid-0", [Gpu(0)]), ("trainer-1", "uid-1", [Gpu(0)]));
        Look(0, both, utilization: 0);
        Look(10, both, utilization: 0);
        Assert.Equal(["10", "10"], (await LinesAsync(Idle)).Select(line => line.Split(' ')[^1]));
    }

    [Fact]
    public async Task A_part_of_a_gpu_is_shown_as_the_gpu_that_it_is_of()
    {
        var devices = Whole;
        devices[2] = devices[2] with { MigEnabled = true, MigInstances = [new MigInstance(0, new DeviceUuid("MIG-1"), "1g.10gb", null, null)] };
        Show(Round(0, devices, allocations: Held(("trainer-0", "uid-0", ["MIG-1"]))));
        Assert.Equal("1", await ShownAsync("tensormesh_gpu_allocated", $"gpu=\"{Gpu(2)}\""));
        Assert.Equal("1", await ShownAsync("tensormesh_gpu_allocation_info", Trained(2, container: "main")));
    }

    [Fact]
    public async Task A_gpu_is_shown_with_the_reason_for_which_it_is_not_healthy_until_it_is()
    {
        const string Unhealthy = "tensormesh_gpu_unhealthy_info";
        Show(Round(0));
        Assert.Empty(await LinesAsync(Unhealthy));
        Show(Round(10, With(1, Ecc)));
        Assert.Equal([$"{Unhealthy}{{gpu=\"{Gpu(1)}\",reason=\"UncorrectedEcc\"}} 1"], await LinesAsync(Unhealthy));
        Show(Round(20, With(1, Lost)));
        Assert.Equal([$"{Unhealthy}{{gpu=\"{Gpu(1)}\",reason=\"Lost\"}} 1"], await LinesAsync(Unhealthy));
        Show(Round(30));
        Assert.Empty(await LinesAsync(Unhealthy));
        Assert.Equal("1", await ShownAsync("tensormesh_gpu_healthy", $"gpu=\"{Gpu(1)}\""));
    }

    [Fact]
    public async Task A_gpu_that_left_is_shown_no_longer()
    {
        Look(0, Held(), utilization: 0);
        Show(new NodeObservation("gpu-a", Heartbeat, Round(90_000).Inventory with { Devices = Whole[1..] }, Held()));
        Show(new NodeObservation("gpu-a", Heartbeat, Round(190_000).Inventory with { Devices = Whole[1..] }, Held()));
        Assert.DoesNotContain(await LinesAsync("tensormesh_gpu_"), line => line.Contains(Gpu(0), StringComparison.Ordinal));
    }

    private static string Trained(int gpu, string? container = null) =>
        $"gpu=\"{Gpu(gpu)}\",namespace=\"team-a\",pod=\"trainer-0\"" + (container is null ? "" : $",container=\"{container}\"");

    private void Look(int at, AllocationReading allocations, int? utilization)
    {
        time.Advance(TimeSpan.FromSeconds(at - second));
        second = at;
        Show(Round(at, [.. Whole.Select(device => device with { GpuUtilizationPercent = utilization })], allocations: allocations));
    }

    private void Show(NodeObservation seen)
    {
        known = NodeReport.Next(known, seen);
        metrics.Show(seen.Inventory, known);
    }

    private async Task<string?> ShownAsync(string name, string labels) =>
        (await LinesAsync(name)).SingleOrDefault(line => line.StartsWith($"{name}{{{labels}}} ", StringComparison.Ordinal))?.Split(' ')[^1];

    private async Task<string[]> LinesAsync(string name)
    {
        using var text = new MemoryStream();
        await registry.CollectAndExportAsTextAsync(text, TestContext.Current.CancellationToken);
        return [.. Encoding.UTF8.GetString(text.ToArray()).Split('\n').Where(line => line.StartsWith(name, StringComparison.Ordinal)).Order(StringComparer.Ordinal)];
    }
}
