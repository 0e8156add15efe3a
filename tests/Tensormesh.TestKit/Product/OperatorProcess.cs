namespace Tensormesh.TestKit;

/// <summary>An operator beside the installation's own, which tests pause, starve of rights or give a clock that steps.</summary>
public sealed class OperatorProcess : IAsyncDisposable
{
    private readonly DevProcess process;

    internal OperatorProcess(DevProcess process, Uri metricsUrl)
    {
        this.process = process;
        MetricsUrl = metricsUrl;
    }

    public Uri MetricsUrl { get; }
    public string Log => process.LogFile;
    public int Pid => process.Identity.Pid;

    /// <summary>Null while it runs.</summary>
    public int? ExitCode => process.ExitCode;

    /// <summary>Returns when its local copies are complete, whether or not it leads.</summary>
    /// <exception cref="InvalidOperationException">It ended before; the message holds its log's end.</exception>
    public Task WaitUntilReadyAsync(CancellationToken cancellation)
        => Installation.WaitForHttpAsync(process, new Uri(MetricsUrl, "/readyz"), cancellation);

    /// <summary>Lets no instruction of it run until <see cref="Resume"/>.</summary>
    public void Pause() => ProcFs.Signal(process.Identity, ProcFs.SigStop);

    public void Resume() => ProcFs.Signal(process.Identity, ProcFs.SigCont);

    /// <summary>Ends it as a rolling update does, or at once when it does not end.</summary>
    public Task StopAsync() => process.StopAsync(TimeSpan.FromSeconds(20));

    /// <summary>Ends it as a node failure does.</summary>
    public ValueTask DisposeAsync() => process.DisposeAsync();
}
