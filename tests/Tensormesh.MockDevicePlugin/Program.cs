using System.Runtime.InteropServices;
using Tensormesh.MockDevicePlugin;

if (args is ["--help" or "-h"])
{
    Console.Out.WriteLine(PluginOptions.Usage);
    return 0;
}

PluginOptions options;
GpuInventory inventory;
try
{
    options = PluginOptions.Parse(args);
    inventory = options.Driver is { } folder ? new GpuInventory(DriverFolder.ReadUuids(folder)) : GpuInventory.OfNode(options.Node, options.Count);
}
catch (Exception e) when (e is ArgumentException or IOException)
{
    Console.Error.WriteLine($"mock-device-plugin: {e.Message}\n{PluginOptions.Usage}");
    return 2;
}

var time = TimeProvider.System;
var journal = new Journal(time);

using var stopping = new CancellationTokenSource();
void Stop(PosixSignalContext signal)
{
    signal.Cancel = true;
    journal.Write($"{signal.Signal}: removing {options.Endpoint} and leaving");
    stopping.Cancel();
}

using var onTerm = PosixSignalRegistration.Create(PosixSignal.SIGTERM, Stop);
using var onInterrupt = PosixSignalRegistration.Create(PosixSignal.SIGINT, Stop);

var watching = options.HealthFile is { } file
    ? new HealthFile(file, inventory, journal, time).WatchAsync(stopping.Token)
    : Task.CompletedTask;
await new PluginSession(options, inventory, journal, time).RunAsync(stopping.Token);
try
{
    await watching;
}
catch (OperationCanceledException)
{
    // The watch has no end of its own; the signal ended it.
}

return 0;
