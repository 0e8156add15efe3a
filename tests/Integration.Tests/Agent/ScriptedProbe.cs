using System.Text.Json;
using Tensormesh.Devices;

namespace Tensormesh.Integration.Tests.Agents;

/// <summary>What a probe would see of a node, told as JSON by the test.</summary>
internal sealed class ScriptedProbe(TimeProvider time) : IDeviceProbe
{
    private volatile string json = "";
    private int looks;

    /// <summary>How often it was asked.</summary>
    public int Looks => Volatile.Read(ref looks);

    public void Tell(DeviceInventory inventory) => json = JsonSerializer.Serialize(inventory);

    public Task<DeviceInventory> ProbeAsync(CancellationToken cancellation)
    {
        Interlocked.Increment(ref looks);
        return Task.FromResult(JsonSerializer.Deserialize<DeviceInventory>(json)! with { ObservedAt = time.GetUtcNow() });
    }

    public ValueTask DisposeAsync() => ValueTask.CompletedTask;
}
