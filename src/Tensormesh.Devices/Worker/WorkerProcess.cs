using System.ComponentModel;
using System.Diagnostics;
using System.Globalization;
using System.Text.Json;

namespace Tensormesh.Devices.Worker;

/// <summary>What a worker told until its end, its death or the deadline. What it tells after it was closed is not heard.</summary>
internal sealed class Told
{
    private readonly Lock closing = new();
    private bool isClosed;

    public DriverReading? Driver { get; private set; }
    public List<DeviceReading> Devices { get; } = [];

    /// <summary>The device that was looked at and not told about.</summary>
    public int? At { get; private set; }

    public bool IsWhole { get; private set; }

    /// <summary>Why it is not whole.</summary>
    public string Message { get; private set; } = "";

    public static Told Nothing(string message) => new() { Message = message };

    public void Take(WorkerLine line)
    {
        lock (closing)
        {
            if (isClosed) return;
            Driver = line.Driver ?? Driver;
            if (line.Device is { } device) Devices.Add(device);
            (At, IsWhole) = (line.At, line.End);
        }
    }

    public void Close(string message)
    {
        lock (closing)
        {
            if (isClosed || IsWhole) return;
            (isClosed, Message) = (true, message);
        }
    }
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
        try
        {
            // One blocking read after the other on one thread: to await each line costs a switch of threads for each. The thread
            // is free again when the worker is killed.
            await Task.Run(() => Listen(request, told), CancellationToken.None).WaitAsync(deadline, time, cancellation);
        }
        catch (TimeoutException)
        {
            told.Close(string.Create(CultureInfo.InvariantCulture, $"the driver did not answer within {deadline.TotalSeconds:0.###} s"));
        }
        catch (Exception fault) when (fault is IOException or JsonException)
        {
            told.Close("the process that calls into the driver broke off: " + fault.Message);
        }

        HasAnswered = told.IsWhole;
        return told;
    }

    private void Listen(string request, Told told)
    {
        process.StandardInput.Write(request + "\n");
        process.StandardInput.Flush();
        while (!told.IsWhole)
        {
            if (process.StandardOutput.ReadLine() is not { } line)
            {
                told.Close("the process that calls into the driver died");
                return;
            }

            // A driver may write to standard output as well.
            if (line.StartsWith('{')) told.Take(JsonSerializer.Deserialize(line, Wire.Default.WorkerLine)!);
        }
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
}
