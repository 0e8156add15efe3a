using System.Diagnostics;
using System.Text.Json;
using k8s;
using k8s.Models;
using Tensormesh.Billing;
using Tensormesh.Operator.Reconciling;
using Tensormesh.Operator.Telemetry;
using Tensormesh.Operator.Watching;
using Tensormesh.Resources;

namespace Tensormesh.Operator.Admission;

/// <summary>
/// Gives the answer at <c>kubectl apply</c> that the reconciler would give a moment later. Advice: the reconciler is the law, so
/// the webhook reserves nothing, has no side effects (<c>--dry-run=server</c> asks the same question) and, when it is down, is skipped.
/// </summary>
internal sealed partial class AdmissionWebhook(
    ClusterView cluster, Observer observer, StandingMemory memory, CreditPolicy policy, OperatorMetrics metrics, TimeProvider time,
    ILogger<AdmissionWebhook> logger)
{
    public const string Path = "/validate";

    public static void Map(IEndpointRouteBuilder routes) => routes.MapPost(Path, async (HttpRequest http, AdmissionWebhook gate) =>
    {
        var review = await http.ReadFromJsonAsync<AdmissionReview>(http.HttpContext.RequestAborted).ConfigureAwait(false);
        if (review?.Request is null) return Results.BadRequest("an AdmissionReview with a request is expected");
        return Results.Json(new AdmissionReview { Response = await gate.ReviewAsync(review.Request, http.HttpContext.RequestAborted).ConfigureAwait(false) });
    });

    public Task<AdmissionResponse> ReviewAsync(AdmissionRequest request, CancellationToken cancellation)
        => AdmissionResponse.CountedAsync(metrics, OperatorMetrics.GateWebhook, AnswerInTimeAsync(request, cancellation));

    private async Task<AdmissionResponse> AnswerInTimeAsync(AdmissionRequest request, CancellationToken cancellation)
    {
        var (key, change) = (ObjectKey.Of(request.Namespace, request.Name ?? ""), ChangeOf(request.Object));
        using var span = OperatorTrace.Review(key, change);
        using var scope = Logs.Concerning(logger, key, cluster.AccountOf(request.Namespace)?.Value, (span?.TraceId ?? change)?.ToHexString());
        var began = time.GetTimestamp();
        try
        {
            return await AnswerAsync(request, cancellation).ConfigureAwait(false);
        }
        catch (JsonException malformed)
        {
            return Deny(request, 400, "BadRequest", malformed.Message);
        }
        finally
        {
            metrics.WebhookSeconds.Observe(time.GetElapsedTime(began).TotalSeconds);
        }
    }

    private async Task<AdmissionResponse> AnswerAsync(AdmissionRequest request, CancellationToken cancellation)
    {
        if (request.SubResource == "scale") return await ReviewScaleAsync(request, cancellation).ConfigureAwait(false);

        var after = KubernetesJson.Deserialize<GpuDeployment>(request.Object);
        var before = request.Operation == "UPDATE" ? KubernetesJson.Deserialize<GpuDeployment>(request.OldObject) : null;
        // What is going away is only being tidied up.
        if (after.Metadata.DeletionTimestamp is not null) return Allow(request);
        // The namespace of an object that is being created may stand only in the request.
        after.Metadata.NamespaceProperty ??= request.Namespace;
        Defaulting.Apply(after);
        if (before is not null) Defaulting.Apply(before);

        // An old object that breaks a newer rule must stay editable in its metadata and status.
        if (before is not null && SameSpec(before, after)) return Allow(request);
        var errors = before is null ? Validation.Validate(after) : Validation.ValidateUpdate(before, after);
        if (errors.Count > 0) return Deny(request, 422, "Invalid", string.Join("; ", errors));
        return await AskGateAsync(request, before, after, cancellation).ConfigureAwait(false);
    }

    /// <summary><c>kubectl scale</c> and autoscalers write the scale subresource: the object under review is a Scale, not a GpuDeployment.</summary>
    private async Task<AdmissionResponse> ReviewScaleAsync(AdmissionRequest request, CancellationToken cancellation)
    {
        var scale = KubernetesJson.Deserialize<V1Scale>(request.Object);
        if (cluster.GpuDeployments.Find(ObjectKey.Of(request.Namespace, request.Name ?? scale.Metadata.Name)) is not { } current) return Allow(request);
        var before = WithReplicas(current, current.Spec.Replicas);
        var after = WithReplicas(current, scale.Spec?.Replicas ?? 0);
        Defaulting.Apply(before);
        Defaulting.Apply(after);
        var errors = Validation.ValidateUpdate(before, after);
        if (errors.Count > 0) return Deny(request, 422, "Invalid", string.Join("; ", errors));
        return await AskGateAsync(request, before, after, cancellation).ConfigureAwait(false);
    }

    private async Task<AdmissionResponse> AskGateAsync(AdmissionRequest request, GpuDeployment? before, GpuDeployment after, CancellationToken cancellation)
    {
        // Only what asks for more is gated: a suspended deployment's owner may still edit its labels or scale it down.
        if (before is not null && !AsksForMore(before, after)) return Allow(request);
        if (before is null && await RememberedAsync(after, cancellation).ConfigureAwait(false) is (Verdict.Admit admitted, { } then))
        {
            Count(then.Account, admitted);
            return Allow(request, StatusReports.AccountGone(then));
        }

        var asOf = memory.Now;
        var seen = await observer.ObserveAsync(after, cancellation, withRuns: false).ConfigureAwait(false);
        if (seen.Ledger is not LedgerView.Known ledger)
        {
            OperatorTrace.Note(seen.Account, Verdict.Hold.Reason);
            return Allow(request, "the ledger cannot be read right now: the deployment is accepted, and starts once its balance has been checked");
        }

        var verdict = BillingGate.EvaluateStart(Decider.Request(seen, ledger, seen.WantedReplicas), ledger.Standing, policy, seen.Now);
        Count(seen.Account, verdict);
        if (verdict is not Verdict.Refuse refuse)
        {
            if (seen.WantedReplicas > 0 && ledger.Standing is { } admitting) memory.Keep(admitting.Account, asOf);
            return Allow(request, StatusReports.AccountGone(seen));
        }

        LogDenied(logger, request.Namespace, after.Metadata.Name ?? after.Metadata.GenerateName, refuse.Reason);
        return Deny(request, 403, refuse.Reason.ToString(), refuse.Message);
    }

    private void Count(AccountId? account, Verdict verdict)
    {
        var name = GpuDeploymentReconciler.VerdictName(verdict);
        metrics.Verdicts.WithLabels("webhook", name).Inc();
        OperatorTrace.Note(account, name);
    }

    /// <summary>The API server has given uid and generation before it asks. A Scale has none of the latter.</summary>
    private static ActivityTraceId? ChangeOf(JsonElement reviewed)
        => reviewed.ValueKind == JsonValueKind.Object && reviewed.TryGetProperty("metadata", out var metadata)
            && metadata.TryGetProperty("uid", out var uid) && metadata.TryGetProperty("generation", out var generation)
            ? OperatorTrace.ChangeOf(uid.GetString(), generation.GetInt64())
            : null;

    /// <summary>What the gate says of a new deployment by the standing in memory; null when there is none. Only an admission is of use.</summary>
    private async Task<(Verdict, Observation)?> RememberedAsync(GpuDeployment created, CancellationToken cancellation)
    {
        if (cluster.AccountOf(created.Metadata.NamespaceProperty) is not { } account || memory.Find(account) is not { } standing) return null;
        try
        {
            var seen = await observer.ObserveAsync(created, cancellation, withRuns: false, standing).ConfigureAwait(false);
            var ledger = (LedgerView.Known)seen.Ledger;
            return (BillingGate.EvaluateStart(Decider.Request(seen, ledger, seen.WantedReplicas), ledger.Standing, policy, seen.Now), seen);
        }
        catch (Exception fault) when (LedgerAvailability.IsUnavailable(fault))
        {
            return null;
        }
    }

    internal static bool AsksForMore(GpuDeployment before, GpuDeployment after)
        => Gpus(after) > Gpus(before)
           || after.Spec.Gpu.Product != before.Spec.Gpu.Product
           || after.Spec.Gpu.MinMemory != before.Spec.Gpu.MinMemory
           || after.Spec.Gpu.MinComputeCapability != before.Spec.Gpu.MinComputeCapability;

    private static int Gpus(GpuDeployment deployment)
        => deployment.Spec.Paused == true ? 0 : (deployment.Spec.Replicas ?? 1) * deployment.Spec.Gpu.Count;

    private static bool SameSpec(GpuDeployment before, GpuDeployment after)
        => KubernetesJson.Serialize(before.Spec) == KubernetesJson.Serialize(after.Spec);

    private static GpuDeployment WithReplicas(GpuDeployment source, int? replicas) => new()
    {
        Metadata = source.Metadata,
        Status = source.Status,
        Spec = new GpuDeploymentSpec
        {
            Replicas = replicas,
            Gpu = source.Spec.Gpu,
            Template = PackedPodTemplate.Unpack(source.Spec.Template),
            Budget = source.Spec.Budget,
            Paused = source.Spec.Paused,
        },
    };

    private static AdmissionResponse Allow(AdmissionRequest request, string? warning = null)
        => new() { Uid = request.Uid, Allowed = true, Warnings = warning is null ? null : [warning] };

    private static AdmissionResponse Deny(AdmissionRequest request, int code, string reason, string message)
        => new() { Uid = request.Uid, Allowed = false, Status = new V1Status { Code = code, Reason = reason, Message = message, Status = "Failure" } };

    [LoggerMessage(Level = LogLevel.Information, Message = "Denied {Namespace}/{Name}: {Reason}")]
    private static partial void LogDenied(ILogger logger, string? @namespace, string? name, RefusalReason reason);
}
