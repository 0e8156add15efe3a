using System.ComponentModel;
using System.Diagnostics;
using System.Text.Json;

namespace Tensormesh.Devices.Worker;

/// <summary>What a worker told until its end, its death or the deadline.</summary>
internal sealed class Told
{
    public DriverReading? Driver { get; set; }
    public List<DeviceReading> Devices { get; } = [];

    /// <summary>The device that was looked at and not told about.</summary>
    public int? At { get; set; }

    public bool IsWhole { get; set; }

    /// <summary>Why it is not whole.</summary>
    public string Message { get; set; } = "";
}

/// <summary>A worker, seen from the process that started it.</summary>
internal sealed class WorkerProcess : IDisposable
{
    private readonly Process process;
    private readonly TimeProvider time;
    private readonly long startedAt;

    private WorkerProcess(Process process, TimeProvider time)
        => (this.process, this.time, startedAt) = (process, time, time.GetTimestamp());

    public bool HasAnswered { get; private set; }
    public TimeSpan Age => time.GetElapsedTime(startedAt);
    public bool IsAlive => !process.HasExited;

    /// <exception cref="Win32Exception">It could not be started.</exception>
    public static WorkerProcess Start(IReadOnlyList<string> command, string cuda, string nvml, TimeProvider time)
    {
        var start = new ProcessStartInfo(command[0], [.. command.Skip(1), ProbeWorker.Verb, cuda, nvml])
        {
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            UseShellExecute = false,
        };
        // All devices, in the order in which NVML has them, whatever was meant for the process that asks.
        start.Environment.Remove("CUDA_VISIBLE_DEVICES");
        start.Environment["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID";
        // A small process: no heap per core, no threads and sockets for debuggers.
        start.Environment["DOTNET_gcServer"] = "0";
        start.Environment["DOTNET_gcConcurrent"] = "0";
        start.Environment["DOTNET_EnableDiagnostics"] = "0";
        return new WorkerProcess(Process.Start(start)!, time);
    }

    /// <summary>Never later than the deadline. What was told by then is told even when the worker hangs or dies.</summary>
    public async Task<Told> AskAsync(string request, TimeSpan deadline, CancellationToken cancellation)
    {
        var told = new Told();
        var asked = time.GetTimestamp();
        try
        {
            await process.StandardInput.WriteAsync((request + "\n").AsMemory(), cancellation);
            await process.StandardInput.FlushAsync(cancellation);
            while (!told.IsWhole)
            {
                var left = deadline - time.GetElapsedTime(asked);
                if (left <= TimeSpan.Zero) throw new TimeoutException();
                // A read of a pipe cannot be given up; it ends when the worker is killed.
                var reading = process.StandardOutput.ReadLineAsync(CancellationToken.None).AsTask();
                if (await reading.WaitAsync(left, time, cancellation) is not { } line)
                {
                    told.Message = "the process that calls into the driver died";
                    break;
                }

                Take(told, line);
            }

            HasAnswered = told.IsWhole;
        }
        catch (TimeoutException)
        {
            told.Message = string.Create(
                System.Globalization.CultureInfo.InvariantCulture, $"the driver did not answer within {deadline.TotalSeconds:0.###} s");
        }
        catch (Exception fault) when (fault is IOException or JsonException)
        {
            told.Message = "the process that calls into the driver broke off: " + fault.Message;
        }

        return told;
    }

    /// <summary>A process that hangs inside the kernel goes away only when the kernel lets it, so its end is not waited for.</summary>
    public void Kill()
    {
        try
        {
            process.Kill();
        }
        catch (Exception fault) when (fault is InvalidOperationException or Win32Exception)
        {
            // It ended by itself.
        }
    }

    public void Dispose() => process.Dispose();

    private static void Take(Told told, string line)
    {
        // A driver may write to standard output as well.
        if (!line.StartsWith('{')) return;
        var part = JsonSerializer.Deserialize(line, Wire.Default.WorkerLine)!;
        told.IsWhole = part.End;
        told.At = part.At;
        told.Driver = part.Driver ?? told.Driver;
        if (part.Device is { } device) told.Devices.Add(device);
    }
}
