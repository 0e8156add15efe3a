using Tensormesh.Dev;
using Tensormesh.TestKit;

// tensormesh-dev run    a dev cluster with the product on it, in the foreground; writes .dev/env
// tensormesh-dev demo   the same, then the story of the product through kubectl and curl; ends by itself
// tensormesh-dev images makes the images that a real node runs, so that no test waits for them
// tensormesh-dev screenshots pictures of the console, for the README
// tensormesh-dev sweep  removes what a killed run left behind
using var stop = new CancellationTokenSource();
Console.CancelKeyPress += (_, pressed) =>
{
    pressed.Cancel = true;
    stop.Cancel();
};
using var terminated = System.Runtime.InteropServices.PosixSignalRegistration.Create(System.Runtime.InteropServices.PosixSignal.SIGTERM, signal =>
{
    signal.Cancel = true;
    stop.Cancel();
});

try
{
    return args switch
    {
        ["run"] => await Session.RunAsync(stop.Token),
        ["demo"] => await Session.DemoAsync(stop.Token),
        ["images"] => await Session.ImagesAsync(stop.Token),
        ["screenshots"] => await Session.ScreenshotsAsync(stop.Token),
        ["sweep"] => await Session.SweepAsync(stop.Token),
        _ => Usage(),
    };
}
catch (OperationCanceledException) when (stop.IsCancellationRequested)
{
    return 130;
}
catch (Exception fault) when (fault is InvalidOperationException or TimeoutException or PlatformNotSupportedException or FileNotFoundException or NotSupportedException)
{
    await Console.Error.WriteLineAsync("\ntensormesh-dev: " + fault.Message);
    return 1;
}

static int Usage()
{
    Console.Error.WriteLine("usage: tensormesh-dev run | demo | images | screenshots | sweep");
    return 2;
}
