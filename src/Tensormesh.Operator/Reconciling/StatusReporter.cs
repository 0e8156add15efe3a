using System.Collections.Concurrent;
using k8s;
using k8s.Models;
using Tensormesh.Resources;

namespace Tensormesh.Operator.Reconciling;

/// <summary>The only writer of GpuDeployment status, and of the Events that tell when it changed its mind.</summary>
internal sealed class StatusReporter(StatusWriter writer, EventRecorder events, TimeProvider time)
{
    /// <summary>
    /// The words of a refusal hold a balance, which moves all the time while other work burns. A write that changes the words alone waits this long
    /// after the one before it: each write wakes the loop that made it, and the two would chase each other.
    /// </summary>
    private static readonly TimeSpan Rewording = TimeSpan.FromSeconds(30);

    private readonly ConcurrentDictionary<string, DateTimeOffset> refusedAt = new(StringComparer.Ordinal);

    /// <returns>When to report again what was not written now; null when nothing is owed.</returns>
    public async Task<DateTimeOffset?> ReportAsync(GpuDeployment deployment, StatusReport report, CancellationToken cancellation)
    {
        var before = deployment.Status;
        var after = Render(deployment, report);
        var (uid, now) = (deployment.Metadata.Uid, time.GetUtcNow());
        if (!IsRefusal(after)) refusedAt.TryRemove(uid, out _);
        else if (before is not null && SameButForWords(before, after))
        {
            if (Same(before, after)) return null;
            var due = refusedAt.GetValueOrDefault(uid) + Rewording;
            if (now < due) return due;
        }

        await writer.WriteAsync(deployment, GpuDeployment.PluralName, before, after, cancellation).ConfigureAwait(false);
        if (IsRefusal(after)) refusedAt[uid] = now;
        await TellAsync(deployment, before, after, cancellation).ConfigureAwait(false);
        return null;
    }

    public void Forget(string uid) => refusedAt.TryRemove(uid, out _);

    private static bool IsRefusal(GpuDeploymentStatus status) => ConditionList.Find(status.Conditions, ConditionTypes.BillingAuthorized)?.Status == "False";

    private static bool SameButForWords(GpuDeploymentStatus left, GpuDeploymentStatus right) => Same(WithoutWords(left), WithoutWords(right));

    private static bool Same(GpuDeploymentStatus left, GpuDeploymentStatus right) => KubernetesJson.Serialize(left) == KubernetesJson.Serialize(right);

    private static GpuDeploymentStatus WithoutWords(GpuDeploymentStatus status)
    {
        var copy = KubernetesJson.Deserialize<GpuDeploymentStatus>(KubernetesJson.Serialize(status));
        foreach (var condition in copy.Conditions ?? []) condition.Message = "";
        return copy;
    }

    private GpuDeploymentStatus Render(GpuDeployment deployment, StatusReport report) => new()
    {
        ObservedGeneration = deployment.Metadata.Generation,
        Replicas = report.Replicas,
        ReadyReplicas = report.ReadyReplicas,
        Selector = $"{WellKnown.DeploymentUidLabel}={deployment.Metadata.Uid}",
        Gpus = report.Gpus,
        GpuProduct = report.Product?.Name,
        HourlyRate = report.HourlyRate?.ToDecimalString(),
        CostToDate = report.CostToDate?.ToDecimalString() ?? deployment.Status?.CostToDate,
        Conditions = ConditionList.Merge(deployment.Status?.Conditions, report.Conditions, deployment.Metadata.Generation, time.GetUtcNow()),
    };

    private async Task TellAsync(GpuDeployment deployment, GpuDeploymentStatus? before, GpuDeploymentStatus after, CancellationToken cancellation)
    {
        foreach (var type in (string[])[ConditionTypes.BillingAuthorized, ConditionTypes.Suspended, ConditionTypes.Ready])
        {
            var was = ConditionList.Find(before?.Conditions, type);
            var @is = ConditionList.Find(after.Conditions, type);
            if (@is is null || (was?.Status == @is.Status && was.Reason == @is.Reason)) continue;
            if (EventFor(type, was, @is) is not { } story) continue;
            await events.RecordAsync(deployment, story.Warning, story.Reason, @is.Message, cancellation).ConfigureAwait(false);
        }
    }

    /// <summary>One Event for each change that a person would want to know of; a refusal is told once, under its own reason.</summary>
    private static (bool Warning, string Reason)? EventFor(string type, V1Condition? was, V1Condition @is) => (type, @is.Status) switch
    {
        (ConditionTypes.BillingAuthorized, "True") when was?.Status != "True" => (false, "BillingAuthorized"),
        (ConditionTypes.BillingAuthorized, "False") => (true, @is.Reason),
        (ConditionTypes.BillingAuthorized, "Unknown") => (true, @is.Reason),
        (ConditionTypes.Suspended, "True") when was is { Status: "False" } => (true, "Suspended"),
        (ConditionTypes.Suspended, "False") when was is { Status: "True" } => (false, "Resumed"),
        (ConditionTypes.Ready, "True") when @is.Reason == ConditionReasons.Running => (false, "Running"),
        _ => null,
    };
}
