using System.Collections.Concurrent;
using System.Diagnostics;

namespace Tensormesh.TestKit;

/// <summary>
/// Starts processes that the kernel kills when their owner dies.
///
/// The kernel's parent-death signal is tied to the *thread* that forked, and threads of the pool come and
/// go: a child started from one of them dies when that thread retires. So one thread, which lives as long
/// as the process, does every fork.
/// </summary>
internal static class ProcessLauncher
{
    private static readonly BlockingCollection<Action> Requests = [];

    static ProcessLauncher()
    {
        var thread = new Thread(() =>
        {
            foreach (var request in Requests.GetConsumingEnumerable())
                request();
        })
        { IsBackground = true, Name = "process launcher" };
        thread.Start();
    }

    /// <summary>
    /// Starts the command in a session of its own, so that Ctrl-C reaches the owner alone, with both output
    /// streams appended to the log. The process keeps the number of the shell that sets this up.
    /// </summary>
    public static Task<Process> StartAsync(string logFile, string file, IEnumerable<string> arguments, string? workingDirectory = null)
    {
        var start = new ProcessStartInfo("/bin/sh") { WorkingDirectory = workingDirectory ?? "/" };
        foreach (var argument in (string[])["-c", "exec setsid setpriv --pdeathsig KILL \"$@\" >>\"$0\" 2>&1 </dev/null", logFile, file])
            start.ArgumentList.Add(argument);
        foreach (var argument in arguments)
            start.ArgumentList.Add(argument);
        start.Environment["PATH"] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:" + start.Environment["PATH"];

        var started = new TaskCompletionSource<Process>(TaskCreationOptions.RunContinuationsAsynchronously);
        Requests.Add(() =>
        {
            try
            {
                started.SetResult(Process.Start(start)!);
            }
            catch (Exception failure) when (failure is System.ComponentModel.Win32Exception or InvalidOperationException)
            {
                started.SetException(failure);
            }
        });
        return started.Task;
    }
}
