using System.Globalization;
using System.Runtime.InteropServices;

namespace Tensormesh.Devices.Interop;

/// <summary>CUresult by number and by name.</summary>
internal static class CudaStatus
{
    public const int Success = 0;
    public const int NoDevice = 100;

    /// <summary>Those that the calls in <see cref="CudaImports"/> are documented to return; the library itself names the rest.</summary>
    public static unsafe string Name(int status, DriverLibrary library)
    {
        var known = status switch
        {
            Success => "CUDA_SUCCESS",
            1 => "CUDA_ERROR_INVALID_VALUE",
            2 => "CUDA_ERROR_OUT_OF_MEMORY",
            3 => "CUDA_ERROR_NOT_INITIALIZED",
            4 => "CUDA_ERROR_DEINITIALIZED",
            34 => "CUDA_ERROR_STUB_LIBRARY",
            46 => "CUDA_ERROR_DEVICE_UNAVAILABLE",
            NoDevice => "CUDA_ERROR_NO_DEVICE",
            101 => "CUDA_ERROR_INVALID_DEVICE",
            102 => "CUDA_ERROR_DEVICE_NOT_LICENSED",
            201 => "CUDA_ERROR_INVALID_CONTEXT",
            214 => "CUDA_ERROR_ECC_UNCORRECTABLE",
            304 => "CUDA_ERROR_OPERATING_SYSTEM",
            800 => "CUDA_ERROR_NOT_PERMITTED",
            801 => "CUDA_ERROR_NOT_SUPPORTED",
            802 => "CUDA_ERROR_SYSTEM_NOT_READY",
            803 => "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH",
            804 => "CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE",
            999 => "CUDA_ERROR_UNKNOWN",
            _ => null,
        };
        if (known is not null) return known;
        byte* name;
        return library.Has("cuGetErrorName") && CudaImports.GetErrorName(status, &name) == Success
            ? Marshal.PtrToStringUTF8((nint)name)!
            : string.Create(CultureInfo.InvariantCulture, $"CUDA status {status}");
    }
}
