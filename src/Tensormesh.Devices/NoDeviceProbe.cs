namespace Tensormesh.Devices;

/// <summary>For a node that is known to have no NVIDIA GPU, so that nothing is loaded and no process is started.</summary>
public sealed class NoDeviceProbe(TimeProvider time) : IDeviceProbe
{
    public Task<DeviceInventory> ProbeAsync(CancellationToken cancellation) => Task.FromResult(new DeviceInventory
    {
        ObservedAt = time.GetUtcNow(),
        Driver = DriverState.NoDriver,
        Message = "this node was configured to have no NVIDIA GPU",
    });

    public ValueTask DisposeAsync() => ValueTask.CompletedTask;
}
