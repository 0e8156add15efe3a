using Tensormesh.TestKit;

[assembly: AssemblyFixture(typeof(Tensormesh.Devices.Tests.MockDriverFixture))]

namespace Tensormesh.Devices.Tests;

/// <summary>The mock driver's libraries, new and old.</summary>
public sealed class MockDriverFixture : IAsyncLifetime
{
    public MockDriver Driver { get; private set; } = null!;
    public MockDriver OldDriver { get; private set; } = null!;

    public async ValueTask InitializeAsync()
    {
        Driver = await MockDriver.BuildAsync(Console.WriteLine, CancellationToken.None);
        OldDriver = await MockDriver.BuildAsync(Console.WriteLine, CancellationToken.None, old: true);
    }

    public ValueTask DisposeAsync() => ValueTask.CompletedTask;
}

/// <summary>A node of eight mock devices and a probe of it: the product's own code on both sides of the process boundary.</summary>
internal sealed class MockNode : IAsyncDisposable
{
    private static int count;
    private readonly string file = Path.Combine(
        Path.GetTempPath(), $"tensormesh-mock-gpu-{Environment.ProcessId}-{Interlocked.Increment(ref count)}.json");

    public MockNode(MockDriver driver, TimeProvider? time = null, Func<CudaDeviceProbeOptions, CudaDeviceProbeOptions>? with = null)
    {
        Gpus = MockGpus.OfNode("gpu-a", 8);
        Gpus.Save(file);
        var options = new CudaDeviceProbeOptions
        {
            CudaLibrary = driver.CudaLibrary,
            NvmlLibrary = driver.NvmlLibrary,
            // Stories of a fault and its end need not wait.
            FaultyWorkerLifetime = TimeSpan.Zero,
            // Each test has its own file, so it is handed to the worker alone.
            WorkerCommand =
            [
                "/usr/bin/env", $"{MockDriver.EnvironmentVariable}={file}", "dotnet", Repository.Executable("Tensormesh.GpuCheck", "gpu-check"),
            ],
        };
        Probe = new CudaDeviceProbe(with?.Invoke(options) ?? options, time ?? TimeProvider.System);
    }

    public MockGpus Gpus { get; }
    public CudaDeviceProbe Probe { get; }

    public Task<DeviceInventory> ProbeAsync() => Probe.ProbeAsync(TestContext.Current.CancellationToken);

    /// <summary>What happens to the node from now on.</summary>
    public void Change(Action<MockGpus> change)
    {
        change(Gpus);
        Gpus.Save(file);
    }

    public void Change(int device, Func<MockGpu, MockGpu> change) => Change(gpus => gpus.Devices[device] = change(gpus.Devices[device]));

    public void Break(params MockFault[] faults) => Change(gpus => gpus.Faults.AddRange(faults));

    public void Repair() => Change(gpus => gpus.Faults.Clear());

    public async ValueTask DisposeAsync()
    {
        await Probe.DisposeAsync();
        File.Delete(file);
    }
}
