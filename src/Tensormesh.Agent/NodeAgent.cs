using Tensormesh.Agent.Allocating;
using Tensormesh.Agent.Reporting;
using Tensormesh.Agent.Telemetry;
using Tensormesh.Devices;
using Tensormesh.Resources;

namespace Tensormesh.Agent;

/// <summary>The loop: look, ask the kubelet, and tell what is new.</summary>
internal sealed partial class NodeAgent(
    IDeviceProbe probe, Allocations allocations, GpuNodes nodes, NodeLabels labels, AgentOptions options, AgentMetrics metrics, Readiness readiness,
    TimeProvider time, ILogger<NodeAgent> logger) : BackgroundService
{
    private GpuNodeStatus? known;
    private GpuNodeStatus? told;

    protected override async Task ExecuteAsync(CancellationToken stopping)
    {
        var remembers = false;
        while (!stopping.IsCancellationRequested)
        {
            var began = time.GetTimestamp();
            try
            {
                // What an earlier process told is where this one goes on: without it, the times of what is broken would start anew.
                if (!remembers) known = await nodes.ReadAsync(stopping).ConfigureAwait(false);
                remembers = true;
                await LookOnceAsync(stopping).ConfigureAwait(false);
            }
            catch (OperationCanceledException) when (stopping.IsCancellationRequested)
            {
                return;
            }
            catch (Exception fault)
            {
                metrics.Rounds.WithLabels("fault").Inc();
                readiness.Failed(fault.Message);
                LogFault(logger, options.NodeName, fault.Message);
            }

            await PauseAsync(options.ProbeInterval - time.GetElapsedTime(began), stopping).ConfigureAwait(false);
        }
    }

    private async Task LookOnceAsync(CancellationToken stopping)
    {
        var began = time.GetTimestamp();
        var inventory = await probe.ProbeAsync(stopping).ConfigureAwait(false);
        metrics.ProbeSeconds.Observe(time.GetElapsedTime(began).TotalSeconds);
        var reading = await allocations.ReadAsync(stopping).ConfigureAwait(false);
        var before = known;
        known = NodeReport.Next(before, new NodeObservation(options.NodeName, options.HeartbeatInterval, inventory, reading));
        metrics.Show(inventory, known);
        LogChanges(before, known);
        if (Telling.IsDue(told, known, options.HeartbeatInterval))
        {
            await nodes.TellAsync(known, stopping).ConfigureAwait(false);
            told = known;
            metrics.Told.Set(time.GetUtcNow().ToUnixTimeMilliseconds() / 1000.0);
            readiness.Succeeded();
            // Each report outlives the young heap and is old garbage a round later: left to itself that comes to some MB before it is collected. A
            // millisecond or two with each heartbeat gives it back to the node.
            GC.Collect(GC.MaxGeneration, GCCollectionMode.Aggressive, blocking: true, compacting: true);
        }

        await labels.ApplyAsync(known, stopping).ConfigureAwait(false);
        metrics.Rounds.WithLabels("done").Inc();
    }

    private async Task PauseAsync(TimeSpan pause, CancellationToken stopping)
    {
        try
        {
            if (pause > TimeSpan.Zero) await Task.Delay(pause, time, stopping).ConfigureAwait(false);
        }
        catch (OperationCanceledException)
        {
        }
    }

    private void LogChanges(GpuNodeStatus? before, GpuNodeStatus now)
    {
        foreach (var device in now.Devices ?? [])
        {
            var was = before?.Devices?.FirstOrDefault(each => each.Uuid == device.Uuid);
            if (was is not null && (was.Health, was.Reason) == (device.Health, device.Reason)) continue;
            if (device.Health == GpuHealth.Healthy) LogHealthy(logger, device.Uuid, device.Product);
            else LogNotHealthy(logger, device.Uuid, device.Health, device.Reason, device.Message);
        }
    }

    [LoggerMessage(Level = LogLevel.Warning, Message = "Node {Node} could not be reported on, and is looked at again: {Reason}")]
    private static partial void LogFault(ILogger logger, string node, string reason);

    [LoggerMessage(Level = LogLevel.Information, Message = "GPU {Gpu} ({Product}) is healthy")]
    private static partial void LogHealthy(ILogger logger, string? gpu, string? product);

    [LoggerMessage(Level = LogLevel.Warning, Message = "GPU {Gpu} is {Health} ({Reason}): {Detail}")]
    private static partial void LogNotHealthy(ILogger logger, string? gpu, string health, string? reason, string? detail);
}
