using System.Globalization;
using System.Runtime.InteropServices;
using Tensormesh.Soak;
using Tensormesh.TestKit;

// Figures go to standard output, one JSON line each; what a person may want to see meanwhile goes to standard error.
if (args is not [var text] || !int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out var minutes) || minutes < 1)
{
    await Console.Error.WriteLineAsync("say how many minutes to soak: make soak SOAK_MINUTES=20");
    return 2;
}

var seed = int.TryParse(Environment.GetEnvironmentVariable("TENSORMESH_SEED"), NumberStyles.Integer, CultureInfo.InvariantCulture, out var given) ? given : Random.Shared.Next();
using var interrupted = new CancellationTokenSource();
Console.CancelKeyPress += (_, press) =>
{
    // The servers that were started must be stopped first.
    press.Cancel = true;
    interrupted.Cancel();
};
// The web hosts within this process would take it for themselves.
using var terminated = PosixSignalRegistration.Create(PosixSignal.SIGTERM, context =>
{
    context.Cancel = true;
    interrupted.Cancel();
});

try
{
    Tally.Say($"{minutes} minutes, TENSORMESH_SEED={seed}");
    await using var stage = await Stage.StartAsync(line => Tally.Say($"{line}"), interrupted.Token);
    return await new Soaking(stage, minutes, seed).RunAsync(interrupted.Token);
}
catch (OperationCanceledException) when (interrupted.IsCancellationRequested)
{
    return 130;
}
