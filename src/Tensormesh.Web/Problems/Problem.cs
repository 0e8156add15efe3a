using System.Diagnostics;
using System.Globalization;
using System.Text.Json;
using Tensormesh.Billing;

namespace Tensormesh.Web;

/// <summary>
/// An error answer: RFC 9457 <c>application/problem+json</c>. <see cref="Detail"/> says what is wrong and what to do;
/// the type is stable and safe to program against, the prose is not.
/// </summary>
/// <param name="Kind">The last part of <c>urn:tensormesh:problem:{kind}</c>.</param>
/// <param name="Field">The body field or query parameter at fault, as a path such as <c>amount.nanos</c>; null when none is.</param>
internal sealed record Problem(int Status, string Kind, string Title, string Detail, string? Field = null) : IResult
{
    public const string UrnPrefix = "urn:tensormesh:problem:";
    public const string ContentType = "application/problem+json";

    private static readonly TimeSpan LedgerRetry = TimeSpan.FromSeconds(5);
    private static readonly TimeSpan PaymentRetry = TimeSpan.FromSeconds(10);

    public TimeSpan? RetryAfter { get; init; }

    /// <summary>How long whoever asked may keep the answer; null: not at all.</summary>
    public TimeSpan? CacheFor { get; init; }

    /// <summary>Members of this one kind of problem, beside the standard ones.</summary>
    public IReadOnlyDictionary<string, string>? Extra { get; init; }

    public static Problem Invalid(string field, string detail) => new(400, "invalid-field", "A field is wrong", detail, field);

    public static Problem Malformed(string detail, string? field = null) =>
        new(400, "malformed-body", "The body cannot be read", detail, field);

    public static Problem BadRequest(string detail) => new(400, "bad-request", "The request cannot be read", detail);

    public static Problem BadPageToken() => new(400, "bad-page-token", "The page token is not valid",
        "This pageToken was not given out for this account and this filter. Use nextPageToken of the page before as it came, with the same "
            + "parameters, or omit pageToken to start from the newest.", "pageToken");

    public static Problem Unauthenticated(string why) => new(401, "unauthenticated", "A token is needed",
        $"{why} Send 'Authorization: Bearer <access token>' with a token that is valid now.");

    public static Problem NotYourAccount(string userId, AccountId own) => new(403, "not-your-account", "Not your account",
        $"You act for account '{own}' and may not act for '{userId}'. Omit userId, or ask with a token of role ADMIN or SUPER_ADMIN.",
            "userId");

    public static Problem AdminsOnly() => new(403, "admins-only", "For administrators only",
        "This route needs a token of role ADMIN or SUPER_ADMIN.");

    public static Problem OwnersOnly() => new(403, "owners-only", "For the account's owners only",
        "Your token says that you are a member of the account: members read. Ask an owner of the account to do this.");

    public static Problem ScopeMissing(string detail) => new(403, "scope-missing", "Not with this key or token", detail);

    public static Problem ApiKeyUnknown(string id) => new(404, "api-key-unknown", "No such API key",
        $"The account has no API key '{id}'. GET /v1/users/api-keys?includeDeleted=true lists those that it has.");

    public static Problem TooManyApiKeys(int most) => new(409, "too-many-api-keys", "Too many API keys",
        $"The account has {most} API keys, which is the most that it can have. Delete one that nobody uses, with DELETE /v1/users/api-keys/{{apiKeyId}}.");

    public static Problem AccountUnknown(AccountId account, string? field = null) => new(404, "account-unknown", "No such account",
        $"The ledger knows no account '{account}'. Apply a BillingAccount of that name (kubectl apply) and try again in a few seconds.",
            field);

    public static Problem TransactionUnknown(string transactionId) => new(404, "transaction-unknown", "No such transaction",
        $"The account has no transaction '{transactionId}'. GET /v1/billing/transactions lists those that it has.");

    public static Problem NoTransactionOfACustomer(string transactionId) => new(404, "transaction-unknown", "No such transaction",
        $"The ledger has no transaction '{transactionId}' of a customer.");

    public static Problem BalanceTooLow(string detail) => new(409, "balance-too-low", "The balance is too low", detail);

    public static Problem CannotBeTakenBack(string detail) => new(409, "cannot-be-taken-back", "It cannot be taken back", detail);

    public static Problem StatementUnknown(BillingMonth month) => new(404, "statement-unknown", "No such statement",
        $"The account has no statement of {month}. GET /v1/billing/statements lists those that it has.");

    public static Problem PaymentMethodNotAttached(string paymentMethodId) => new(404, "payment-method-not-attached", "Not on file",
        $"Payment method '{paymentMethodId}' is not on file for this account. GET /v1/billing/stripe/customers/payment-methods lists "
            + $"those that are.");

    public static Problem NoSuchRoute(string method, string path) => new(404, "no-such-route", "No such route",
        $"There is nothing at {method} {path}. GET /openapi/v1.json lists the routes.");

    public static Problem MethodNotAllowed(string method, string allowed) => new(405, "method-not-allowed", "Method not allowed",
        allowed.Length == 0 ? $"This route does not take {method}." : $"This route does not take {method}. It takes {allowed}.");

    public static Problem KeyReused(string detail) => new(409, "idempotency-key-reused", "Idempotency key already used for another request",
        $"{detail} Nothing was done now. Send a new Idempotency-Key for a new request; repeat a request with its own key and its own "
            + $"body.");

    public static Problem BodyTooLarge(long most) => new(413, "body-too-large", "The body is too large",
        string.Create(CultureInfo.InvariantCulture, $"A body may have at most {most} bytes here."));

    public static Problem UnsupportedMediaType() => new(415, "unsupported-media-type", "Not JSON",
        "Send the body as JSON, with 'Content-Type: application/json'.");

    public static Problem TooManyRequests(TimeSpan wait) => new(429, "too-many-requests", "Too many requests",
        "You send requests faster than one caller may. Wait for as long as Retry-After says, then go on more "
            + "slowly.")
    { RetryAfter = wait };

    public static Problem Overloaded(TimeSpan wait) => new(429, "too-many-requests", "Too many requests",
        "More usage comes than is written at this moment. Nothing of this request was counted: send it again after as long as Retry-After says.")
    { RetryAfter = wait };

    public static Problem NoUsage() => new(415, "unsupported-media-type", "Not a CloudEvent",
        $"Send one event as {UsageApi.One}, up to {TokenMeter.MaxBatch} as {UsageApi.Batch}, one a line as {UsageApi.Lines}, or one in binary mode: its attributes in headers "
            + $"(ce-specversion, ce-id, ce-source, ce-type, ce-time) and its data as {UsageApi.Binary}.");

    public static Problem UsageRejected(string reason, string detail) => new(400, "usage-rejected", "The event is not counted", detail)
    { Extra = new Dictionary<string, string> { ["reason"] = reason } };

    /// <param name="remaining">Zero, or below: owed.</param>
    public static Problem BalanceExhausted(AccountId account, Money remaining) => new(402, "balance-exhausted", "The balance is used up",
        $"Account '{account}' has used up its balance: add balance under Billing > Overview.")
    { Extra = new Dictionary<string, string> { ["remaining"] = remaining.ToDecimalString() } };

    public static Problem Internal() => new(500, "internal", "Something went wrong here",
        "The request failed for a reason on our side. Repeat it, with the same Idempotency-Key if it moves money; if it fails again, "
            + "report the traceId.");

    public static Problem LedgerUnavailable() => new(503, "ledger-unavailable", "The ledger cannot be reached",
        "The ledger cannot be reached at this moment. Repeat the request after as long as Retry-After says, with the same "
            + "Idempotency-Key if it moves money.")
    { RetryAfter = LedgerRetry };

    public static Problem SignInFailed(string? why) => new(400, "sign-in-failed", "You are not signed in",
        $"Signing in did not work{(why is null ? "" : $": {why.TrimEnd('.')}")}. Go back to /billing to try again; if it fails again, ask your platform team.");

    public static Problem SignInUnavailable() => new(503, "sign-in-unavailable", "The identity provider cannot be reached",
        "The keys of the identity provider, with which tokens are checked, cannot be read at this moment. Repeat the request after as long as Retry-After says.")
    { RetryAfter = LedgerRetry };

    public static Problem PaymentCompanyUnavailable() => new(503, "payment-company-unavailable", "The payment company cannot be asked",
        "The payment company gave no answer, so that it is not known whether this was done. Repeat the request after as long as Retry-After "
            + "says, with the same Idempotency-Key: what was charged is found, and nothing is charged twice.")
    { RetryAfter = PaymentRetry };

    public static Problem BadSignature() => new(400, "bad-signature", "The signature does not fit",
        "The Stripe-Signature header is missing, too old, or not made of this body with the secret of this endpoint. Nothing was done.");

    /// <summary>For the caller alone: what is between may not keep it.</summary>
    public static string CacheControl(TimeSpan cache) => string.Create(CultureInfo.InvariantCulture, $"private, max-age={cache.TotalSeconds:0}");

    public async Task ExecuteAsync(HttpContext httpContext)
    {
        var response = httpContext.Response;
        if (response.HasStarted) return;
        response.StatusCode = Status;
        response.ContentType = ContentType;
        // The exception handler cleared what was set before.
        response.Headers.CacheControl = CacheFor is { } cache ? CacheControl(cache) : "no-store";
        response.Headers.XContentTypeOptions = "nosniff";
        if (RetryAfter is { } wait)
        {
            response.Headers.RetryAfter = Math.Max(1, (long)Math.Ceiling(wait.TotalSeconds)).ToString(CultureInfo.InvariantCulture);
        }

        var body = new Dictionary<string, object>
        {
            ["type"] = UrnPrefix + Kind,
            ["title"] = Title,
            ["status"] = Status,
            ["detail"] = Detail,
            ["instance"] = httpContext.Request.Path.ToUriComponent(),
            ["traceId"] = Activity.Current?.TraceId.ToHexString() ?? httpContext.TraceIdentifier,
        };
        if (Field is not null) body["field"] = Field;
        foreach (var (name, value) in Extra ?? new Dictionary<string, string>()) body[name] = value;
        var json = JsonSerializer.SerializeToUtf8Bytes(body, Wire.Json);
        response.ContentLength = json.Length;
        if (!HttpMethods.IsHead(httpContext.Request.Method)) await response.Body.WriteAsync(json, httpContext.RequestAborted);
    }
}
