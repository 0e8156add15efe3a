using System.ComponentModel;
using System.Globalization;
using Tensormesh.Devices.Worker;

namespace Tensormesh.Devices;

public sealed record CudaDeviceProbeOptions
{
    /// <summary>A path, or a name that the loader looks up.</summary>
    public string CudaLibrary { get; set; } = "libcuda.so.1";

    /// <inheritdoc cref="CudaLibrary"/>
    public string NvmlLibrary { get; set; } = "libnvidia-ml.so.1";

    /// <summary>
    /// What is run as the worker, before the arguments that make it one: an executable whose Main calls
    /// <see cref="ProbeWorker.TryRun"/>. Unless said otherwise, that of the worker alone where it was published beside this executable, or this
    /// executable itself.
    /// </summary>
    public IReadOnlyList<string> WorkerCommand { get; init; } = Worker();

    /// <summary>For one probe. A driver that needs longer hangs.</summary>
    public TimeSpan Deadline { get; set; } = TimeSpan.FromSeconds(5);

    /// <summary>For the first probe of a worker, which initialises every device that no other process keeps awake.</summary>
    public TimeSpan FirstDeadline { get; set; } = TimeSpan.FromSeconds(30);

    /// <summary>CUDA never looks again in a process that it answered once, so a worker is replaced now and then.</summary>
    public TimeSpan WorkerLifetime { get; set; } = TimeSpan.FromMinutes(10);

    /// <summary>
    /// The same of a worker that saw a fault from its first probe on. A fault that is gone may stick to it, so this and the time between two
    /// probes is how late a recovery may be seen; each new worker initialises every device.
    /// </summary>
    public TimeSpan FaultyWorkerLifetime { get; set; } = TimeSpan.FromSeconds(20);

    /// <summary>How long a hardware XID error makes a device unhealthy. After that, only what can still be seen counts.</summary>
    public TimeSpan XidMemory { get; set; } = TimeSpan.FromMinutes(5);

    private static string[] Worker() => Path.Combine(AppContext.BaseDirectory, ProbeWorker.Verb) is var beside && File.Exists(beside) ? [beside] : Itself();

    private static string[] Itself() => Path.GetFileNameWithoutExtension(Environment.ProcessPath) is "dotnet"
        ? [Environment.ProcessPath!, Path.GetFullPath(Environment.GetCommandLineArgs()[0])]
        : [Environment.ProcessPath!];
}

/// <summary>
/// NVIDIA devices through the CUDA driver API and NVML. The calls are made in a child process, because a call that hangs in the
/// driver can be ended in no other way; it lives from probe to probe, and is replaced when it hung, when it saw a fault that
/// would stick to it, and when it is old.
/// </summary>
public sealed class CudaDeviceProbe(CudaDeviceProbeOptions options, TimeProvider time) : IDeviceProbe
{
    /// <summary>Killed workers that the kernel has not let go. With so many, another would only be one more.</summary>
    private const int MaxStuckWorkers = 4;

    private static readonly DeviceHealth Unlisted = new(
        HealthVerdict.Unhealthy, HealthReason.Lost, "an earlier probe saw the device, and the driver does not list it any more");

    private readonly SemaphoreSlim one = new(1, 1);
    private readonly DeviceMemory memory = new(options.XidMemory);
    private readonly List<WorkerProcess> killed = [];
    private readonly HashSet<int> slow = [];
    private WorkerProcess? worker;

    /// <summary>What the worker saw to be at fault when it was new; empty when it saw nothing.</summary>
    private string faultFromStart = "";
    private bool disposed;

    public async Task<DeviceInventory> ProbeAsync(CancellationToken cancellation)
    {
        await one.WaitAsync(cancellation);
        try
        {
            ObjectDisposedException.ThrowIf(disposed, this);
            return await ProbeAloneAsync(cancellation);
        }
        finally
        {
            one.Release();
        }
    }

    public async ValueTask DisposeAsync()
    {
        await one.WaitAsync();
        disposed = true;
        Retire();
        killed.ForEach(process => process.Dispose());
        killed.Clear();
        one.Release();
    }

    private async Task<DeviceInventory> ProbeAloneAsync(CancellationToken cancellation)
    {
        if (worker is not null && (!worker.IsAlive || worker.Age >= Lifetime)) Retire();
        var isFresh = worker is null;
        var inventory = await AskWorkerAsync(cancellation);
        // What an old worker's CUDA says is old: only a new one tells whether a device was replaced or CUDA cannot be had. One that is kept said
        // the same when it was new.
        return isFresh || worker is not null || !IsCudaInDoubt(inventory) ? inventory : await AskWorkerAsync(cancellation);
    }

    private TimeSpan Lifetime => faultFromStart.Length == 0 ? options.WorkerLifetime : options.FaultyWorkerLifetime;

    private async Task<DeviceInventory> AskWorkerAsync(CancellationToken cancellation)
    {
        var now = time.GetUtcNow();
        Bury();
        if (worker is null && killed.Count >= MaxStuckWorkers)
            return Judge(Told.Nothing($"{killed.Count} earlier probes hang in the driver and cannot be ended"), now);
        var isFresh = worker is null;
        try
        {
            worker ??= WorkerProcess.Start(options.WorkerCommand, options.CudaLibrary, options.NvmlLibrary, time);
        }
        catch (Win32Exception fault)
        {
            return Judge(Told.Nothing($"{options.WorkerCommand[0]} could not be started: {fault.Message}"), now);
        }

        var isToBeKept = false;
        try
        {
            var told = await worker.AskAsync(Request(), worker.HasAnswered ? options.Deadline : options.FirstDeadline, cancellation);
            Remember(told);
            var inventory = Judge(told, now);
            var fault = StickingFault(inventory);
            if (isFresh || fault.Length == 0) faultFromStart = fault;
            // A fault that came while the worker lived may only stick to it. One that it found there does not.
            isToBeKept = told.IsWhole && fault == faultFromStart;
            return inventory;
        }
        finally
        {
            // Also when the caller gave up: the rest of the answer would be taken for the next one.
            if (!isToBeKept) Retire();
        }
    }

    private static bool IsCudaInDoubt(DeviceInventory inventory)
        => inventory.Driver is DriverState.Zombie or DriverState.Failed
            || inventory.Devices.Any(device => device.Health.Reason == HealthReason.CudaFailed);

    /// <summary>A device that hung is looked at last, so that it cannot keep the others from being told of.</summary>
    private string Request() => slow.Count == 0
        ? ProbeWorker.Request
        : $"{ProbeWorker.Request} {string.Join(',', slow.Select(index => index.ToString(CultureInfo.InvariantCulture)))}";

    private void Remember(Told told)
    {
        if (told is { IsWhole: false, At: { } hung }) slow.Add(hung);
        foreach (var device in told.Devices) slow.Remove(device.Facts.Index);
    }

    private DeviceInventory Judge(Told told, DateTimeOffset now)
    {
        if (told.Driver is not { } driver)
        {
            return new DeviceInventory
            {
                ObservedAt = now,
                Driver = DriverState.Unresponsive,
                Message = told.Message,
                Devices = memory.Complete([], Unresponsive(told.Message)),
            };
        }

        memory.Hear(driver.Xids, now);
        var anyMig = told.Devices.Exists(device => device.Facts.MigEnabled == true);
        // Whether CUDA hides devices is known only when each was asked for its MIG mode.
        var cudaListsAll = told.IsWhole && !anyMig;
        var devices = told.Devices.ConvertAll(device => device.Facts with
        {
            Health = Verdicts.OfDevice(device, driver, memory.RecentXids(device.Facts.Uuid, now), cudaListsAll),
            XidErrors = memory.Xids(device.Facts.Uuid),
        });
        if (told.At is { } hung)
            devices.Add(new Device { Index = hung, Health = Unresponsive(told.Message) });

        var (state, message) = told.IsWhole ? Verdicts.OfDriver(driver, anyMig) : (DriverState.Unresponsive, told.Message);
        return new DeviceInventory
        {
            ObservedAt = now,
            Driver = state,
            Message = message,
            DriverVersion = driver.DriverVersion,
            CudaVersion = driver.CudaVersion,
            Devices = memory.Complete(devices, OfMissing(state, message)),
        };
    }

    private static DeviceHealth OfMissing(DriverState state, string message) => state switch
    {
        DriverState.Working or DriverState.NoDevice => Unlisted,
        DriverState.Unresponsive => Unresponsive(message),
        DriverState.NoDriver or DriverState.Zombie or DriverState.Failed
            => new DeviceHealth(HealthVerdict.Unknown, HealthReason.DriverError, message),
    };

    private static DeviceHealth Unresponsive(string message) => new(HealthVerdict.Unknown, HealthReason.Unresponsive, message);

    /// <summary>What is at fault in a way that may stick to the worker; empty when nothing is.</summary>
    private static string StickingFault(DeviceInventory inventory) => string.Join(
        ' ', inventory.Devices.Where(IsStuck).Select(device => $"{device.Index}:{device.Uuid}:{device.Health.Reason}")
            .Prepend(inventory.Driver == DriverState.Working ? "" : $"{inventory.Driver}")).Trim();

    /// <summary>Faults that the libraries go on telling of in the same process after they are gone.</summary>
    private static bool IsStuck(Device device) => device.Health.Reason switch
    {
        HealthReason.Lost or HealthReason.CudaFailed or HealthReason.NvmlFailed or HealthReason.DriverError or HealthReason.Unresponsive => true,
        HealthReason.None or HealthReason.UncorrectedEcc or HealthReason.RowRemapFailed or HealthReason.Xid => false,
    };

    private void Retire()
    {
        if (worker is null) return;
        worker.Kill();
        killed.Add(worker);
        worker = null;
    }

    private void Bury()
    {
        foreach (var process in killed.FindAll(process => !process.IsAlive))
        {
            process.Dispose();
            killed.Remove(process);
        }
    }
}
