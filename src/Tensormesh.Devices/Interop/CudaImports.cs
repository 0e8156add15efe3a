using System.Runtime.InteropServices;

namespace Tensormesh.Devices.Interop;

/// <summary>
/// The part of cuda.h that needs no context: a context would take some hundred megabytes of a customer's device, and could not
/// be had at all on a device in exclusive mode.
/// </summary>
internal static unsafe partial class CudaImports
{
    private const string Lib = DriverLibrary.CudaName;

    /// <summary>CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT.</summary>
    public const int MultiprocessorCount = 16;

    /// <summary>CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR.</summary>
    public const int ComputeCapabilityMajor = 75;

    /// <summary>CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR.</summary>
    public const int ComputeCapabilityMinor = 76;

    [LibraryImport(Lib, EntryPoint = "cuInit")]
    public static partial int Init(uint flags);

    [LibraryImport(Lib, EntryPoint = "cuDriverGetVersion")]
    public static partial int DriverGetVersion(int* version);

    [LibraryImport(Lib, EntryPoint = "cuDeviceGetCount")]
    public static partial int DeviceGetCount(int* count);

    [LibraryImport(Lib, EntryPoint = "cuDeviceGet")]
    public static partial int DeviceGet(int* device, int ordinal);

    [LibraryImport(Lib, EntryPoint = "cuDeviceGetName")]
    public static partial int DeviceGetName(byte* name, int length, int device);

    /// <summary>Of a MIG instance, this tells the instance's own UUID; version 1 tells its parent's.</summary>
    [LibraryImport(Lib, EntryPoint = "cuDeviceGetUuid_v2")]
    public static partial int DeviceGetUuidV2(byte* uuid, int device);

    [LibraryImport(Lib, EntryPoint = "cuDeviceGetUuid")]
    public static partial int DeviceGetUuidV1(byte* uuid, int device);

    [LibraryImport(Lib, EntryPoint = "cuDeviceTotalMem_v2")]
    public static partial int DeviceTotalMemV2(nuint* bytes, int device);

    [LibraryImport(Lib, EntryPoint = "cuDeviceGetAttribute")]
    public static partial int DeviceGetAttribute(int* value, int attribute, int device);

    [LibraryImport(Lib, EntryPoint = "cuDeviceGetPCIBusId")]
    public static partial int DeviceGetPciBusId(byte* busId, int length, int device);

    /// <summary>The name is a constant of the library's.</summary>
    [LibraryImport(Lib, EntryPoint = "cuGetErrorName")]
    public static partial int GetErrorName(int status, byte** name);
}
