using System.Diagnostics;
using Tensormesh.Devices;
using Tensormesh.TestKit;

namespace Tensormesh.Benchmarks;

/// <summary>
/// A full probe of eight devices, as the agent makes it: a request to the worker process, some 180 calls into the mock driver, which
/// answers from memory, and the verdicts. What is measured is our own overhead; a real driver's time comes on top.
/// </summary>
internal static class ProbeBenchmark
{
    private const int Devices = 8;
    private const int WarmUpProbes = 2000;
    private const int Probes = 5000;

    public static async Task RunAsync(Workplace workplace, CancellationToken cancellation)
    {
        var driver = await MockDriver.BuildAsync(line => Workplace.Say($"{line}"), cancellation);
        var file = Path.Combine(Path.GetTempPath(), $"tensormesh-bench-gpu-{Environment.ProcessId}.json");
        MockGpus.OfNode("bench", Devices).Save(file);
        try
        {
            await using var probe = new CudaDeviceProbe(
                new CudaDeviceProbeOptions
                {
                    CudaLibrary = driver.CudaLibrary,
                    NvmlLibrary = driver.NvmlLibrary,
                    WorkerCommand =
                    [
                        "/usr/bin/env", $"{MockDriver.EnvironmentVariable}={file}", "dotnet", Repository.Executable("Tensormesh.GpuCheck", "gpu-check"),
                    ],
                },
                TimeProvider.System);
            await LatenciesAsync(probe, WarmUpProbes, cancellation);
            var latencies = await LatenciesAsync(probe, Probes, cancellation);
            Workplace.Say(
                $"median {Samples.Median(latencies):0.00} ms, p99 {Samples.Quantile(latencies, 0.99):0.00} ms, slowest {latencies.Max():0.00} ms, load {Workplace.LoadAverage()}");
            workplace.Report(
                "p99_ms", Samples.Quantile(latencies, 0.99), "ms", "<=5",
                $"a full probe of {Devices} devices against the mock driver, {Probes} probes one after the other; median {Samples.Median(latencies):0.00} ms");
        }
        finally
        {
            File.Delete(file);
        }
    }

    private static async Task<List<double>> LatenciesAsync(CudaDeviceProbe probe, int count, CancellationToken cancellation)
    {
        var latencies = new List<double>(count);
        for (var i = 0; i < count; i++)
        {
            var asked = Stopwatch.GetTimestamp();
            var seen = await probe.ProbeAsync(cancellation);
            latencies.Add(Stopwatch.GetElapsedTime(asked).TotalMilliseconds);
            if (!seen.IsWhole || seen.Devices.Count != Devices) throw new InvalidOperationException($"the probe saw {seen.Driver}: {seen.Message}");
        }

        return latencies;
    }
}
