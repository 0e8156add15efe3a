using System.Runtime.InteropServices;
using Tensormesh.TestKit;

// A dev cluster in the foreground, until Ctrl-C or SIGTERM:
//
//   dotnet run --project tests/Tensormesh.TestKit -- [--hollow] [--gpu-b] [--state DIR]
//
// --hollow: gpu-a without real containers; --gpu-b: a second, hollow node; --state: where logs and data go.
// The last lines before it waits can be sourced by a shell.
var state = Array.IndexOf(args, "--state");
var options = new DevClusterOptions
{
    RealNode = !args.Contains("--hollow"),
    HollowGpuB = args.Contains("--gpu-b"),
    StateDirectory = state >= 0 && state + 1 < args.Length ? args[state + 1] : null,
};

using var stopping = new CancellationTokenSource();
void Stop(PosixSignalContext signal)
{
    signal.Cancel = true;
    stopping.Cancel();
}

using var interrupt = PosixSignalRegistration.Create(PosixSignal.SIGINT, Stop);
using var terminate = PosixSignalRegistration.Create(PosixSignal.SIGTERM, Stop);
try
{
    await using var cluster = await DevCluster.StartAsync(options, line => Console.WriteLine("# " + line), stopping.Token);
    Console.WriteLine($"export KUBECONFIG={cluster.KubeconfigPath}");
    Console.WriteLine($"export DATABASE_URL='{cluster.Postgres.ConnectionString}'");
    Console.WriteLine($"export TENSORMESH_STATE_DIRECTORY={cluster.StateDirectory}");
    Console.WriteLine("# running; Ctrl-C ends it");
    await Task.Delay(Timeout.InfiniteTimeSpan, TimeProvider.System, stopping.Token);
    return 0;
}
catch (OperationCanceledException) when (stopping.IsCancellationRequested)
{
    return 0;
}
catch (Exception failure) when (failure is InvalidOperationException or ArgumentException or TimeoutException)
{
    Console.Error.WriteLine(failure.Message);
    return 1;
}
