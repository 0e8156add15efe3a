using System.Globalization;
using System.Text;
using Tensormesh.Devices.Interop;

namespace Tensormesh.Devices.Worker;

/// <summary>Asks NVML, device by device. Initialises it once, and again after it failed.</summary>
/// <param name="asked">Told of each call about a device as it returned; null in a worker.</param>
internal sealed unsafe class NvmlReader(DriverLibrary library, Action<string>? asked = null)
{
    private const int TextLength = 96;
    private const int MaxDevices = 64;
    private const int MaxXidsPerReading = 64;
    private const int MaxMigInstances = 64;
    private const int MaxProcesses = 1024;
    private const int SensorGpu = 0;
    private const int ErrorsCorrected = 0;
    private const int ErrorsUncorrected = 1;
    private const int CounterSinceLoad = 0;
    private const int CauseSingleBitErrors = 0;
    private const int CauseDoubleBitError = 1;
    private const ulong EventXid = 0x8;
    private const ulong NotAvailable = ulong.MaxValue;

    private readonly Dictionary<nint, DeviceUuid> watched = [];
    private readonly List<CallFailure> failures = [];
    private nint events;
    private bool initialised;

    public LibraryReading State { get; private set; } = new(LibraryState.Absent, 0, "");
    public string? DriverVersion { get; private set; }

    /// <summary>Everything but the devices.</summary>
    public void Read()
    {
        DriverVersion = null;
        State = LibraryReading.Of(library, ReadDriver);
    }

    private LibraryReading ReadDriver()
    {
        uint count = 0;
        var text = stackalloc byte[TextLength];
        var (call, status) = ("nvmlInit", NvmlStatus.Success);
        if (!initialised) status = library.Has("nvmlInit_v2") ? NvmlImports.InitV2() : NvmlImports.InitV1();
        initialised = status == NvmlStatus.Success;
        if (status == NvmlStatus.Success)
        {
            call = "nvmlDeviceGetCount";
            status = library.Has("nvmlDeviceGetCount_v2") ? NvmlImports.DeviceGetCountV2(&count) : NvmlImports.DeviceGetCountV1(&count);
        }

        if (status != NvmlStatus.Success)
        {
            return new LibraryReading(LibraryState.Failed, 0, $"{call}: {NvmlStatus.Name(status)}");
        }

        DriverVersion = NvmlImports.SystemGetDriverVersion(text, TextLength) == NvmlStatus.Success ? Text(text) : null;
        return new LibraryReading(LibraryState.Answers, (int)Math.Min(count, MaxDevices), "");
    }

    /// <summary>The XID errors of devices that were read before, since they were.</summary>
    public List<XidReading> ReadXids()
    {
        var xids = new List<XidReading>();
        NvmlEvent seen;
        while (events != 0 && xids.Count < MaxXidsPerReading
            && (library.Has("nvmlEventSetWait_v2") ? NvmlImports.EventSetWaitV2(events, &seen, 0) : NvmlImports.EventSetWaitV1(events, &seen, 0))
                == NvmlStatus.Success)
        {
            if (seen.Type == EventXid && watched.TryGetValue(seen.Device, out var uuid)) xids.Add(new XidReading(uuid, (int)seen.Value));
        }

        return xids;
    }

    public DeviceReading ReadDevice(int index, CudaReader cuda)
    {
        failures.Clear();
        nint device;
        var got = library.Has("nvmlDeviceGetHandleByIndex_v2")
            ? NvmlImports.DeviceGetHandleByIndexV2((uint)index, &device)
            : NvmlImports.DeviceGetHandleByIndexV1((uint)index, &device);
        var facts = new Device { Index = index, Health = Unjudged.Health };
        if (got != NvmlStatus.Success)
        {
            failures.Add(new CallFailure("nvmlDeviceGetHandleByIndex", got));
        }
        else
        {
            facts = facts with { Uuid = Uuid(device), Name = Name(device), PciBusId = PciBusId(device) };
            try
            {
                // A lost device may take seconds to say so at each call.
                if (!IsLost) facts = ReadState(ReadMemory(facts, device), device);
                if (!IsLost && facts.Uuid is { } uuid) Watch(device, uuid);
            }
            catch (EntryPointNotFoundException fault)
            {
                // A driver older than any that was thought of: better unknown than without one of its readings.
                failures.Add(new CallFailure(fault.Message, NvmlStatus.FunctionNotFound));
            }
        }

        var twin = cuda.Devices.FirstOrDefault(other => other.Uuid == facts.Uuid)
            ?? cuda.Devices.FirstOrDefault(other => other.PciBusId is not null && other.PciBusId == facts.PciBusId);
        return new DeviceReading(
            facts with
            {
                Multiprocessors = twin?.Multiprocessors,
                ComputeCapability = facts.ComputeCapability ?? twin?.ComputeCapability,
            },
            cuda.State.State == LibraryState.Answers ? twin is not null : null,
            [.. failures]);
    }

    private bool IsLost => failures.Exists(failure => NvmlStatus.MeansLost(failure.Status));

    private Device ReadMemory(Device facts, nint device)
    {
        NvmlMemory memory;
        int major, minor;
        uint eccOn, eccPending;
        var hasMemory = Ask("nvmlDeviceGetMemoryInfo", NvmlImports.DeviceGetMemoryInfo(device, &memory));
        return facts with
        {
            TotalMemoryBytes = hasMemory ? (long)memory.Total : null,
            FreeMemoryBytes = hasMemory ? (long)memory.Free : null,
            ComputeCapability = Ask("nvmlDeviceGetCudaComputeCapability", NvmlImports.DeviceGetCudaComputeCapability(device, &major, &minor))
                ? new ComputeCapability(major, minor) : null,
            EccEnabled = Ask("nvmlDeviceGetEccMode", NvmlImports.DeviceGetEccMode(device, &eccOn, &eccPending)) ? eccOn != 0 : null,
            CorrectedEccErrors = EccErrors(device, ErrorsCorrected),
            UncorrectedEccErrors = EccErrors(device, ErrorsUncorrected),
            RetiredPages = Retired(device),
            RowRemap = Remapped(device),
        };
    }

    private Device ReadState(Device facts, nint device)
    {
        NvmlUtilization utilization;
        var hasUtilization = Ask("nvmlDeviceGetUtilizationRates", NvmlImports.DeviceGetUtilizationRates(device, &utilization));
        uint migOn = 0, migPending, power, limit, celsius;
        bool? mig = library.Has("nvmlDeviceGetMigMode") && Ask("nvmlDeviceGetMigMode", NvmlImports.DeviceGetMigMode(device, &migOn, &migPending))
            ? migOn != 0 : null;
        return facts with
        {
            MigEnabled = mig,
            MigInstances = mig == true ? Instances(device) : [],
            PowerMilliwatts = Ask("nvmlDeviceGetPowerUsage", NvmlImports.DeviceGetPowerUsage(device, &power)) ? (int)power : null,
            PowerLimitMilliwatts = Ask("nvmlDeviceGetEnforcedPowerLimit", NvmlImports.DeviceGetEnforcedPowerLimit(device, &limit))
                ? (int)limit : null,
            TemperatureCelsius = Ask("nvmlDeviceGetTemperature", NvmlImports.DeviceGetTemperature(device, SensorGpu, &celsius))
                ? (int)celsius : null,
            GpuUtilizationPercent = hasUtilization ? (int)utilization.Gpu : null,
            MemoryUtilizationPercent = hasUtilization ? (int)utilization.Memory : null,
            Throttle = Throttle(device),
            Processes = Processes(device),
        };
    }

    private DeviceUuid? Uuid(nint device)
    {
        var text = stackalloc byte[TextLength];
        return Ask("nvmlDeviceGetUUID", NvmlImports.DeviceGetUuid(device, text, TextLength)) ? new DeviceUuid(Text(text)) : null;
    }

    private string? Name(nint device)
    {
        var text = stackalloc byte[TextLength];
        return Ask("nvmlDeviceGetName", NvmlImports.DeviceGetName(device, text, TextLength)) ? Text(text) : null;
    }

    private string? PciBusId(nint device)
    {
        NvmlPciInfo pci;
        var status = library.Has("nvmlDeviceGetPciInfo_v3")
            ? NvmlImports.DeviceGetPciInfoV3(device, &pci) : NvmlImports.DeviceGetPciInfoV2(device, &pci);
        return Ask("nvmlDeviceGetPciInfo", status)
            ? string.Create(CultureInfo.InvariantCulture, $"{pci.Domain:X8}:{pci.Bus:X2}:{pci.Device:X2}.0") : null;
    }

    private long? EccErrors(nint device, int type)
    {
        ulong count;
        return Ask("nvmlDeviceGetTotalEccErrors", NvmlImports.DeviceGetTotalEccErrors(device, type, CounterSinceLoad, &count))
            ? (long)count : null;
    }

    private RetiredPages? Retired(nint device)
    {
        uint pending;
        return RetiredPages(device, CauseSingleBitErrors) is { } single && RetiredPages(device, CauseDoubleBitError) is { } @double
            && Ask("nvmlDeviceGetRetiredPagesPendingStatus", NvmlImports.DeviceGetRetiredPagesPendingStatus(device, &pending))
            ? new RetiredPages(single, @double, pending != 0) : null;
    }

    /// <summary>Only how many: no room for addresses is offered, which is an error where there are any, and tells the count.</summary>
    private int? RetiredPages(nint device, int cause)
    {
        uint count = 0;
        var status = NvmlImports.DeviceGetRetiredPages(device, cause, &count, null);
        return status == NvmlStatus.InsufficientSize || Ask("nvmlDeviceGetRetiredPages", status) ? (int)count : null;
    }

    private RowRemap? Remapped(nint device)
    {
        uint corrected, uncorrected, pending, failed;
        return library.Has("nvmlDeviceGetRemappedRows")
            && Ask("nvmlDeviceGetRemappedRows", NvmlImports.DeviceGetRemappedRows(device, &corrected, &uncorrected, &pending, &failed))
            ? new RowRemap((int)corrected, (int)uncorrected, pending != 0, failed != 0) : null;
    }

    private ThrottleReasons? Throttle(nint device)
    {
        ulong reasons;
        var status = library.Has("nvmlDeviceGetCurrentClocksEventReasons")
            ? NvmlImports.DeviceGetCurrentClocksEventReasons(device, &reasons)
            : NvmlImports.DeviceGetCurrentClocksThrottleReasons(device, &reasons);
        return Ask("nvmlDeviceGetCurrentClocksThrottleReasons", status) ? (ThrottleReasons)reasons : null;
    }

    private List<MigInstance>? InstancesOrNull(nint device)
    {
        uint most;
        if (!Ask("nvmlDeviceGetMaxMigDeviceCount", NvmlImports.DeviceGetMaxMigDeviceCount(device, &most))) return null;
        var instances = new List<MigInstance>();
        for (var index = 0; index < Math.Min(most, MaxMigInstances); index++)
        {
            nint instance;
            NvmlMemory memory;
            // Indexes may have gaps.
            if (!Ask("nvmlDeviceGetMigDeviceHandleByIndex", NvmlImports.DeviceGetMigDeviceHandleByIndex(device, (uint)index, &instance))
                || Uuid(instance) is not { } uuid) continue;
            var hasMemory = Ask("nvmlDeviceGetMemoryInfo", NvmlImports.DeviceGetMemoryInfo(instance, &memory));
            instances.Add(new MigInstance(
                index, uuid, Name(instance), hasMemory ? (long)memory.Total : null, hasMemory ? (long)memory.Free : null));
        }

        return instances;
    }

    private List<MigInstance> Instances(nint device) => InstancesOrNull(device) ?? [];

    private List<DeviceProcess>? Processes(nint device)
    {
        var hasV3 = library.Has("nvmlDeviceGetComputeRunningProcesses_v3");
        if (!hasV3 && !library.Has("nvmlDeviceGetComputeRunningProcesses_v2")) return OldProcesses(device);
        for (var room = 16u; room <= MaxProcesses; room *= 4)
        {
            var count = room;
            var processes = new NvmlProcess[room];
            int status;
            fixed (NvmlProcess* first = processes)
            {
                status = hasV3
                    ? NvmlImports.DeviceGetComputeRunningProcessesV3(device, &count, first)
                    : NvmlImports.DeviceGetComputeRunningProcessesV2(device, &count, first);
            }

            if (status == NvmlStatus.InsufficientSize) continue;
            return Ask("nvmlDeviceGetComputeRunningProcesses", status)
                ? [.. processes.Take((int)count).Select(process => Process(process.ProcessId, process.UsedMemory))] : null;
        }

        return null;
    }

    private List<DeviceProcess>? OldProcesses(nint device)
    {
        var count = (uint)MaxProcesses;
        var processes = new NvmlProcessV1[count];
        fixed (NvmlProcessV1* first = processes)
        {
            return Ask("nvmlDeviceGetComputeRunningProcesses", NvmlImports.DeviceGetComputeRunningProcessesV1(device, &count, first))
                ? [.. processes.Take((int)count).Select(process => Process(process.ProcessId, process.UsedMemory))] : null;
        }
    }

    private static DeviceProcess Process(uint id, ulong used) => new((int)id, used == NotAvailable ? null : (long)used);

    private void Watch(nint device, DeviceUuid uuid)
    {
        var isNew = !watched.ContainsKey(device);
        watched[device] = uuid;
        if (!isNew) return;
        nint set;
        if (events == 0 && NvmlImports.EventSetCreate(&set) == NvmlStatus.Success) events = set;
        // A device without events has no XID errors to tell of, which is no fault.
        if (events != 0) Ask("nvmlDeviceRegisterEvents", NvmlImports.DeviceRegisterEvents(device, EventXid, events));
    }

    /// <summary>True when the call succeeded; what it failed of is noted, unless the device does not support it.</summary>
    private bool Ask(string call, int status)
    {
        asked?.Invoke(call);
        if (status != NvmlStatus.Success && !NvmlStatus.MeansUnsupported(status)) failures.Add(new CallFailure(call, status));
        return status == NvmlStatus.Success;
    }

    private static string Text(byte* text) => Encoding.UTF8.GetString(new ReadOnlySpan<byte>(text, TextLength).SliceAtNull());
}
