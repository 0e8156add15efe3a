namespace Tensormesh.Devices;

/// <summary>What one probe saw of a whole node.</summary>
public sealed record DeviceInventory
{
    /// <summary>When the probe began.</summary>
    public required DateTimeOffset ObservedAt { get; init; }

    public required DriverState Driver { get; init; }

    /// <summary>Why <see cref="Driver"/> is not <see cref="DriverState.Working"/>, in a sentence; empty when it is.</summary>
    public required string Message { get; init; }

    /// <summary>As NVML tells it, such as <c>550.54.15</c>; null when NVML did not answer.</summary>
    public string? DriverVersion { get; init; }

    /// <summary>The newest CUDA that the driver runs, such as <c>12.4</c>; null when CUDA did not answer.</summary>
    public string? CudaVersion { get; init; }

    /// <summary>
    /// In the order of their indexes. A device that an earlier probe saw and that is gone stays in the list as lost, unless
    /// another took its slot (<see cref="Device.Replaces"/>).
    /// </summary>
    public IReadOnlyList<Device> Devices { get; init; } = [];

    /// <summary>True only when the driver works and every device is healthy.</summary>
    public bool IsWhole => Driver == DriverState.Working && Devices.All(device => device.Health.Verdict == HealthVerdict.Healthy);
}

/// <summary>How the node's driver as a whole answered.</summary>
public enum DriverState
{
    /// <summary>CUDA and NVML both answer. Single devices may still be unhealthy.</summary>
    Working,

    /// <summary>Neither library is installed: a node without GPUs.</summary>
    NoDriver,

    /// <summary>The driver answers, and has no device.</summary>
    NoDevice,

    /// <summary>
    /// One of CUDA and NVML answers and the other does not: a node that seems to have GPUs on which nothing can run, or that
    /// cannot be watched. Nothing must be placed here.
    /// </summary>
    Zombie,

    /// <summary>Libraries are installed, and none answers without an error.</summary>
    Failed,

    /// <summary>No answer before the deadline, or the worker died. Devices that were not told about in time are unknown.</summary>
    Unresponsive,
}
