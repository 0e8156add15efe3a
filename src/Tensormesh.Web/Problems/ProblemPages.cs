using System.Text.Json;
using Microsoft.AspNetCore.Diagnostics;
using Microsoft.AspNetCore.Http.Features;
using Tensormesh.Billing;

namespace Tensormesh.Web;

/// <summary>Turns what the framework answers by itself, and what handlers throw, into problems.</summary>
internal sealed partial class ProblemPages(WebMetrics metrics, ILogger<ProblemPages> logger)
{
    private readonly WebMetrics metrics = metrics;
    private readonly ILogger<ProblemPages> logger = logger;

    /// <summary>Answers without a body: unknown routes, other methods, other media types.</summary>
    public static Task ForStatusAsync(StatusCodeContext status)
    {
        var (request, response) = (status.HttpContext.Request, status.HttpContext.Response);
        var problem = response.StatusCode switch
        {
            404 => Problem.NoSuchRoute(request.Method, request.Path.ToUriComponent()),
            405 => Problem.MethodNotAllowed(request.Method, response.Headers.Allow.ToString()),
            413 => Problem.BodyTooLarge(Most(status.HttpContext)),
            415 => Problem.UnsupportedMediaType(),
            401 => Problem.Unauthenticated("The request is not signed in."),
            403 => Problem.AdminsOnly(),
            >= 500 => Problem.Internal(),
            _ => Problem.BadRequest("The request is not one that this route can read.") with { Status = response.StatusCode },
        };
        return problem.ExecuteAsync(status.HttpContext);
    }

    /// <summary>Exceptions that reached the end of the pipeline.</summary>
    public Task ForExceptionAsync(HttpContext context)
    {
        var failure = context.Features.Get<IExceptionHandlerFeature>()!;
        var request = context.Request;
        if (failure.Error is BadHttpRequestException bad) return Describe(bad, Most(context)).ExecuteAsync(context);
        if (context.RequestAborted.IsCancellationRequested && failure.Error is OperationCanceledException)
        {
            context.Response.StatusCode = StatusCodes.Status499ClientClosedRequest;
            return Task.CompletedTask;
        }

        if (LedgerAvailability.IsUnavailable(failure.Error))
        {
            metrics.LedgerUnavailable.Inc();
            LogLedgerUnavailable(request.Method, failure.Path, failure.Error.Message);
            return Problem.LedgerUnavailable().ExecuteAsync(context);
        }

        if (failure.Error is PaymentProviderException { IsTransient: true } lost)
        {
            LogPaymentCompany(request.Method, failure.Path, lost.Message);
            return Problem.PaymentCompanyUnavailable().ExecuteAsync(context);
        }

        LogFailed(failure.Error, request.Method, failure.Path);
        return Problem.Internal().ExecuteAsync(context);
    }

    /// <summary>The bound of the route.</summary>
    private static long Most(HttpContext context)
        => context.Features.Get<IHttpMaxRequestBodySizeFeature>()?.MaxRequestBodySize ?? WebHost.LargestBodyBytes;

    private static Problem Describe(BadHttpRequestException bad, long most) => (bad.StatusCode, bad.InnerException) switch
    {
        (413, _) => Problem.BodyTooLarge(most),
        (415, _) => Problem.UnsupportedMediaType(),
        (_, JsonException json) => Describe(json),
        (_, not null) => Problem.Malformed("The body ended early or is not UTF-8."),
        _ when bad.Message.Contains("body", StringComparison.OrdinalIgnoreCase) =>
            Problem.Malformed("This route needs a JSON object as its body, and none came."),
        _ => Problem.BadRequest("A parameter of the request has the wrong form."),
    };

    /// <summary>The framework's own words name types of ours, so that we say it anew: where, and what is expected.</summary>
    private static Problem Describe(JsonException json)
    {
        var field = json.Path is { Length: > 2 } path && path.StartsWith("$.", StringComparison.Ordinal) ? path[2..] : null;
        if (json.InnerException is JsonException)
        {
            var near = field is null ? "" : $", near the field '{field}'";
            return Problem.Malformed($"The body is not JSON: line {json.LineNumber + 1}, byte {json.BytePositionInLine + 1}{near}.", field);
        }

        if (json.Message.Contains("uplicate", StringComparison.Ordinal))
        {
            return Problem.Malformed($"The body gives a field twice{(field is null ? "" : $", near '{field}'")}: give each once, so that "
                + $"there is one meaning.", field);
        }

        return field is null
            ? Problem.Malformed("The body must be a JSON object.")
            : Problem.Malformed($"The value of '{field}' has the wrong form. Money is {{\"currencyCode\": \"USD\", \"units\": \"12\", "
                + $"\"nanos\": 500000000}}; ids are strings.", field);
    }

    [LoggerMessage(Level = LogLevel.Warning, Message = "Ledger unavailable at {Method} {Path}: {Reason}")]
    private partial void LogLedgerUnavailable(string method, string path, string reason);

    [LoggerMessage(Level = LogLevel.Warning, Message = "Payment company not reached at {Method} {Path}: {Reason}")]
    private partial void LogPaymentCompany(string method, string path, string reason);

    [LoggerMessage(Level = LogLevel.Error, Message = "Failed at {Method} {Path}")]
    private partial void LogFailed(Exception failure, string method, string path);
}
