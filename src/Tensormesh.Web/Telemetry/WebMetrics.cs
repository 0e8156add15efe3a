using Microsoft.AspNetCore.Diagnostics;
using Prometheus;
using Tensormesh.Billing;

namespace Tensormesh.Web;

/// <summary>Every instrument of this executable. Labels come from closed sets only, never from what a caller writes.</summary>
internal sealed class WebMetrics
{
    private static readonly string[] Methods = ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"];

    public WebMetrics()
    {
        var factory = Metrics.WithCustomRegistry(Registry);
        DotNetStats.Register(Registry);
        RequestSeconds = factory.CreateHistogram("tensormesh_web_request_seconds", "Time from request to answer.",
            ["route", "method", "status"], new HistogramConfiguration { Buckets = Histogram.ExponentialBuckets(0.001, 2, 14) });
        LedgerUnavailable = factory.CreateCounter("tensormesh_web_ledger_unavailable_total",
            "Requests answered 503 because Postgres could not be reached.");
        var connections = factory.CreateGauge("tensormesh_ledger_connections", "Connections to the ledger's database, by state (busy, idle).", ["state"]);
        Registry.AddBeforeCollectCallback(() =>
        {
            var (busy, idle) = LedgerConnections.Read();
            connections.WithLabels("busy").Set(busy);
            connections.WithLabels("idle").Set(idle);
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
        KeyConflicts = factory.CreateCounter("tensormesh_web_idempotency_conflicts_total",
            "Requests refused because their idempotency key was used for other content: look into each.");
    }

    public CollectorRegistry Registry { get; } = Metrics.NewCustomRegistry();
    public Counter LedgerUnavailable { get; }
    public Counter KeyConflicts { get; }
    private Histogram RequestSeconds { get; }
    public Counter EventsRefused { get; }
    public Gauge PaymentMismatches { get; }
    public Counter PaymentsRecovered { get; }
    public Gauge ReconciledAt { get; }
    public Gauge AutoTopUpAccounts { get; }
    private Counter Payments { get; }
    private Counter AutoTopUps { get; }
    private Counter PaymentEvents { get; }

    public void CountPayment(PaymentCount outcome) => Payments.WithLabels(outcome switch
    {
        PaymentCount.Succeeded => "succeeded",
        PaymentCount.Declined => "declined",
        PaymentCount.AuthenticationRequired => "authentication_required",
        PaymentCount.InDoubt => "in_doubt",
    }).Inc();

    /// <param name="outcome">Null: in doubt.</param>
    public void CountAutoTopUp(AutoTopUpOutcome? outcome) => AutoTopUps.WithLabels(outcome?.ToString() ?? "InDoubt").Inc();

    public void CountEvent(string type, PaymentEffect effect)
        => PaymentEvents.WithLabels(Tensormesh.Billing.PaymentEvents.Types.Contains(type) ? type : "other", effect.ToString()).Inc();

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
