using System.Collections.Concurrent;
using System.Net;
using k8s;
using k8s.Autorest;
using k8s.Models;
using Tensormesh.Operator.Telemetry;
using Tensormesh.Resources;

namespace Tensormesh.Operator.Admission;

/// <summary>
/// Lets an agent write the GpuNode of its own node and no other: whoever breaks into one node must not speak for the silicon of all. All agents share
/// one service account, so RBAC cannot tell them apart. The API server says which pod a token was issued to, and a pod's node never changes.
/// </summary>
/// <remarks>Unlike the gate this is the law, so the API server refuses what it cannot ask about. Everybody else's writes are RBAC's business.</remarks>
internal sealed partial class OwnNodeGuard(IKubernetes client, OperatorOptions options, OperatorMetrics metrics, ILogger<OwnNodeGuard> logger)
{
    public const string Path = "/own-node";

    // What the API server adds to the user of a token that is bound to a pod; the node's name since Kubernetes 1.30.
    private const string PodName = "authentication.kubernetes.io/pod-name";
    private const string PodUid = "authentication.kubernetes.io/pod-uid";
    private const string NodeName = "authentication.kubernetes.io/node-name";

    /// <summary>Beyond this many pods all are forgotten: a bound on memory, not a policy.</summary>
    private const int MaxRemembered = 10_000;

    private readonly ConcurrentDictionary<string, string> nodeOfPod = new(StringComparer.Ordinal);

    public static void Map(IEndpointRouteBuilder routes) => routes.MapPost(Path, async (HttpRequest http, OwnNodeGuard guard) =>
    {
        var review = await http.ReadFromJsonAsync<AdmissionReview>(http.HttpContext.RequestAborted).ConfigureAwait(false);
        if (review?.Request is null) return Results.BadRequest("an AdmissionReview with a request is expected");
        return Results.Json(new AdmissionReview { Response = await guard.ReviewAsync(review.Request, http.HttpContext.RequestAborted).ConfigureAwait(false) });
    });

    public Task<AdmissionResponse> ReviewAsync(AdmissionRequest request, CancellationToken cancellation)
        => AdmissionResponse.CountedAsync(metrics, OperatorMetrics.OwnNodeWebhook, AnswerAsync(request, cancellation));

    private async Task<AdmissionResponse> AnswerAsync(AdmissionRequest request, CancellationToken cancellation)
    {
        var refusal = await RefusalAsync(request, cancellation).ConfigureAwait(false);
        if (refusal is null) return new AdmissionResponse { Uid = request.Uid, Allowed = true };
        LogRefused(logger, request.Name, refusal);
        return new AdmissionResponse
        {
            Uid = request.Uid,
            Allowed = false,
            Status = new V1Status { Code = (int)HttpStatusCode.Forbidden, Reason = "NotOwnNode", Message = refusal, Status = "Failure" },
        };
    }

    /// <summary>Null when the write is the writer's to make.</summary>
    private async Task<string?> RefusalAsync(AdmissionRequest request, CancellationToken cancellation)
    {
        var user = request.UserInfo;
        if (user?.Username != $"system:serviceaccount:{options.AgentNamespace}:{WellKnown.AgentAccount}") return null;
        if (Extra(user, NodeName) is { } told) return Refusal(request.Name, told);
        if (Extra(user, PodName) is not { } pod || Extra(user, PodUid) is not { } uid)
        {
            return "the agent's token is not bound to a pod, so it may be from anywhere: mount a projected serviceAccountToken";
        }

        var (node, problem) = await NodeOfAsync(pod, uid, cancellation).ConfigureAwait(false);
        return problem ?? Refusal(request.Name, node);
    }

    private static string? Refusal(string? written, string? own) => written is { Length: > 0 } && written == own
        ? null
        : $"an agent writes only the GpuNode of its own node: this one runs on {own ?? "no node"}";

    private async Task<(string? Node, string? Problem)> NodeOfAsync(string pod, string uid, CancellationToken cancellation)
    {
        if (nodeOfPod.TryGetValue(uid, out var remembered)) return (remembered, null);
        try
        {
            var read = await client.CoreV1.ReadNamespacedPodAsync(pod, options.AgentNamespace, cancellationToken: cancellation).ConfigureAwait(false);
            if (read.Uid() != uid || read.Spec.NodeName is not { Length: > 0 } node) return (null, $"the pod {pod} of the agent's token is gone");
            if (nodeOfPod.Count >= MaxRemembered) nodeOfPod.Clear();
            nodeOfPod[uid] = node;
            return (node, null);
        }
        catch (HttpOperationException gone) when (gone.Response.StatusCode == HttpStatusCode.NotFound)
        {
            return (null, $"the pod {pod} of the agent's token is gone");
        }
        catch (Exception fault) when (fault is HttpOperationException or HttpRequestException)
        {
            return (null, $"the pod {pod} of the agent's token cannot be read right now");
        }
    }

    private static string? Extra(AdmissionUser user, string key) => user.Extra is { } extra && extra.TryGetValue(key, out var values) && values is [var value, ..] ? value : null;

    [LoggerMessage(Level = LogLevel.Warning, Message = "Refused a write of GpuNode {Name}: {Reason}")]
    private static partial void LogRefused(ILogger logger, string? name, string reason);
}
