using k8s.Models;
using Tensormesh.Resources;

namespace Tensormesh.Operator.Reconciling;

/// <summary>The only writer of GpuDeployment status, and of the Events that tell when it changed its mind.</summary>
internal sealed class StatusReporter(StatusWriter writer, EventRecorder events, TimeProvider time)
{
    public async Task ReportAsync(GpuDeployment deployment, StatusReport report, CancellationToken cancellation)
    {
        var before = deployment.Status;
        var after = Render(deployment, report);
        await writer.WriteAsync(deployment, GpuDeployment.PluralName, before, after, cancellation).ConfigureAwait(false);
        await TellAsync(deployment, before, after, cancellation).ConfigureAwait(false);
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
