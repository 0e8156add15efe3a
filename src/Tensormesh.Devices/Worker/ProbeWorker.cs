using System.Globalization;
using System.Runtime.InteropServices;
using System.Text.Json;
using System.Threading.Channels;
using Tensormesh.Devices.Interop;

namespace Tensormesh.Devices.Worker;

/// <summary>
/// The process that calls into the driver, so that whoever asked can kill it when the driver hangs. An executable that uses
/// <see cref="CudaDeviceProbe"/> hands its arguments to <see cref="TryRun"/> before anything else.
/// </summary>
public static partial class ProbeWorker
{
    internal const string Verb = "device-probe-worker";

    /// <summary>A request, and after a blank the indexes to look at last, with commas between.</summary>
    internal const string Request = "probe";

    /// <summary>False when the arguments are not a worker's. Returns when the probe that started it is gone, or never.</summary>
    public static bool TryRun(string[] args)
    {
        ArgumentNullException.ThrowIfNull(args);
        if (args is not [Verb, var cuda, var nvml]) return false;

        // Requests are read on a thread of their own, which sees the end of the other process even while the driver hangs.
        var requests = Channel.CreateBounded<string>(1);
        new Thread(() => Answer(requests.Reader, cuda, nvml)) { IsBackground = true }.Start();
        while (Console.In.ReadLine() is { } request) requests.Writer.WriteAsync(request).AsTask().GetAwaiter().GetResult();
        // No orderly exit: that would wait for the driver's own handlers, and the driver may hang.
        ExitNow(0);
        return true;
    }

    private static void Answer(ChannelReader<string> requests, string cudaPath, string nvmlPath)
    {
        using var output = Console.OpenStandardOutput();
        var cuda = new CudaReader(DriverLibrary.Load(DriverLibrary.CudaName, cudaPath));
        var nvml = new NvmlReader(DriverLibrary.Load(DriverLibrary.NvmlName, nvmlPath));
        while (requests.WaitToReadAsync().AsTask().GetAwaiter().GetResult() && requests.TryRead(out var request))
        {
            nvml.Read();
            cuda.Read();
            // A line goes out when it is known what comes next, which is what a reader is left with when that hangs.
            var line = new WorkerLine
            {
                Driver = new DriverReading(nvml.State, cuda.State, nvml.DriverVersion, cuda.Version, nvml.ReadXids()),
            };
            foreach (var index in Order(nvml.State.Devices, request))
            {
                Tell(output, line with { At = index });
                line = new WorkerLine { Device = nvml.ReadDevice(index, cuda) };
            }

            // What NVML cannot tell about is at least named.
            foreach (var device in nvml.State.State == LibraryState.Answers ? [] : cuda.Devices)
            {
                Tell(output, line);
                line = new WorkerLine { Device = new DeviceReading(device, InCuda: true, []) };
            }

            Tell(output, line with { End = true });
        }
    }

    private static IEnumerable<int> Order(int count, string request)
    {
        var last = request.Split([' ', ','], StringSplitOptions.RemoveEmptyEntries).Skip(1)
            .Select(index => int.Parse(index, CultureInfo.InvariantCulture)).ToHashSet();
        return Enumerable.Range(0, count).OrderBy(last.Contains).ThenBy(index => index);
    }

    private static void Tell(Stream output, WorkerLine line)
    {
        var text = JsonSerializer.SerializeToUtf8Bytes(line, Wire.Default.WorkerLine);
        var whole = new byte[text.Length + 1];
        text.CopyTo(whole, 0);
        whole[^1] = (byte)'\n';
        output.Write(whole);
    }

    [LibraryImport("libc", EntryPoint = "_exit")]
    private static partial void ExitNow(int status);
}
