using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using Microsoft.AspNetCore.Http.Metadata;
using Tensormesh.Billing;

namespace Tensormesh.Web;

/// <summary>
/// <c>Idempotency-Key</c> on routes of which the same again changes nothing: the same key with the same request has the same answer for a day, and with
/// another request it is refused. What was refused is not remembered.
/// </summary>
internal sealed class RememberedAnswers(RememberedRequests requests, WebMetrics metrics) : IEndpointFilter
{
    private const string Json = "application/json";

    private readonly RememberedRequests requests = requests;
    private readonly WebMetrics metrics = metrics;

    public async ValueTask<object?> InvokeAsync(EndpointFilterInvocationContext invocation, EndpointFilterDelegate next)
    {
        var context = invocation.HttpContext;
        if (!context.Request.Headers.ContainsKey(IdempotencyKey.Header) || Caller.From(context.User) is not { } caller) return await next(invocation);
        if (!IdempotencyKey.TryRead(context, caller, "answer", out var key, out var refusal)) return refusal;
        switch (await requests.BeginAsync(caller.Subject, key.Value, FingerprintOf(invocation), context.RequestAborted))
        {
            case RememberedRequest.Answered before:
                return TypedResults.Text(before.Answer, Json);
            case RememberedRequest.Other:
                metrics.KeyConflicts.Inc();
                return Problem.KeyReused("This Idempotency-Key was used before for another request.");
        }

        var result = await next(invocation);
        // From here on it is done, whether or not the caller still listens.
        if (result is IValueHttpResult { Value: { } value } and IStatusCodeHttpResult { StatusCode: StatusCodes.Status200OK })
        {
            await requests.EndAsync(caller.Subject, key.Value, JsonSerializer.Serialize(value, value.GetType(), Wire.Json), CancellationToken.None);
        }
        else
        {
            await requests.ForgetAsync(caller.Subject, key.Value, CancellationToken.None);
        }

        return result;
    }

    /// <summary>Method, path, query and body: the body as it was understood, so that blanks and the order of members make no other request.</summary>
    private static byte[] FingerprintOf(EndpointFilterInvocationContext invocation)
    {
        var request = invocation.HttpContext.Request;
        var type = invocation.HttpContext.GetEndpoint()?.Metadata.GetMetadata<IAcceptsMetadata>()?.RequestType;
        var body = invocation.Arguments.FirstOrDefault(argument => argument is not null && argument.GetType() == type);
        var text = new StringBuilder(request.Method).Append('\n').Append(request.Path.ToUriComponent()).Append('\n').Append(request.QueryString.ToUriComponent()).Append('\n');
        if (body is not null) text.Append(JsonSerializer.Serialize(body, type!, Wire.Json));
        return SHA256.HashData(Encoding.UTF8.GetBytes(text.ToString()));
    }
}

internal static class RememberedAnswersRoutes
{
    public static RouteHandlerBuilder RememberingAnswers(this RouteHandlerBuilder route) => route.AddEndpointFilter<RememberedAnswers>().TakingIdempotencyKey();
}
