using System.Diagnostics;
using System.Net;
using k8s.Autorest;
using Tensormesh.Billing;
using Tensormesh.Operator.Telemetry;
using Tensormesh.Operator.Watching;
using Tensormesh.Resources;

namespace Tensormesh.Operator.Reconciling;

/// <summary>What every round has around it, whichever of the loops it is of: its time, its span, what its lines concern, and what its failure means.</summary>
internal sealed partial class Rounds(ClusterView cluster, OperatorMetrics metrics, TimeProvider time, ILogger<Rounds> logger)
{
    private readonly TaskCompletionSource fenced = new(TaskCreationOptions.RunContinuationsAsynchronously);

    /// <summary>Ends with the refusal that a write of this operator got because another has taken over.</summary>
    public Task Fenced => fenced.Task;

    /// <summary>Works off a queue until it is cancelled.</summary>
    /// <param name="work">One round of the object with that key; when to look at it again.</param>
    public Task RunAsync(string kind, WorkQueue queue, int workers, Func<string, CancellationToken, Task<DateTimeOffset?>> work, CancellationToken cancellation)
        => queue.RunAsync(workers, (key, token) => TimeAsync(kind, key, work, token), (key, fault) => OnFault(kind, key, fault), cancellation);

    private async Task<DateTimeOffset?> TimeAsync(string kind, string key, Func<string, CancellationToken, Task<DateTimeOffset?>> work, CancellationToken cancellation)
    {
        var deployment = Find(kind, key);
        using var span = OperatorTrace.Round(kind, key, deployment);
        using var scope = Concerning(deployment, span?.TraceId);
        var began = time.GetTimestamp();
        try
        {
            var next = await work(key, cancellation).ConfigureAwait(false);
            metrics.ReconcileTotal.WithLabels(kind, "done").Inc();
            return next;
        }
        finally
        {
            metrics.ReconcileSeconds.WithLabels(kind).Observe(time.GetElapsedTime(began).TotalSeconds);
        }
    }

    private GpuDeployment? Find(string kind, string key) => kind == GpuDeployment.KubeKind ? cluster.GpuDeployments.Find(key) : null;

    private IDisposable? Concerning(GpuDeployment? deployment, ActivityTraceId? trace) => deployment is null ? null : Logs.Concerning(
        logger, ObjectKey.Of(deployment), cluster.AccountOf(deployment.Metadata.NamespaceProperty)?.Value, (trace ?? OperatorTrace.ChangeOf(deployment))?.ToHexString());

    private void OnFault(string kind, string key, Exception fault)
    {
        using var scope = Concerning(Find(kind, key), null);
        metrics.ReconcileTotal.WithLabels(kind, "fault").Inc();
        if (OperatorEpoch.IsOver(fault))
        {
            fenced.TrySetException(fault);
            return;
        }

        if (LedgerAvailability.IsUnavailable(fault)) metrics.LedgerUp.Set(0);
        // A conflict is the ordinary answer to a write on an older version: the newer one is on its way here.
        if (fault is HttpOperationException { Response.StatusCode: HttpStatusCode.Conflict }) LogConflict(logger, kind, key);
        // A namespace that goes away refuses what was decided before that was seen here: the next look decides otherwise.
        else if (fault is HttpOperationException { Response.StatusCode: HttpStatusCode.Forbidden } ending
            && ending.Response.Content?.Contains(Applier.NamespaceTerminating, StringComparison.Ordinal) == true) LogConflict(logger, kind, key);
        else if (fault is LeaseLapsedException) LogLapsed(logger, kind, key);
        else if (fault is HttpOperationException refused) LogRefused(logger, kind, key, (int)refused.Response.StatusCode, refused.Response.Content);
        else LogFault(logger, fault, kind, key);
    }

    [LoggerMessage(Level = LogLevel.Warning, Message = "{Kind} {Key}: nothing was changed, because the lease was not renewed in time")]
    private static partial void LogLapsed(ILogger logger, string kind, string key);

    [LoggerMessage(Level = LogLevel.Debug, Message = "{Kind} {Key}: written on an older version; looked at again")]
    private static partial void LogConflict(ILogger logger, string kind, string key);

    [LoggerMessage(Level = LogLevel.Warning, Message = "{Kind} {Key}: the API server refused with {Status}: {Reason}")]
    private static partial void LogRefused(ILogger logger, string kind, string key, int status, string reason);

    [LoggerMessage(Level = LogLevel.Error, Message = "{Kind} {Key}: failed, and will be tried again")]
    private static partial void LogFault(ILogger logger, Exception fault, string kind, string key);
}
