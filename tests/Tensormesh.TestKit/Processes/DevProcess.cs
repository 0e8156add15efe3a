using System.Diagnostics;

namespace Tensormesh.TestKit;

/// <summary>One long-running part of the dev cluster: its process, its log, and what to say when it dies.</summary>
internal sealed class DevProcess : IAsyncDisposable
{
    private const int LogTailLines = 25;

    private readonly ClusterRecord _record;
    private readonly Process _process;
    private readonly string _logFile;

    private DevProcess(ClusterRecord record, string name, Process process, ProcessIdentity identity, string logFile)
    {
        _record = record;
        Name = name;
        _process = process;
        Identity = identity;
        _logFile = logFile;
    }

    public string Name { get; }
    public ProcessIdentity Identity { get; }
    public bool HasExited => _process.HasExited;

    /// <summary>Null while it runs.</summary>
    public int? ExitCode => _process.HasExited ? _process.ExitCode : null;

    public string LogFile => _logFile;

    public static async Task<DevProcess> StartAsync(ClusterRecord record, string name, string file, IEnumerable<string> arguments)
    {
        var logFile = Path.Combine(record.Directory, "logs", name + ".log");
        var process = await ProcessLauncher.StartAsync(logFile, file, arguments, record.Directory);
        var identity = ProcFs.Identify(process.Id, name) ?? new ProcessIdentity(process.Id, 0, name);
        record.Add(identity);
        return new DevProcess(record, name, process, identity, logFile);
    }

    /// <summary>Throws with the end of the log when the process is gone.</summary>
    public void ThrowIfExited()
    {
        if (_process.HasExited)
            throw new InvalidOperationException($"{Name} exited with {_process.ExitCode}. The end of {_logFile}:\n{LogTail()}");
    }

    /// <summary>Polls until the condition holds; a process that dies meanwhile, or a passed limit, throws with the log's end.</summary>
    public async Task WaitUntilAsync(
        string what, Func<CancellationToken, Task<bool>> condition, TimeSpan limit, CancellationToken cancellation)
    {
        var began = Stopwatch.GetTimestamp();
        while (!await condition(cancellation))
        {
            ThrowIfExited();
            if (Stopwatch.GetElapsedTime(began) > limit)
                throw new TimeoutException($"{Name} was not {what} within {limit.TotalSeconds:0} s. The end of {_logFile}:\n{LogTail()}");
            await Task.Delay(TimeSpan.FromMilliseconds(50), TimeProvider.System, cancellation);
        }
    }

    /// <summary>Asks the process to end, and kills it when it has not ended within the limit.</summary>
    public async Task StopAsync(TimeSpan grace)
    {
        if (grace > TimeSpan.Zero)
        {
            ProcFs.Signal(Identity, ProcFs.SigTerm);
            await ProcFs.WaitForEndAsync(Identity, grace);
        }

        ProcFs.Signal(Identity, ProcFs.SigKill);
        await _process.WaitForExitAsync(CancellationToken.None);
        _record.Remove(Identity);
    }

    public async ValueTask DisposeAsync()
    {
        await StopAsync(TimeSpan.Zero);
        _process.Dispose();
    }

    private string LogTail()
    {
        try
        {
            return string.Join('\n', File.ReadLines(_logFile).TakeLast(LogTailLines));
        }
        catch (IOException)
        {
            return "(no log)";
        }
    }
}
