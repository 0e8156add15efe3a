using Microsoft.Extensions.Time.Testing;
using Tensormesh.TestKit;

namespace Tensormesh.Devices.Tests;

/// <summary>A new worker initialises every device, which takes seconds of a real node: it is not started for nothing.</summary>
public sealed class WorkerLifeTests(MockDriverFixture mock) : IDisposable
{
    private readonly string starts = Path.Combine(Path.GetTempPath(), $"tensormesh-worker-starts-{Guid.NewGuid():n}");
    private readonly FakeTimeProvider time = new(new DateTimeOffset(2026, 3, 1, 12, 0, 0, TimeSpan.Zero));

    [Fact]
    public async Task A_healthy_node_keeps_its_worker_for_its_lifetime()
    {
        await using var node = Node();
        for (var second = 0; second < 600; second += 60) await ProbeAfterAsync(node, 60);
        Assert.Equal(1, Starts);
        await ProbeAfterAsync(node, 60);
        Assert.Equal(2, Starts);
    }

    [Theory]
    [InlineData("nvml*")]
    [InlineData("cuInit")]
    [InlineData("nvmlDeviceGetCount")]
    public async Task A_lasting_fault_starts_a_worker_every_20_seconds_and_not_at_each_probe(string call)
    {
        await using var node = Node();
        Assert.True((await node.ProbeAsync()).IsWhole);
        node.Break(new MockFault(call, Status: call == "cuInit" ? 100 : 15, Device: call == "nvml*" ? 3 : null));

        // The worker that lived when it came is replaced: it might only stick to that one.
        Assert.False((await ProbeAfterAsync(node, 10)).IsWhole);
        Assert.False((await ProbeAfterAsync(node, 10)).IsWhole);
        var before = Starts;
        for (var probe = 0; probe < 12; probe++) Assert.False((await ProbeAfterAsync(node, 10)).IsWhole);
        Assert.InRange(Starts - before, 5, 6);

        node.Repair();
        var seen = await ProbeAfterAsync(node, 10);
        for (var late = 10; !seen.IsWhole && late < 30; late += 10) seen = await ProbeAfterAsync(node, 10);
        Assert.True(seen.IsWhole);
        var healthy = Starts;
        for (var probe = 0; probe < 6; probe++) Assert.True((await ProbeAfterAsync(node, 10)).IsWhole);
        Assert.Equal(healthy, Starts);
    }

    [Fact]
    public async Task A_second_fault_is_seen_at_once_and_asked_of_a_new_worker()
    {
        await using var node = Node();
        node.Break(MockFault.Lost(3));
        await node.ProbeAsync();
        await ProbeAfterAsync(node, 1);
        Assert.Equal(1, Starts);

        node.Break(MockFault.Lost(5));
        Assert.Equal(HealthReason.Lost, (await ProbeAfterAsync(node, 1)).Devices[5].Health.Reason);
        Assert.Equal(HealthReason.Lost, (await ProbeAfterAsync(node, 1)).Devices[5].Health.Reason);
        Assert.Equal(2, Starts);
    }

    private int Starts => File.ReadAllLines(starts).Length;

    private Task<DeviceInventory> ProbeAfterAsync(MockNode node, int seconds)
    {
        time.Advance(TimeSpan.FromSeconds(seconds));
        return node.ProbeAsync();
    }

    private MockNode Node() => new(mock.Driver, time, options => options with
    {
        FaultyWorkerLifetime = new CudaDeviceProbeOptions().FaultyWorkerLifetime,
        WorkerCommand = ["/bin/sh", "-c", "echo >>\"$0\"; exec \"$@\"", starts, .. options.WorkerCommand],
    });

    public void Dispose() => File.Delete(starts);
}
