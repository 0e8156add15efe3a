using System.Net;
using k8s;
using k8s.Autorest;
using k8s.Models;

namespace Tensormesh.TestKit;

/// <summary>
/// One pod's life on a hollow node, as its kubelet would live it: created, pulled, run, restarted, stopped, deleted. Each stage waits for
/// its own end, for the pod's deletion and for a change of its faults, whichever is first.
/// </summary>
internal sealed class HollowPod(V1Pod pod, HollowNode node, HollowNodes nodes, string podIp)
{
    /// <summary>A container that ran this long has its crashes forgiven, as a kubelet's back-off forgives them.</summary>
    private static readonly TimeSpan BackOffForgivenAfter = TimeSpan.FromMinutes(10);

    private const int KilledExitCode = 137;

    private readonly Lock _lock = new();
    private readonly Dictionary<string, (string Status, DateTime Since)> _conditionSince = new(StringComparer.Ordinal);
    private V1Pod _pod = pod;
    private TaskCompletionSource _changed = new(TaskCreationOptions.RunContinuationsAsynchronously);

    private string _phase = "Pending";
    private V1ContainerState _state = HollowPodStatus.Waiting("ContainerCreating");
    private V1ContainerState? _lastState;
    private int _restartCount;
    private int _crashesInRow;
    private DateTime _startTime;
    private string? _podIp;
    private DateTimeOffset _started;
    private string? _answered;

    public string Uid { get; } = pod.Uid();

    public V1Pod Pod
    {
        get
        {
            lock (_lock)
            {
                return _pod;
            }
        }
    }

    private DateTimeOffset Now => nodes.Time.GetUtcNow();

    private HollowFault Fault => nodes.FaultOf(Pod, node);

    /// <summary>A node that is cut off does not learn of a deletion until it is back.</summary>
    private bool Deleting => node.Link.IsOpen && Pod.Metadata.DeletionTimestamp is not null;

    /// <summary>The node controller missed heartbeats and wrote that the pod is not ready. A kubelet that is back puts that right.</summary>
    private bool Contradicted => node.Link.IsOpen && _state.Running is not null && Pod is { Status.ContainerStatuses: [{ State.Running: not null }, ..] } seen
        && seen.ResourceVersion() != _answered && seen.Status.Conditions?.Any(condition => condition is { Type: "Ready", Status: "False" }) == true;

    private bool Ended => _phase is "Succeeded" or "Failed";

    public void Observe(V1Pod pod)
    {
        lock (_lock)
        {
            _pod = pod;
        }

        Wake();
    }

    /// <summary>Something that a stage may wait for has changed: the pod, a fault, the node's line.</summary>
    public void Wake()
    {
        TaskCompletionSource changed;
        lock (_lock)
        {
            (changed, _changed) = (_changed, new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously));
        }

        changed.SetResult();
    }

    /// <summary>Completes when the pod is deleted here, or was gone already; throws <see cref="OperationCanceledException"/> when cancelled.</summary>
    public async Task LiveAsync(CancellationToken cancellationToken)
    {
        try
        {
            await node.Link.EnterAsync(cancellationToken);
            node.Link.Leave();
            TakeOn();
            if (_state.Running is null && !Ended)
            {
                await CreateAsync(cancellationToken);
            }

            while (!Deleting && !Ended)
            {
                await RunContainersAsync(cancellationToken);
            }

            await UntilAsync(() => Deleting ? TimeSpan.Zero : null, cancellationToken);
            await StopAsync(cancellationToken);
            await DeleteAsync(cancellationToken);
        }
        catch (HttpOperationException e) when (IsGone(e))
        {
            // A kubelet forgets it as well.
        }
    }

    /// <summary>The pod does not exist any more, or another one has its name and refuses the uid in the patch.</summary>
    private static bool IsGone(HttpOperationException e) => e.Response.StatusCode switch
    {
        HttpStatusCode.NotFound => true,
        HttpStatusCode.UnprocessableEntity => e.Response.Content?.Contains("metadata.uid", StringComparison.Ordinal) == true,
        _ => false,
    };

    /// <summary>Goes on from what the pod's status says, so that containers outlive the process that imagines them.</summary>
    private void TakeOn()
    {
        var status = Pod.Status;
        _startTime = status?.StartTime ?? WholeSeconds(Now);
        foreach (var condition in status?.Conditions ?? [])
        {
            _conditionSince[condition.Type] = (condition.Status, condition.LastTransitionTime ?? _startTime);
        }

        if (status?.ContainerStatuses is not [var container, ..])
        {
            return;
        }

        _phase = status.Phase;
        _podIp = status.PodIP;
        _restartCount = container.RestartCount;
        _lastState = container.LastState?.Terminated is null ? null : container.LastState;
        _state = container.State ?? _state;
        if (container.State?.Running?.StartedAt is { } startedAt)
        {
            _started = new DateTimeOffset(startedAt, TimeSpan.Zero);
        }
    }

    private async Task CreateAsync(CancellationToken cancellationToken)
    {
        var bound = Now;
        await ReportAsync("Pending", HollowPodStatus.Waiting("ContainerCreating"), cancellationToken);
        await UntilAsync(
            () => Deleting ? TimeSpan.Zero
                : Fault.PullHangs ? null
                : bound + (Fault.StartLatency ?? node.Options.StartLatency) - Now,
            cancellationToken);
    }

    /// <summary>One start of the containers, to their own end and what follows from it, or to the pod's deletion.</summary>
    private async Task RunContainersAsync(CancellationToken cancellationToken)
    {
        if (_state.Running is null)
        {
            _started = Now;
            _podIp ??= podIp;
            await ReportAsync("Running", HollowPodStatus.Running(WholeSeconds(_started)), cancellationToken);
        }

        await UntilAsync(() => Deleting || Contradicted ? TimeSpan.Zero : UntilOwnExit(), cancellationToken);
        if (!Deleting && Contradicted)
        {
            _answered = Pod.ResourceVersion();
            await ReportAsync(_phase, _state, cancellationToken);
            return;
        }

        if (!Deleting && Fault is { ExitAfter: not null, ExitCode: var exitCode })
        {
            await EndOrRestartAsync(exitCode, cancellationToken);
        }
    }

    private TimeSpan? UntilOwnExit() => Fault.ExitAfter is { } after ? _started + after - Now : null;

    private async Task EndOrRestartAsync(int exitCode, CancellationToken cancellationToken)
    {
        var finished = Now;
        var ended = HollowPodStatus.Terminated(exitCode, WholeSeconds(_started), WholeSeconds(finished));
        var restarts = Pod.Spec.RestartPolicy switch
        {
            "Never" => false,
            "OnFailure" => exitCode != 0,
            _ => true,
        };
        await ReportAsync(restarts ? "Running" : exitCode == 0 ? "Succeeded" : "Failed", ended, cancellationToken);
        if (!restarts)
        {
            return;
        }

        _crashesInRow = finished - _started >= BackOffForgivenAfter ? 1 : _crashesInRow + 1;
        _lastState = ended;
        if (BackOff(_crashesInRow) is { Ticks: > 0 } wait)
        {
            var message = $"back-off {wait.TotalSeconds:0.###}s restarting failed container";
            await ReportAsync("Running", HollowPodStatus.Waiting("CrashLoopBackOff", message), cancellationToken);
            await UntilAsync(() => Deleting ? TimeSpan.Zero : finished + wait - Now, cancellationToken);
        }

        _restartCount += Deleting ? 0 : 1;
    }

    /// <summary>None before the first restart, then doubling.</summary>
    private TimeSpan BackOff(int crashesInRow)
    {
        const int doublingsMax = 20;
        if (crashesInRow < 2)
        {
            return TimeSpan.Zero;
        }

        var wait = node.Options.CrashBackOff * (1L << Math.Min(crashesInRow - 2, doublingsMax));
        return wait < node.Options.CrashBackOffMax ? wait : node.Options.CrashBackOffMax;
    }

    /// <summary>SIGTERM, then the container's own end or the grace period's; the status tells how it ended before the pod goes.</summary>
    private async Task StopAsync(CancellationToken cancellationToken)
    {
        if (_state.Running is null)
        {
            if (!Ended && node.Options.TerminalPhaseOnDeletion)
            {
                await ReportAsync("Failed", _state, cancellationToken);
            }

            return;
        }

        // A kubelet counts the grace period from when it notices; a later deletion may shorten it.
        var noticed = Now;
        TimeSpan UntilKilled() => noticed + TimeSpan.FromSeconds(Pod.Metadata.DeletionGracePeriodSeconds ?? 0) - Now;
        TimeSpan? UntilHeeded() => Fault.IgnoresSigterm ? null : noticed + node.Options.StopLatency - Now;
        await UntilAsync(() => UntilHeeded() is { } heeded && heeded < UntilKilled() ? heeded : UntilKilled(), cancellationToken);

        var exitCode = UntilHeeded() is { Ticks: <= 0 } ? node.Options.StopExitCode : KilledExitCode;
        var ended = HollowPodStatus.Terminated(exitCode, WholeSeconds(_started), WholeSeconds(Now));
        var phase = !node.Options.TerminalPhaseOnDeletion ? _phase : exitCode == 0 ? "Succeeded" : "Failed";
        await ReportAsync(phase, ended, cancellationToken);
    }

    /// <summary>With finalizers on it the pod stays visible after this, and is no concern of a kubelet any more.</summary>
    private Task DeleteAsync(CancellationToken cancellationToken) => nodes.ForceDeleteAsync(Pod, node, cancellationToken);

    private Task ReportAsync(string phase, V1ContainerState state, CancellationToken cancellationToken)
    {
        (_phase, _state) = (phase, state);
        nodes.Witness?.Invoke(Pod, state);
        var status = new HollowPodStatus
        {
            Phase = phase,
            State = state,
            LastState = _lastState,
            RestartCount = _restartCount,
            StartTime = _startTime,
            HostIp = node.InternalIp,
            PodIp = _podIp,
        };
        var current = Pod;
        var patch = new V1Patch(status.Render(current, _conditionSince, WholeSeconds(Now)), V1Patch.PatchType.StrategicMergePatch);
        return nodes.CallAsync(
            node,
            token => nodes.Client.CoreV1.PatchNamespacedPodStatusAsync(patch, current.Name(), current.Namespace(), cancellationToken: token),
            cancellationToken);
    }

    /// <summary>Waits until <paramref name="left"/> is zero or less; null waits for a change, and every change asks again.</summary>
    private async Task UntilAsync(Func<TimeSpan?> left, CancellationToken cancellationToken)
    {
        while (true)
        {
            cancellationToken.ThrowIfCancellationRequested();
            Task changed;
            lock (_lock)
            {
                changed = _changed.Task;
            }

            switch (left())
            {
                case { Ticks: <= 0 }:
                    return;
                case { } time:
                    await changed.WaitAsync(time, nodes.Time, cancellationToken).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
                    break;
                case null:
                    await changed.WaitAsync(cancellationToken);
                    break;
            }
        }
    }

    /// <summary>Kubelets write instants in whole seconds, cut off and not rounded.</summary>
    private static DateTime WholeSeconds(DateTimeOffset instant) => new(instant.UtcTicks / TimeSpan.TicksPerSecond * TimeSpan.TicksPerSecond, DateTimeKind.Utc);
}
