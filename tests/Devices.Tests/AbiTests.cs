using System.Runtime.CompilerServices;
using Tensormesh.Devices.Interop;
using Tensormesh.Devices.Worker;

namespace Tensormesh.Devices.Tests;

/// <summary>What must be as nvml.h has it, because nothing would fail if it were not.</summary>
public sealed class AbiTests
{
    [Fact]
    public void Structs_have_the_sizes_of_nvml_h() => Assert.Equal(
        [68, 24, 8, 24, 16, 32],
        [
            Unsafe.SizeOf<NvmlPciInfo>(), Unsafe.SizeOf<NvmlMemory>(), Unsafe.SizeOf<NvmlUtilization>(), Unsafe.SizeOf<NvmlProcess>(),
            Unsafe.SizeOf<NvmlProcessV1>(), Unsafe.SizeOf<NvmlEvent>(),
        ]);

    [Theory]
    [InlineData(0, "NVML_SUCCESS")]
    [InlineData(3, "NVML_ERROR_NOT_SUPPORTED")]
    [InlineData(9, "NVML_ERROR_DRIVER_NOT_LOADED")]
    [InlineData(15, "NVML_ERROR_GPU_IS_LOST")]
    [InlineData(18, "NVML_ERROR_LIB_RM_VERSION_MISMATCH")]
    [InlineData(25, "NVML_ERROR_ARGUMENT_VERSION_MISMATCH")]
    [InlineData(28, "NVML_ERROR_GPU_NOT_FOUND")]
    [InlineData(30, "NVML_ERROR_RESET_TYPE_NOT_SUPPORTED")]
    [InlineData(999, "NVML_ERROR_UNKNOWN")]
    [InlineData(31, "NVML status 31")]
    [InlineData(-1, "NVML status -1")]
    public void A_status_has_the_name_of_nvml_h(int status, string name) => Assert.Equal(name, NvmlStatus.Name(status));

    [Fact]
    public void Arguments_that_are_no_workers_are_left_alone()
    {
        Assert.False(ProbeWorker.TryRun([]));
        Assert.False(ProbeWorker.TryRun(["device-probe-worker"]));
    }
}
