using System.Collections.Concurrent;
using System.Globalization;
using System.Text;
using System.Text.Json.Nodes;
using System.Web;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.Logging;

namespace Tensormesh.TestKit;

/// <summary>What goes wrong with one request.</summary>
public enum FakeStripeFault
{
    /// <summary>503, and nothing was done.</summary>
    Unavailable,
    /// <summary>Done, and answered 500, which the idempotency key repeats from then on.</summary>
    ErrorAfter,
    /// <summary>Not done, and never answered.</summary>
    HangBefore,
    /// <summary>Done, and never answered.</summary>
    HangAfter,
    /// <summary>Done, and the connection is reset in place of an answer.</summary>
    ResetAfter,
    /// <summary>Answered with a page of some proxy, and nothing was done.</summary>
    Garbage,
}

/// <summary>
/// Stripe as far as this product uses it: its HTTP API with state, idempotency keys and signed webhooks, on a free port of this machine.
/// It is strict where Stripe is: another API version, a parameter that was removed, or a key used for something else is an error.
/// </summary>
public sealed class FakeStripe : IAsyncDisposable
{
    public const string SecretKey = "sk_test_of_the_fake";
    public const string WebhookSecret = "whsec_of_the_fake";
    /// <summary>Of Stripe.net 53.1.0.</summary>
    public const string ApiVersion = "2026-10-28.endive";
    private static readonly TimeSpan LongestHang = TimeSpan.FromSeconds(30);

    private readonly WebApplication host;
    private readonly ConcurrentDictionary<string, Remembered> keys = new(StringComparer.Ordinal);
    private readonly Lock gate = new();
    private readonly List<(FakeStripeFault Fault, string Path)> faults = [];
    private int requests;

    private sealed record Remembered(string Fingerprint)
    {
        public FakeStripeAnswer? Answer { get; set; }
    }

    private FakeStripe(WebApplication host, TimeProvider time)
    {
        this.host = host;
        Webhooks = new FakeStripeWebhooks(time);
        Books = new FakeStripeBooks(time, Webhooks.Emit);
    }

    public Uri Address { get; private set; } = null!;

    /// <summary>What it has on record, and what happens elsewhere: in a browser, at the bank, in Stripe's dashboard.</summary>
    public FakeStripeBooks Books { get; }

    public FakeStripeWebhooks Webhooks { get; }

    public int Requests => Volatile.Read(ref requests);

    public static async Task<FakeStripe> StartAsync(TimeProvider time)
    {
        var builder = WebApplication.CreateSlimBuilder();
        builder.Logging.ClearProviders();
        builder.WebHost.UseUrls("http://127.0.0.1:0");
        var host = builder.Build();
        var stripe = new FakeStripe(host, time);
        host.Run(stripe.AnswerAsync);
        await host.StartAsync();
        stripe.Address = new Uri(host.Urls.Single());
        return stripe;
    }

    /// <summary>The next request to a path that begins so goes wrong.</summary>
    public void Next(FakeStripeFault fault, string path, int times = 1)
    {
        lock (gate) faults.AddRange(Enumerable.Repeat((fault, path), times));
    }

    /// <summary>A day has passed: no key is remembered.</summary>
    public void ForgetKeys() => keys.Clear();

    public async ValueTask DisposeAsync()
    {
        await Webhooks.DisposeAsync();
        using var soon = new CancellationTokenSource(TimeSpan.FromSeconds(1));
        await host.StopAsync(soon.Token);
        await host.DisposeAsync();
    }

    private async Task AnswerAsync(HttpContext context)
    {
        Interlocked.Increment(ref requests);
        var request = context.Request;
        var body = await new StreamReader(request.Body).ReadToEndAsync(context.RequestAborted);
        var form = Parse(request.Method == HttpMethods.Get ? request.QueryString.Value?.TrimStart('?') ?? "" : body);
        var path = request.Path.Value!;
        var fault = TakeFault(path);
        switch (fault)
        {
            case FakeStripeFault.Unavailable:
                await WriteAsync(context, FakeStripeAnswer.Error(503, "api_error", null, "Stripe is not available."));
                return;
            case FakeStripeFault.Garbage:
                context.Response.StatusCode = 502;
                await context.Response.WriteAsync("<html>bad gateway</html>");
                return;
            case FakeStripeFault.HangBefore:
                await HangAsync(context);
                return;
        }

        var answer = Refuse(request) ?? Once(request, $"{request.Method} {path}\n{body}", fault == FakeStripeFault.ErrorAfter, () =>
            Books.Answer(request.Method, path, form));
        switch (fault)
        {
            case FakeStripeFault.HangAfter:
                await HangAsync(context);
                return;
            case FakeStripeFault.ResetAfter:
                context.Abort();
                return;
        }

        await WriteAsync(context, answer);
    }

    private static FakeStripeAnswer? Refuse(HttpRequest request)
    {
        if (request.Headers.Authorization != $"Bearer {SecretKey}") return FakeStripeAnswer.Error(401, "invalid_request_error", null, "Invalid API Key provided.");
        return request.Headers["Stripe-Version"] == ApiVersion
            ? null
            : FakeStripeAnswer.Error(400, "invalid_request_error", null, $"Invalid Stripe API version: {request.Headers["Stripe-Version"]}");
    }

    /// <summary>A key answers once; what it answered it answers again. What was refused as such is not remembered.</summary>
    private FakeStripeAnswer Once(HttpRequest request, string fingerprint, bool failing, Func<FakeStripeAnswer> work)
    {
        var failure = FakeStripeAnswer.Error(500, "api_error", null, "An unknown error occurred.");
        if (request.Method != HttpMethods.Post || request.Headers["Idempotency-Key"].ToString() is not { Length: > 0 } key)
        {
            var plain = work();
            return failing ? failure : plain;
        }

        var mine = new Remembered(fingerprint);
        var known = keys.GetOrAdd(key, mine);
        if (known.Fingerprint != fingerprint)
        {
            return FakeStripeAnswer.Error(400, "idempotency_error", null,
                "Keys for idempotent requests can only be used with the same parameters they were first used with.");
        }

        if (!ReferenceEquals(known, mine))
        {
            return known.Answer ?? FakeStripeAnswer.Error(409, "idempotency_error", "idempotency_key_in_use", "A request with this key is under way.");
        }

        var answer = work();
        if (failing) answer = failure;
        if (answer.Status is 400 or 404) keys.TryRemove(key, out _);
        mine.Answer = answer;
        return answer;
    }

    private FakeStripeFault? TakeFault(string path)
    {
        lock (gate)
        {
            var index = faults.FindIndex(fault => path.StartsWith(fault.Path, StringComparison.Ordinal));
            if (index < 0) return null;
            var (fault, _) = faults[index];
            faults.RemoveAt(index);
            return fault;
        }
    }

    private static async Task HangAsync(HttpContext context)
    {
        try
        {
            await Task.Delay(LongestHang, context.RequestAborted);
        }
        catch (OperationCanceledException)
        {
        }

        context.Abort();
    }

    private static async Task WriteAsync(HttpContext context, FakeStripeAnswer answer)
    {
        context.Response.StatusCode = answer.Status;
        context.Response.ContentType = "application/json";
        context.Response.Headers["Request-Id"] = $"req_{Guid.NewGuid():n}";
        await context.Response.WriteAsync(answer.Json, Encoding.UTF8);
    }

    private static Dictionary<string, string> Parse(string encoded)
    {
        var form = new Dictionary<string, string>(StringComparer.Ordinal);
        foreach (var pair in encoded.Split('&', StringSplitOptions.RemoveEmptyEntries))
        {
            var parts = pair.Split('=', 2);
            form[HttpUtility.UrlDecode(parts[0])] = parts.Length == 2 ? HttpUtility.UrlDecode(parts[1]) : "";
        }

        return form;
    }
}

/// <summary>An answer as it is written.</summary>
public sealed record FakeStripeAnswer(int Status, string Json)
{
    public static FakeStripeAnswer Ok(JsonNode node) => new(200, node.ToJsonString());

    public static FakeStripeAnswer Error(int status, string type, string? code, string message, string? declineCode = null, JsonObject? payment = null, string? param = null)
    {
        var error = new JsonObject { ["type"] = type, ["message"] = message };
        if (code is not null) error["code"] = code;
        if (declineCode is not null) error["decline_code"] = declineCode;
        if (param is not null) error["param"] = param;
        if (payment is not null) error["payment_intent"] = payment;
        return new(status, new JsonObject { ["error"] = error }.ToJsonString());
    }

    public static FakeStripeAnswer Missing(string what, string id, string? param = null)
        => Error(404, "invalid_request_error", "resource_missing", string.Create(CultureInfo.InvariantCulture, $"No such {what}: '{id}'"), param: param);
}
