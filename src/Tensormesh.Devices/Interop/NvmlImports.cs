using System.Runtime.InteropServices;

namespace Tensormesh.Devices.Interop;

/// <summary>
/// NVML as nvml.h declares it, with a plain int for nvmlReturn_t and a pointer for nvmlDevice_t. Entry points are bound when they
/// are first called, in the library that <see cref="DriverLibrary"/> loaded; whether one exists is asked before.
/// </summary>
internal static unsafe partial class NvmlImports
{
    private const string Lib = DriverLibrary.NvmlName;

    [LibraryImport(Lib, EntryPoint = "nvmlInit_v2")]
    public static partial int InitV2();

    [LibraryImport(Lib, EntryPoint = "nvmlInit")]
    public static partial int InitV1();

    [LibraryImport(Lib, EntryPoint = "nvmlSystemGetDriverVersion")]
    public static partial int SystemGetDriverVersion(byte* version, uint length);

    [LibraryImport(Lib, EntryPoint = "nvmlDeviceGetCount_v2")]
    public static partial int DeviceGetCountV2(uint* count);

    [LibraryImport(Lib, EntryPoint = "nvmlDeviceGetCount")]
    public static partial int DeviceGetCountV1(uint* count);

    [LibraryImport(Lib, EntryPoint = "nvmlDeviceGetHandleByIndex_v2")]
    public static partial int DeviceGetHandleByIndexV2(uint index, nint* device);

    [LibraryImport(Lib, EntryPoint = "nvmlDeviceGetHandleByIndex")]
    public static partial int DeviceGetHandleByIndexV1(uint index, nint* device);

    [LibraryImport(Lib, EntryPoint = "nvmlDeviceGetUUID")]
    public static partial int DeviceGetUuid(nint device, byte* uuid, uint length);

    [LibraryImport(Lib, EntryPoint = "nvmlDeviceGetName")]
    public static partial int DeviceGetName(nint device, byte* name, uint length);

    [LibraryImport(Lib, EntryPoint = "nvmlDeviceGetPciInfo_v3")]
    public static partial int DeviceGetPciInfoV3(nint device, NvmlPciInfo* pci);

    [LibraryImport(Lib, EntryPoint = "nvmlDeviceGetPciInfo_v2")]
    public static partial int DeviceGetPciInfoV2(nint device, NvmlPciInfo* pci);

    [LibraryImport(Lib, EntryPoint = "nvmlDeviceGetMemoryInfo")]
    public static partial int DeviceGetMemoryInfo(nint device, NvmlMemory* memory);

    [LibraryImport(Lib, EntryPoint = "nvmlDeviceGetCudaComputeCapability")]
    public static partial int DeviceGetCudaComputeCapability(nint device, int* major, int* minor);

    [LibraryImport(Lib, EntryPoint = "nvmlDeviceGetMigMode")]
    public static partial int DeviceGetMigMode(nint device, uint* current, uint* pending);

    [LibraryImport(Lib, EntryPoint = "nvmlDeviceGetMaxMigDeviceCount")]
    public static partial int DeviceGetMaxMigDeviceCount(nint device, uint* count);

    [LibraryImport(Lib, EntryPoint = "nvmlDeviceGetMigDeviceHandleByIndex")]
    public static partial int DeviceGetMigDeviceHandleByIndex(nint device, uint index, nint* instance);

    [LibraryImport(Lib, EntryPoint = "nvmlDeviceGetEccMode")]
    public static partial int DeviceGetEccMode(nint device, uint* current, uint* pending);

    [LibraryImport(Lib, EntryPoint = "nvmlDeviceGetTotalEccErrors")]
    public static partial int DeviceGetTotalEccErrors(nint device, int errorType, int counterType, ulong* count);

    [LibraryImport(Lib, EntryPoint = "nvmlDeviceGetRetiredPages")]
    public static partial int DeviceGetRetiredPages(nint device, int cause, uint* count, ulong* addresses);

    [LibraryImport(Lib, EntryPoint = "nvmlDeviceGetRetiredPagesPendingStatus")]
    public static partial int DeviceGetRetiredPagesPendingStatus(nint device, uint* pending);

    [LibraryImport(Lib, EntryPoint = "nvmlDeviceGetRemappedRows")]
    public static partial int DeviceGetRemappedRows(nint device, uint* corrected, uint* uncorrected, uint* pending, uint* failed);

    [LibraryImport(Lib, EntryPoint = "nvmlDeviceGetPowerUsage")]
    public static partial int DeviceGetPowerUsage(nint device, uint* milliwatts);

    [LibraryImport(Lib, EntryPoint = "nvmlDeviceGetEnforcedPowerLimit")]
    public static partial int DeviceGetEnforcedPowerLimit(nint device, uint* milliwatts);

    [LibraryImport(Lib, EntryPoint = "nvmlDeviceGetTemperature")]
    public static partial int DeviceGetTemperature(nint device, int sensor, uint* celsius);

    [LibraryImport(Lib, EntryPoint = "nvmlDeviceGetUtilizationRates")]
    public static partial int DeviceGetUtilizationRates(nint device, NvmlUtilization* utilization);

    [LibraryImport(Lib, EntryPoint = "nvmlDeviceGetCurrentClocksEventReasons")]
    public static partial int DeviceGetCurrentClocksEventReasons(nint device, ulong* reasons);

    [LibraryImport(Lib, EntryPoint = "nvmlDeviceGetCurrentClocksThrottleReasons")]
    public static partial int DeviceGetCurrentClocksThrottleReasons(nint device, ulong* reasons);

    [LibraryImport(Lib, EntryPoint = "nvmlDeviceGetComputeRunningProcesses_v3")]
    public static partial int DeviceGetComputeRunningProcessesV3(nint device, uint* count, NvmlProcess* processes);

    [LibraryImport(Lib, EntryPoint = "nvmlDeviceGetComputeRunningProcesses_v2")]
    public static partial int DeviceGetComputeRunningProcessesV2(nint device, uint* count, NvmlProcess* processes);

    [LibraryImport(Lib, EntryPoint = "nvmlDeviceGetComputeRunningProcesses")]
    public static partial int DeviceGetComputeRunningProcessesV1(nint device, uint* count, NvmlProcessV1* processes);

    [LibraryImport(Lib, EntryPoint = "nvmlEventSetCreate")]
    public static partial int EventSetCreate(nint* set);

    [LibraryImport(Lib, EntryPoint = "nvmlDeviceRegisterEvents")]
    public static partial int DeviceRegisterEvents(nint device, ulong types, nint set);

    [LibraryImport(Lib, EntryPoint = "nvmlEventSetWait_v2")]
    public static partial int EventSetWaitV2(nint set, NvmlEvent* seen, uint timeoutMilliseconds);

    [LibraryImport(Lib, EntryPoint = "nvmlEventSetWait")]
    public static partial int EventSetWaitV1(nint set, NvmlEvent* seen, uint timeoutMilliseconds);
}

/// <summary>nvmlPciInfo_t. Version 2 of the call fills no more than the first 52 bytes, and leaves <see cref="BusId"/> alone.</summary>
internal unsafe struct NvmlPciInfo
{
    public fixed byte BusIdLegacy[16];
    public uint Domain;
    public uint Bus;
    public uint Device;
    public uint PciDeviceId;
    public uint PciSubSystemId;
    public fixed byte BusId[32];
}

/// <summary>nvmlMemory_t, in bytes.</summary>
internal struct NvmlMemory
{
    public ulong Total;
    public ulong Free;
    public ulong Used;
}

/// <summary>nvmlUtilization_t, in percent.</summary>
internal struct NvmlUtilization
{
    public uint Gpu;
    public uint Memory;
}

/// <summary>nvmlProcessInfo_v2_t, which version 3 of the call takes as well.</summary>
internal struct NvmlProcess
{
    public uint ProcessId;
    public ulong UsedMemory;
    public uint GpuInstanceId;
    public uint ComputeInstanceId;
}

/// <summary>nvmlProcessInfo_v1_t.</summary>
internal struct NvmlProcessV1
{
    public uint ProcessId;
    public ulong UsedMemory;
}

/// <summary>nvmlEventData_t. Version 1 of the call fills no more than the first 24 bytes.</summary>
internal struct NvmlEvent
{
    public nint Device;
    public ulong Type;
    public ulong Value;
    public uint GpuInstanceId;
    public uint ComputeInstanceId;
}
