namespace Tensormesh.Devices;

/// <param name="Message">For people: what was seen, with the driver's own status names. Empty when healthy.</param>
public sealed record DeviceHealth(HealthVerdict Verdict, HealthReason Reason, string Message)
{
    public static DeviceHealth Healthy { get; } = new(HealthVerdict.Healthy, HealthReason.None, "");
}

public enum HealthVerdict
{
    Healthy,

    /// <summary>There is evidence that work on the device fails.</summary>
    Unhealthy,

    /// <summary>There is no evidence either way. Never to be taken for healthy, and no ground for a credit by itself.</summary>
    Unknown,
}

/// <summary>The first of these that applies, in this order.</summary>
public enum HealthReason
{
    None,

    /// <summary>The driver did not answer about this device before the deadline.</summary>
    Unresponsive,

    /// <summary>The device fell off the bus, or is not listed any more.</summary>
    Lost,

    /// <summary>NVML lists the device, and no CUDA program can use it.</summary>
    CudaFailed,

    /// <summary>CUDA sees the device, and NVML, which tells health, does not answer.</summary>
    NvmlFailed,

    /// <summary>Memory errors that could not be corrected, since the driver was loaded.</summary>
    UncorrectedEcc,

    /// <summary>A bad row of memory could not be replaced by a spare one.</summary>
    RowRemapFailed,

    /// <summary>A hardware XID error a short while ago. Those that a faulty program causes do not count.</summary>
    Xid,

    /// <summary>A call that every device supports failed; the message names it.</summary>
    DriverError,
}
