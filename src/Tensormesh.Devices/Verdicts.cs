using Tensormesh.Devices.Interop;
using Tensormesh.Devices.Worker;

namespace Tensormesh.Devices;

/// <summary>What readings mean. Pure: readings and remembered XID errors in, verdicts out.</summary>
internal static class Verdicts
{
    /// <summary>
    /// XID errors that the hardware or the driver causes and that make work fail. The others tell of a faulty program (13, 31, 43,
    /// 45), of an error that was contained or repaired (63, 92, 94), or of nothing that lasts.
    /// </summary>
    public static bool IsHardwareXid(int code) => code is 46 or 48 or 62 or 64 or 74 or 79 or 95 or 109 or 110 or 119 or 120 or 136 or 140 or 143;

    /// <summary>The first thing to say about the node, and why.</summary>
    public static (DriverState State, string Message) OfDriver(DriverReading driver, bool anyMig)
    {
        var (nvml, cuda) = (driver.Nvml, driver.Cuda);
        var told = $"NVML: {Describe(nvml)}; CUDA: {Describe(cuda)}";
        return (nvml.State, cuda.State) switch
        {
            (LibraryState.Absent, LibraryState.Absent) => (DriverState.NoDriver, told),
            (LibraryState.Answers, LibraryState.Answers) when nvml.Devices == 0 && cuda.Devices == 0 => (DriverState.NoDevice, told),
            // With MIG on, CUDA lists one instance, or nothing where no instance was made.
            (LibraryState.Answers, LibraryState.Answers) when nvml.Devices == 0 || (cuda.Devices == 0 && !anyMig) => (DriverState.Zombie, told),
            (LibraryState.Answers, LibraryState.Answers) => (DriverState.Working, ""),
            // Without a device cuInit may fail, and that CUDA is not installed is no loss.
            (LibraryState.Answers, _) => (nvml.Devices > 0 ? DriverState.Zombie : DriverState.NoDevice, told),
            // Where the kernel module is missing, NVML fails and CUDA counts no device.
            (LibraryState.Failed, LibraryState.Answers) => (cuda.Devices > 0 ? DriverState.Zombie : DriverState.Failed, told),
            (LibraryState.Absent, LibraryState.Answers) => (cuda.Devices > 0 ? DriverState.Zombie : DriverState.NoDevice, told),
            _ => (DriverState.Failed, told),
        };
    }

    /// <param name="xids">Those of this device that were heard of a short while ago.</param>
    /// <param name="cudaListsAll">False while MIG is on anywhere on the node: CUDA then hides devices.</param>
    public static DeviceHealth OfDevice(DeviceReading reading, DriverReading driver, IReadOnlyList<XidError> xids, bool cudaListsAll)
    {
        var facts = reading.Facts;
        if (reading.Failures.FirstOrDefault(failure => NvmlStatus.MeansLost(failure.Status)) is { } lost)
            return Unhealthy(HealthReason.Lost, lost.ToString());
        if (driver.Nvml.State != LibraryState.Answers)
            return new DeviceHealth(HealthVerdict.Unknown, HealthReason.NvmlFailed, $"NVML: {Describe(driver.Nvml)}");
        switch (driver.Cuda.State)
        {
            case LibraryState.Failed:
                return Unhealthy(HealthReason.CudaFailed, driver.Cuda.Message);
            case LibraryState.Absent:
                return new DeviceHealth(HealthVerdict.Unknown, HealthReason.CudaFailed, driver.Cuda.Message);
            case LibraryState.Answers when reading.InCuda == false && cudaListsAll && reading.Failures.Count == 0:
                return Unhealthy(HealthReason.CudaFailed, "NVML lists the device and CUDA does not");
        }

        if (facts.UncorrectedEccErrors > 0)
            return Unhealthy(HealthReason.UncorrectedEcc, $"{facts.UncorrectedEccErrors} uncorrected memory errors since the driver was loaded");
        if (facts.RowRemap is { Failed: true })
            return Unhealthy(HealthReason.RowRemapFailed, "a row of memory could not be remapped");
        if (xids.LastOrDefault(xid => IsHardwareXid(xid.Code)) is { } hardware)
            return Unhealthy(HealthReason.Xid, $"XID {hardware.Code} at {hardware.SeenAt:O}");
        if (reading.Failures is not [var failure, ..])
            return DeviceHealth.Healthy;
        var isEvidence = reading.Failures.Any(each => each.Status is NvmlStatus.ResetRequired or NvmlStatus.IrqIssue);
        return new DeviceHealth(isEvidence ? HealthVerdict.Unhealthy : HealthVerdict.Unknown, HealthReason.DriverError, failure.ToString());
    }

    private static DeviceHealth Unhealthy(HealthReason reason, string message) => new(HealthVerdict.Unhealthy, reason, message);

    private static string Describe(LibraryReading library)
        => library.State == LibraryState.Answers ? FormattableString.Invariant($"{library.Devices} devices") : library.Message;
}
