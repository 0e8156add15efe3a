using System.Diagnostics;
using Tensormesh.TestKit;

namespace Tensormesh.Devices.Tests;

/// <summary>A driver that does not come back, which no thread of ours could be freed from.</summary>
public sealed class HangTests(MockDriverFixture mock)
{
    private static readonly TimeSpan Deadline = TimeSpan.FromSeconds(1);

    // A new worker must start and compile within it, on a machine that is busy with other tests.
    private static readonly TimeSpan FirstDeadline = TimeSpan.FromSeconds(5);

    [Fact]
    public async Task A_device_that_hangs_is_unknown_and_cannot_keep_the_others_from_being_told_of()
    {
        await using var node = Node();
        await node.ProbeAsync();
        node.Break(new MockFault("nvmlDeviceGetTemperature", Device: 3, Hang: true));

        var began = Stopwatch.GetTimestamp();
        var seen = await node.ProbeAsync();
        Assert.InRange(Stopwatch.GetElapsedTime(began), TimeSpan.Zero, Deadline * 3);
        Assert.Equal((DriverState.Unresponsive, "the driver did not answer within 1 s"), (seen.Driver, seen.Message));
        Assert.Equal("HHHUUUUU", Letters(seen));
        Assert.Equal(node.Gpus.Devices.Select(gpu => gpu.Uuid), seen.Devices.Select(device => device.Uuid!.Value.Value));
        Assert.All(seen.Devices.Skip(3), device => Assert.Equal(HealthReason.Unresponsive, device.Health.Reason));

        // From then on it is looked at last.
        Assert.Equal("HHHUHHHH", Letters(await node.ProbeAsync()));
        node.Repair();
        Assert.True((await node.ProbeAsync()).IsWhole);
    }

    [Fact]
    public async Task A_driver_that_hangs_leaves_every_device_unknown()
    {
        await using var node = Node();
        await node.ProbeAsync();
        node.Break(new MockFault("cuInit", Hang: true));
        var seen = await node.ProbeAsync();
        Assert.Equal((DriverState.Unresponsive, "UUUUUUUU"), (seen.Driver, Letters(seen)));
        Assert.False(seen.IsWhole);
        node.Repair();
        Assert.True((await node.ProbeAsync()).IsWhole);
    }

    [Fact]
    public async Task A_caller_that_gives_up_gets_no_stale_answer_later()
    {
        await using var node = Node();
        await node.ProbeAsync();
        node.Break(new MockFault("nvmlDeviceGetTemperature", Device: 3, Hang: true));
        using var impatient = new CancellationTokenSource(TimeSpan.FromMilliseconds(100));
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => node.Probe.ProbeAsync(impatient.Token));
        node.Repair();
        node.Change(0, gpu => gpu with { Temperature = 99 });
        var seen = await node.ProbeAsync();
        Assert.True(seen.IsWhole);
        Assert.Equal(99, seen.Devices[0].TemperatureCelsius);
    }

    [Fact]
    public async Task A_worker_that_dies_is_an_unknown_and_the_next_probe_has_a_new_one()
    {
        await using var node = new MockNode(mock.Driver, with: options => options with { WorkerCommand = ["/bin/false"] });
        var seen = await node.ProbeAsync();
        Assert.Equal(DriverState.Unresponsive, seen.Driver);
        await using var missing = new MockNode(mock.Driver, with: options => options with { WorkerCommand = ["/nowhere/worker"] });
        Assert.StartsWith("/nowhere/worker could not be started", (await missing.ProbeAsync()).Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_hanging_worker_ends_with_the_process_that_started_it()
    {
        var file = Path.Combine(Path.GetTempPath(), $"tensormesh-mock-gpu-{Guid.NewGuid():n}.json");
        var gpus = MockGpus.OfNode("gpu-a", 1);
        gpus.Faults.Add(new MockFault("nvmlInit", Hang: true));
        gpus.Save(file);
        try
        {
            var start = new ProcessStartInfo(
                "dotnet",
                [
                    Repository.Executable("Tensormesh.GpuCheck", "gpu-check"),
                    "device-probe-worker", mock.Driver.CudaLibrary, mock.Driver.NvmlLibrary,
                ])
            {
                RedirectStandardInput = true,
                RedirectStandardOutput = true,
            };
            start.Environment[MockDriver.EnvironmentVariable] = file;
            using var worker = Process.Start(start)!;
            await worker.StandardInput.WriteLineAsync("probe");
            // As the kernel does when the other end of the pipe dies.
            worker.StandardInput.Close();
            using var patience = CancellationTokenSource.CreateLinkedTokenSource(TestContext.Current.CancellationToken);
            patience.CancelAfter(FirstDeadline * 2);
            await worker.WaitForExitAsync(patience.Token);
            Assert.Equal(0, worker.ExitCode);
        }
        finally
        {
            File.Delete(file);
        }
    }

    private MockNode Node() => new(mock.Driver, with: options => options with { Deadline = Deadline, FirstDeadline = FirstDeadline });

    private static string Letters(DeviceInventory seen) => string.Concat(seen.Devices.Select(device => device.Health.Verdict switch
    {
        HealthVerdict.Healthy => 'H',
        HealthVerdict.Unhealthy => 'X',
        HealthVerdict.Unknown => 'U',
    }));
}
