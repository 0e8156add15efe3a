using System.Text.Json;
using System.Text.Json.Serialization;
using k8s.Models;
using Tensormesh.Operator.Telemetry;

namespace Tensormesh.Operator.Admission;

/// <summary>The parts of <c>admission.k8s.io/v1 AdmissionReview</c> that are read and written here; the client has no type for it.</summary>
internal sealed class AdmissionReview
{
    [JsonPropertyName("apiVersion")] public string ApiVersion { get; set; } = "admission.k8s.io/v1";
    [JsonPropertyName("kind")] public string Kind { get; set; } = "AdmissionReview";
    [JsonPropertyName("request")] public AdmissionRequest? Request { get; set; }
    [JsonPropertyName("response")] public AdmissionResponse? Response { get; set; }
}

internal sealed class AdmissionRequest
{
    [JsonPropertyName("uid")] public string Uid { get; set; } = "";
    [JsonPropertyName("operation")] public string Operation { get; set; } = "";
    [JsonPropertyName("subResource")] public string? SubResource { get; set; }
    [JsonPropertyName("namespace")] public string? Namespace { get; set; }
    [JsonPropertyName("name")] public string? Name { get; set; }
    [JsonPropertyName("userInfo")] public AdmissionUser? UserInfo { get; set; }
    [JsonPropertyName("object")] public JsonElement Object { get; set; }
    [JsonPropertyName("oldObject")] public JsonElement OldObject { get; set; }
}

/// <summary>Who asks, as the API server authenticated them.</summary>
internal sealed class AdmissionUser
{
    [JsonPropertyName("username")] public string Username { get; set; } = "";
    [JsonPropertyName("extra")] public IDictionary<string, IList<string>>? Extra { get; set; }
}

internal sealed class AdmissionResponse
{
    [JsonPropertyName("uid")] public string Uid { get; set; } = "";
    [JsonPropertyName("allowed")] public bool Allowed { get; set; }
    [JsonPropertyName("status")] public V1Status? Status { get; set; }
    [JsonPropertyName("warnings")] public IReadOnlyList<string>? Warnings { get; set; }

    /// <summary>Counts how a review ended. One that ends without an answer is decided by the webhook's failure policy, and nobody else tells of it.</summary>
    public static async Task<AdmissionResponse> CountedAsync(OperatorMetrics metrics, string webhook, Task<AdmissionResponse> review)
    {
        var outcome = OperatorMetrics.ReviewFault;
        try
        {
            var response = await review.ConfigureAwait(false);
            outcome = response.Allowed ? OperatorMetrics.ReviewAllowed : OperatorMetrics.ReviewDenied;
            return response;
        }
        finally
        {
            metrics.WebhookReviews.WithLabels(webhook, outcome).Inc();
        }
    }
}
