namespace Tensormesh.Devices;

/// <summary>Looks at the GPUs of this machine. Every outcome is a value: a node without a driver is an answer, not an exception.</summary>
public interface IDeviceProbe : IAsyncDisposable
{
    /// <summary>
    /// One look at every device. It ends within the probe's deadline even when the driver never answers; calls made at the same
    /// time wait for each other.
    /// </summary>
    /// <exception cref="OperationCanceledException">The caller gave up.</exception>
    Task<DeviceInventory> ProbeAsync(CancellationToken cancellation);
}
