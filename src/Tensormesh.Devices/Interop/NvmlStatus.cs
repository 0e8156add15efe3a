using System.Globalization;

namespace Tensormesh.Devices.Interop;

/// <summary>nvmlReturn_t by number and by name.</summary>
internal static class NvmlStatus
{
    public const int Success = 0;
    public const int InsufficientSize = 7;
    public const int IrqIssue = 11;
    public const int FunctionNotFound = 13;
    public const int GpuIsLost = 15;
    public const int ResetRequired = 16;
    public const int GpuNotFound = 28;
    public const int Unknown = 999;

    // In the order of their numbers.
    private static readonly string[] Names =
    [
        "NVML_SUCCESS", "NVML_ERROR_UNINITIALIZED", "NVML_ERROR_INVALID_ARGUMENT", "NVML_ERROR_NOT_SUPPORTED", "NVML_ERROR_NO_PERMISSION",
        "NVML_ERROR_ALREADY_INITIALIZED", "NVML_ERROR_NOT_FOUND", "NVML_ERROR_INSUFFICIENT_SIZE", "NVML_ERROR_INSUFFICIENT_POWER",
        "NVML_ERROR_DRIVER_NOT_LOADED", "NVML_ERROR_TIMEOUT", "NVML_ERROR_IRQ_ISSUE", "NVML_ERROR_LIBRARY_NOT_FOUND",
        "NVML_ERROR_FUNCTION_NOT_FOUND", "NVML_ERROR_CORRUPTED_INFOROM", "NVML_ERROR_GPU_IS_LOST", "NVML_ERROR_RESET_REQUIRED",
        "NVML_ERROR_OPERATING_SYSTEM", "NVML_ERROR_LIB_RM_VERSION_MISMATCH", "NVML_ERROR_IN_USE", "NVML_ERROR_MEMORY", "NVML_ERROR_NO_DATA",
        "NVML_ERROR_VGPU_ECC_NOT_SUPPORTED", "NVML_ERROR_INSUFFICIENT_RESOURCES", "NVML_ERROR_FREQ_NOT_SUPPORTED",
        "NVML_ERROR_ARGUMENT_VERSION_MISMATCH", "NVML_ERROR_DEPRECATED", "NVML_ERROR_NOT_READY", "NVML_ERROR_GPU_NOT_FOUND",
        "NVML_ERROR_INVALID_STATE", "NVML_ERROR_RESET_TYPE_NOT_SUPPORTED",
    ];

    public static string Name(int status) => status switch
    {
        Unknown => "NVML_ERROR_UNKNOWN",
        >= 0 when status < Names.Length => Names[status],
        _ => string.Create(CultureInfo.InvariantCulture, $"NVML status {status}"),
    };

    /// <summary>The device is not there any more, whatever else it was asked.</summary>
    public static bool MeansLost(int status) => status is GpuIsLost or GpuNotFound;

    /// <summary>
    /// The device or the driver does not offer this, or not to us: its field is null. An argument that is refused is an older
    /// driver that does not know it.
    /// </summary>
    public static bool MeansUnsupported(int status) => Name(status) is "NVML_ERROR_NOT_SUPPORTED" or "NVML_ERROR_NO_PERMISSION"
        or "NVML_ERROR_FUNCTION_NOT_FOUND" or "NVML_ERROR_NOT_FOUND" or "NVML_ERROR_NO_DATA" or "NVML_ERROR_DEPRECATED"
        or "NVML_ERROR_ARGUMENT_VERSION_MISMATCH" or "NVML_ERROR_INVALID_ARGUMENT" or "NVML_ERROR_CORRUPTED_INFOROM";
}
