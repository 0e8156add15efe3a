using System.Text;
using System.Text.Json;
using Microsoft.AspNetCore.Mvc;
using Stripe;
using Tensormesh.Billing;

namespace Tensormesh.Web;

/// <summary>
/// Where Stripe tells what happened. Nothing in an event is believed but which event it is and what object it is about; see
/// <see cref="PaymentEvents"/>. Any answer but 200 makes Stripe send it again, for days.
/// </summary>
internal static class StripeWebhooks
{
    public const string Path = "/v1/billing/stripe/webhooks";
    public const int LargestEventBytes = 256 * 1024;
    /// <summary>How old a signature may be: an event that is sent again is signed anew.</summary>
    public static readonly TimeSpan Tolerance = TimeSpan.FromMinutes(5);

    private const string SignatureHeader = "Stripe-Signature";
    private const int LongestId = 255;

    /// <summary>Without a token, and without the limits of one caller: all of Stripe's events come from a few addresses.</summary>
    public static void MapStripeWebhooks(this IEndpointRouteBuilder routes) => routes.MapPost(Path, ReceiveAsync)
        .AllowAnonymous().DisableRateLimiting().ExcludeFromDescription().WithMetadata(new RequestSizeLimitAttribute(LargestEventBytes));

    private static async Task<IResult> ReceiveAsync(
        HttpContext context, WebSettings settings, PaymentEvents events, WebMetrics metrics, TimeProvider time, ILogger<PaymentEvents> log,
        CancellationToken cancellation)
    {
        var body = await ReadAsync(context.Request, cancellation);
        if (!IsSigned(body, context.Request.Headers[SignatureHeader], ((PaymentSettings.Stripe)settings.Payments).WebhookSecret, time))
        {
            metrics.EventsRefused.Inc();
            return Problem.BadSignature();
        }

        if (Read(body) is not { } told) return Problem.Malformed("The body is signed and is not an event.");
        var effect = await events.HandleAsync(told, cancellation);
        metrics.CountEvent(told.Type, effect);
        if (effect == PaymentEffect.Mismatch) PaymentLog.Mismatch(log, told.Type, told.ObjectId, told.EventId);
        else PaymentLog.Received(log, told.Type, told.ObjectId, told.EventId, effect);
        return TypedResults.Ok(new Received(true));
    }

    /// <exception cref="BadHttpRequestException">More than <see cref="LargestEventBytes"/>: as soon as that is known.</exception>
    private static async Task<string> ReadAsync(HttpRequest request, CancellationToken cancellation)
    {
        using var bytes = new MemoryStream();
        await request.Body.CopyToAsync(bytes, cancellation);
        return Encoding.UTF8.GetString(bytes.GetBuffer(), 0, (int)bytes.Length);
    }

    private static bool IsSigned(string body, string? signature, string secret, TimeProvider time)
    {
        if (string.IsNullOrEmpty(signature)) return false;
        try
        {
            // Over the body as it came, in constant time.
            EventUtility.ValidateSignature(body, signature, secret, (long)Tolerance.TotalSeconds, time.GetUtcNow().ToUnixTimeSeconds());
            return true;
        }
        catch (Exception wrong) when (wrong is StripeException or FormatException or OverflowException or ArgumentException or KeyNotFoundException or IndexOutOfRangeException)
        {
            return false;
        }
    }

    /// <summary>Null for what is not an event about an object.</summary>
    private static PaymentEvent? Read(string body)
    {
        try
        {
            using var document = JsonDocument.Parse(body);
            var root = document.RootElement;
            var (id, type) = (Text(root, "id"), Text(root, "type"));
            return id is not null && type is not null && root.TryGetProperty("data", out var data) && data.TryGetProperty("object", out var about)
                && Text(about, "id") is { } objectId
                ? new PaymentEvent(StripePaymentProvider.ProviderName, id, type, objectId)
                : null;
        }
        catch (Exception wrong) when (wrong is JsonException or InvalidOperationException)
        {
            return null;
        }
    }

    private static string? Text(JsonElement element, string name)
        => element.TryGetProperty(name, out var value) && value.ValueKind == JsonValueKind.String && value.GetString() is { Length: > 0 and <= LongestId } text
        ? text : null;

    private sealed record Received([property: System.Text.Json.Serialization.JsonPropertyName("received")] bool Yes);
}
