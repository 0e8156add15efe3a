using Microsoft.AspNetCore.Http.HttpResults;
using Tensormesh.Billing;

namespace Tensormesh.Web;

/// <summary>For the kubelet: the only routes that ask for no token and are not counted against a caller's rate.</summary>
internal static class HealthApi
{
    public static void MapHealthApi(this IEndpointRouteBuilder routes)
    {
        var health = routes.MapGroup("").AllowAnonymous().DisableRateLimiting().ExcludeFromDescription();
        health.MapGet("/healthz", GetHealth);
        health.MapGet("/readyz", GetReadinessAsync);
    }

    private static Ok<HealthAnswer> GetHealth() => TypedResults.Ok(new HealthAnswer("ok"));

    private static async Task<IResult> GetReadinessAsync(Readiness readiness, CancellationToken cancellation) =>
        await readiness.WhyNotAsync(cancellation) is { } reason
            ? new Problem(503, "not-ready", "Not ready", reason) { RetryAfter = TimeSpan.FromSeconds(5) }
            : TypedResults.Ok(new HealthAnswer("ready"));
}

internal sealed record HealthAnswer(string Status);
