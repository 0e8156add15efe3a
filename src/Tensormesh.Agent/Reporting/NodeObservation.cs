using Tensormesh.Agent.Allocating;
using Tensormesh.Devices;

namespace Tensormesh.Agent.Reporting;

/// <summary>All that one round saw.</summary>
/// <param name="Heartbeat">How long nothing is told when nothing changes.</param>
internal sealed record NodeObservation(string NodeName, TimeSpan Heartbeat, DeviceInventory Inventory, AllocationReading Allocations)
{
    public DateTimeOffset At => Inventory.ObservedAt;
}
