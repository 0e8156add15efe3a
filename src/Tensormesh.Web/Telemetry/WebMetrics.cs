using Microsoft.AspNetCore.Diagnostics;
using Prometheus;
using Tensormesh.Billing;

namespace Tensormesh.Web;

/// <summary>Every instrument of this executable. Labels come from closed sets only, never from what a caller writes.</summary>
internal sealed class WebMetrics
{
    private static readonly string[] Methods = ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"];

    private const string OtherModel = "other";

    /// <summary>Labels are of a bounded number, whatever a price list has.</summary>
    private const int MostModels = 500;

    private volatile HashSet<string> pricedModels = [];

    public WebMetrics()
    {
        var factory = Metrics.WithCustomRegistry(Registry);
        DotNetStats.Register(Registry);
        RequestSeconds = factory.CreateHistogram("tensormesh_web_request_seconds", "Time from request to answer.",
            ["route", "method", "status"], new HistogramConfiguration { Buckets = Histogram.ExponentialBuckets(0.001, 2, 14) });
        LedgerUnavailable = factory.CreateCounter("tensormesh_web_ledger_unavailable_total",
            "Requests answered 503 because Postgres could not be reached.");
        Connections = factory.CreateGauge("tensormesh_ledger_connections", "Connections to the ledger's database, by state (busy, idle).", ["state"]);
        Registry.AddBeforeCollectCallback(() =>
        {
            var (busy, idle) = LedgerConnections.Read();
            Connections.WithLabels("busy").Set(busy);
            Connections.WithLabels("idle").Set(idle);
        });
        Payments = factory.CreateCounter("tensormesh_web_payments_total", "Attempts to charge a card, by outcome.", ["outcome"]);
        PaymentEvents = factory.CreateCounter("tensormesh_payment_events_total",
            "Events of the payment company, by type and what they led to. A Mismatch is for a person to look into.", ["type", "effect"]);
        EventsRefused = factory.CreateCounter("tensormesh_payment_events_refused_total",
            "Events that were not signed as they must be: whoever sent them is not the payment company, or the secret is another.");
        PaymentMismatches = factory.CreateGauge("tensormesh_payment_mismatches",
            "Where the payment company's books and the ledger disagree and nobody has closed it yet: look into each.");
        PaymentsRecovered = factory.CreateCounter("tensormesh_payments_recovered_total",
            "Payments credited by the comparison with the payment company's books, which no event had told of.");
        ReconciledAt = factory.CreateGauge("tensormesh_payments_reconciled_timestamp_seconds",
            "When the payment company's books were last compared with the ledger by this process.");
        AutoTopUps = factory.CreateCounter("tensormesh_auto_top_ups_total",
            "Automatic top-ups by this process, by outcome (Succeeded, Declined, AuthenticationRequired, Refused, InDoubt).", ["outcome"]);
        AutoTopUpAccounts = factory.CreateGauge("tensormesh_auto_top_up_accounts",
            "Accounts with automatic top-up, by state: on, or disabled after too many declines in a row.", ["state"]);
        UsageEvents = factory.CreateCounter("tensormesh_usage_events_total",
            "Usage events, by model (those with a price; other) and outcome (accepted, unpriced, duplicate, or why it was rejected).", ["model", "outcome"]);
        UsageTokens = factory.CreateCounter("tensormesh_usage_tokens_total",
            "Tokens of accepted events, by model and type (input, cached, output). Cached tokens are part of the input.", ["model", "type"]);
        UsageRefused = factory.CreateCounter("tensormesh_usage_requests_refused_total", "Requests with usage that were told to come again, because too many came at once.");
        IngestSeconds = factory.CreateHistogram("tensormesh_usage_ingest_seconds", "From the turn of a request with usage until all of it is on disk.",
            new HistogramConfiguration { Buckets = Histogram.ExponentialBuckets(0.001, 2, 14) });
        UsageDelaySeconds = factory.CreateHistogram("tensormesh_usage_delay_seconds", "From the time of an event until it was accepted.",
            new HistogramConfiguration { Buckets = Histogram.ExponentialBuckets(0.1, 4, 12) });
        UnpricedEvents = factory.CreateGauge("tensormesh_usage_unpriced_events", "Events that wait for a price of their model, and are charged once it has one.");
        UnpricedModels = factory.CreateGauge("tensormesh_usage_unpriced_models", "Models that were used and have no price: GET /v1/billing/serverless-usage and v_serverless_usage name them.");
        KeyConflicts = factory.CreateCounter("tensormesh_web_idempotency_conflicts_total",
            "Requests refused because their idempotency key was used for other content: look into each.");
        // Shown from zero on, so that the first one counts as a rise.
        foreach (var outcome in Enum.GetValues<PaymentCount>()) Payments.WithLabels(NameOf(outcome));
        foreach (var outcome in (AutoTopUpOutcome?[])[.. Enum.GetValues<AutoTopUpOutcome>(), null]) AutoTopUps.WithLabels(NameOf(outcome));
    }

    public CollectorRegistry Registry { get; } = Metrics.NewCustomRegistry();
    public Counter LedgerUnavailable { get; }
    public Counter KeyConflicts { get; }
    private Histogram RequestSeconds { get; }
    private Gauge Connections { get; }
    public Counter EventsRefused { get; }
    public Gauge PaymentMismatches { get; }
    public Counter PaymentsRecovered { get; }
    public Gauge ReconciledAt { get; }
    public Gauge AutoTopUpAccounts { get; }
    public Counter UsageRefused { get; }
    public Histogram IngestSeconds { get; }
    public Gauge UnpricedEvents { get; }
    public Gauge UnpricedModels { get; }
    private Counter UsageEvents { get; }
    private Counter UsageTokens { get; }
    private Histogram UsageDelaySeconds { get; }
    private Counter Payments { get; }
    private Counter AutoTopUps { get; }
    private Counter PaymentEvents { get; }

    public void CountPayment(PaymentCount outcome) => Payments.WithLabels(NameOf(outcome)).Inc();

    /// <param name="outcome">Null: in doubt.</param>
    public void CountAutoTopUp(AutoTopUpOutcome? outcome) => AutoTopUps.WithLabels(NameOf(outcome)).Inc();

    private static string NameOf(PaymentCount outcome) => outcome switch
    {
        PaymentCount.Succeeded => "succeeded",
        PaymentCount.Declined => "declined",
        PaymentCount.AuthenticationRequired => "authentication_required",
        PaymentCount.InDoubt => "in_doubt",
    };

    private static string NameOf(AutoTopUpOutcome? outcome) => outcome?.ToString() ?? "InDoubt";

    public void CountEvent(string type, PaymentEffect effect)
        => PaymentEvents.WithLabels(Tensormesh.Billing.PaymentEvents.Types.Contains(type) ? type : "other", effect.ToString()).Inc();

    /// <summary>Models that have a price: names that callers write are no labels.</summary>
    public void KnowModels(IEnumerable<string> models) => pricedModels = models.Take(MostModels).ToHashSet(StringComparer.Ordinal);

    public void CountUnreadable() => UsageEvents.WithLabels(OtherModel, nameof(UsageRefusal.Unreadable)).Inc();

    public void CountUsage(IReadOnlyList<UsageEvent> events, UsageReceipt receipt, DateTimeOffset now)
    {
        var (outcomes, tokens) = (new Dictionary<(string, string), int>(), new Dictionary<string, TokenTotals>(StringComparer.Ordinal));
        for (var i = 0; i < events.Count; i++)
        {
            var usage = events[i];
            var model = pricedModels.Contains(usage.Model) ? usage.Model : OtherModel;
            var outcome = receipt.Outcomes[i] switch
            {
                UsageOutcome.Rejected rejected => rejected.Reason.ToString(),
                UsageOutcome.Duplicate => "duplicate",
                _ => receipt.Unpriced.ContainsKey(usage.Model) ? "unpriced" : "accepted",
            };
            outcomes[(model, outcome)] = outcomes.GetValueOrDefault((model, outcome)) + 1;
            if (receipt.Outcomes[i] is not UsageOutcome.Accepted) continue;
            tokens[model] = tokens.GetValueOrDefault(model) + new TokenTotals(usage.Input, usage.Cached, usage.Output);
            UsageDelaySeconds.Observe(Math.Max(0, (now - usage.At).TotalSeconds));
        }

        foreach (var ((model, outcome), count) in outcomes) UsageEvents.WithLabels(model, outcome).Inc(count);
        foreach (var (model, total) in tokens)
        {
            UsageTokens.WithLabels(model, "input").Inc(total.Input);
            UsageTokens.WithLabels(model, "cached").Inc(total.Cached);
            UsageTokens.WithLabels(model, "output").Inc(total.Output);
        }
    }

    public async Task MeasureAsync(HttpContext context, RequestDelegate next, TimeProvider time)
    {
        var began = time.GetTimestamp();
        try
        {
            await next(context);
        }
        finally
        {
            // The exception handler forgets the endpoint, and keeps it in its feature.
            var endpoint = context.Features.Get<IExceptionHandlerFeature>()?.Endpoint ?? context.GetEndpoint();
            var route = (endpoint as RouteEndpoint)?.RoutePattern.RawText ?? "none";
            var method = Methods.Contains(context.Request.Method) ? context.Request.Method : "other";
            RequestSeconds.WithLabels(route, method,
                context.Response.StatusCode.ToString(System.Globalization.CultureInfo.InvariantCulture))
                .Observe(time.GetElapsedTime(began).TotalSeconds);
        }
    }
}

/// <summary>How an attempt to charge a card ended.</summary>
internal enum PaymentCount { Succeeded, Declined, AuthenticationRequired, InDoubt }
