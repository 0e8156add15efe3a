using System.Diagnostics;
using System.Globalization;
using Tensormesh.Devices;
using Tensormesh.Devices.Interop;
using Tensormesh.Devices.Worker;

// gpu-check [CUDA-LIBRARY NVML-LIBRARY]   probes this machine's GPUs as the agent does, and prints what it saw and how long it took
//
// Exit codes: 0 every device is healthy, 1 the driver or a device is not, 2 usage, 3 there is no NVIDIA driver, 4 no device.
if (ProbeWorker.TryRun(args)) return 0;
if (args.Length is not (0 or 2))
{
    Console.Error.WriteLine("usage: gpu-check [CUDA-LIBRARY NVML-LIBRARY]");
    return 2;
}

const int Rounds = 50;
var options = new CudaDeviceProbeOptions();
if (args is [var cudaPath, var nvmlPath]) options = options with { CudaLibrary = cudaPath, NvmlLibrary = nvmlPath };
await using var probe = new CudaDeviceProbe(options, TimeProvider.System);

var began = Stopwatch.GetTimestamp();
var seen = await probe.ProbeAsync(CancellationToken.None);
var first = Stopwatch.GetElapsedTime(began);
Say($"driver: {seen.Driver}, version {seen.DriverVersion ?? "unknown"}, CUDA {seen.CudaVersion ?? "unknown"}");
if (seen.Message.Length > 0) Say($"  {seen.Message}");
foreach (var device in seen.Devices) Print(device);
switch (seen.Driver)
{
    case DriverState.NoDriver:
        Say($"There is no NVIDIA driver on this machine: nothing was checked.");
        return 3;
    case DriverState.NoDevice:
        Say($"The driver has no device: nothing was checked.");
        return 4;
    case DriverState.Working or DriverState.Zombie or DriverState.Failed or DriverState.Unresponsive:
        break;
}

Say($"first probe, with the start of its worker: {first.TotalMilliseconds:0.0} ms");
if (!seen.IsWhole) return 1;

var took = new List<double>();
for (var i = 0; i < Rounds; i++)
{
    began = Stopwatch.GetTimestamp();
    await probe.ProbeAsync(CancellationToken.None);
    took.Add(Stopwatch.GetElapsedTime(began).TotalMilliseconds);
}

took.Sort();
Say($"{Rounds} probes more: median {took[Rounds / 2]:0.00} ms, slowest {took[^1]:0.00} ms");
TimeCalls(options);
return 0;

static void Print(Device device)
{
    Say($"device {device.Index}: {device.Name ?? "unknown"} {device.Uuid?.Value ?? "of unknown UUID"} at {device.PciBusId ?? "unknown"}");
    Say($"  health       {device.Health.Verdict} {device.Health.Reason} {device.Health.Message}");
    Say($"  memory       {Mebibytes(device.TotalMemoryBytes)} MiB, {Mebibytes(device.FreeMemoryBytes)} free");
    Say($"  compute      {Known(device.ComputeCapability)}, {Known(device.Multiprocessors)} multiprocessors");
    Say($"  MIG          {Known(device.MigEnabled)}{string.Concat(device.MigInstances.Select(mig => $"\n    {mig.Index}: {mig.Name} {mig.Uuid}"))}");
    Say($"  ECC          {Known(device.EccEnabled)}, corrected {Known(device.CorrectedEccErrors)}, uncorrected {Known(device.UncorrectedEccErrors)}");
    Say($"  retired      {Known(device.RetiredPages)}");
    Say($"  remapped     {Known(device.RowRemap)}");
    Say($"  power        {Known(device.PowerMilliwatts)} of {Known(device.PowerLimitMilliwatts)} mW, {Known(device.TemperatureCelsius)} °C");
    Say($"  utilization  {Known(device.GpuUtilizationPercent)} %, memory {Known(device.MemoryUtilizationPercent)} %");
    Say($"  throttled by {Known(device.Throttle)}");
    Say($"  processes    {(device.Processes is { } processes ? string.Join(", ", processes) : "unknown")}");
}

// In this process and without a deadline: it is for people, who can interrupt it.
static void TimeCalls(CudaDeviceProbeOptions options)
{
    var calls = new Dictionary<string, List<double>>(StringComparer.Ordinal);
    var last = 0L;
    var cuda = new CudaReader(DriverLibrary.Load(DriverLibrary.CudaName, options.CudaLibrary));
    var nvml = new NvmlReader(DriverLibrary.Load(DriverLibrary.NvmlName, options.NvmlLibrary), call =>
    {
        if (!calls.TryGetValue(call, out var list)) calls[call] = list = [];
        list.Add(Stopwatch.GetElapsedTime(last).TotalMicroseconds);
        last = Stopwatch.GetTimestamp();
    });
    foreach (var (name, read) in new (string, Action)[] { ("NVML initialises", nvml.Read), ("CUDA initialises", cuda.Read) })
    {
        last = Stopwatch.GetTimestamp();
        read();
        Say($"{name} in {Stopwatch.GetElapsedTime(last).TotalMilliseconds:0.0} ms");
    }

    for (var round = 0; round <= Rounds; round++)
    {
        // What the first round finds uncompiled is not the driver's.
        if (round == 1) calls.Clear();
        for (var index = 0; index < nvml.State.Devices; index++)
        {
            last = Stopwatch.GetTimestamp();
            nvml.ReadDevice(index, cuda);
        }
    }

    Say($"{"call",-44}{"median µs",12}{"slowest µs",12}");
    foreach (var (call, times) in calls.OrderByDescending(pair => pair.Value.Sum()))
    {
        times.Sort();
        Say($"{call,-44}{times[times.Count / 2],12:0.0}{times[^1],12:0.0}");
    }
}

static void Say(FormattableString line) => Console.WriteLine(FormattableString.Invariant(line));

static string Mebibytes(long? bytes) => Known(bytes is { } known ? known >> 20 : null);

static string Known(object? value) => value is null ? "unknown" : string.Create(CultureInfo.InvariantCulture, $"{value}");
