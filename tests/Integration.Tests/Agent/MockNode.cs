using Tensormesh.Devices;
using Tensormesh.TestKit;

namespace Tensormesh.Integration.Tests.Agents;

/// <summary>The GPUs of a node behind the mock driver, and the agent's own probe of them: its worker is the agent's executable.</summary>
internal sealed class MockNode : IAsyncDisposable
{
    private readonly string file = Path.Combine(Path.GetTempPath(), $"tensormesh-mock-gpu-{Guid.NewGuid():N}.json");
    private readonly MockGpus gpus;

    public MockNode(MockDriver driver, string node, int count)
    {
        gpus = MockGpus.OfNode(node, count);
        gpus.Save(file);
        Probe = new CudaDeviceProbe(
            new CudaDeviceProbeOptions
            {
                CudaLibrary = driver.CudaLibrary,
                NvmlLibrary = driver.NvmlLibrary,
                WorkerCommand =
                [
                    "/usr/bin/env", $"{MockDriver.EnvironmentVariable}={file}",
                    Environment.ProcessPath is { } host && host.EndsWith("/dotnet", StringComparison.Ordinal) ? host : "dotnet",
                    Repository.Executable("Tensormesh.Agent", "tensormesh-agent"),
                ],
            },
            TimeProvider.System);
    }

    public CudaDeviceProbe Probe { get; }

    public void Change(int device, Func<MockGpu, MockGpu> change)
    {
        gpus.Devices[device] = change(gpus.Devices[device]);
        gpus.Save(file);
    }

    public async ValueTask DisposeAsync()
    {
        await Probe.DisposeAsync();
        File.Delete(file);
    }
}
