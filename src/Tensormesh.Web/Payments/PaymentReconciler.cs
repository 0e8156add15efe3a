using Tensormesh.Billing;

namespace Tensormesh.Web;

/// <summary>
/// Compares the payment company's books with the ledger, again and again. Each server does; two at once take turns (see
/// <see cref="PaymentReconciliation"/>), so that no leader is needed.
/// </summary>
internal sealed class PaymentReconciler(
    PaymentReconciliation reconciliation, PaymentMismatches mismatches, PaymentMethods cards, WebSettings settings, WebMetrics metrics, TimeProvider time,
    ILogger<PaymentReconciler> log) : BackgroundService
{
    private readonly PaymentReconciliation reconciliation = reconciliation;
    private readonly PaymentMismatches mismatches = mismatches;
    private readonly PaymentMethods cards = cards;
    private readonly TimeSpan every = ((PaymentSettings.Stripe)settings.Payments).ReconcileEvery;
    private readonly WebMetrics metrics = metrics;
    private readonly TimeProvider time = time;
    private readonly ILogger<PaymentReconciler> log = log;

    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        using var timer = new PeriodicTimer(every, time);
        do
        {
            try
            {
                await CompareAsync(stoppingToken);
            }
            catch (Exception failure) when (failure is not OperationCanceledException || !stoppingToken.IsCancellationRequested)
            {
                // The next comparison begins where this one did.
                PaymentLog.NotCompared(log, failure);
            }
        }
        while (await timer.WaitForNextTickAsync(stoppingToken));
    }

    private async Task CompareAsync(CancellationToken cancellation)
    {
        // What is left of the sandbox, after a change to Stripe.
        if (await cards.RetireOthersAsync(cancellation) is > 0 and var retired) PaymentLog.Retired(log, retired);
        if (await reconciliation.CompareAsync(cancellation) is not { } comparison)
        {
            // Another server is at it; what it has found counts here too, because the gauge of any of them may be the one that is read.
            metrics.PaymentMismatches.Set(await mismatches.CountAsync(cancellation));
            return;
        }

        metrics.PaymentMismatches.Set(comparison.Mismatches);
        metrics.PaymentsRecovered.Inc(comparison.Credited);
        metrics.ReconciledAt.Set(time.GetUtcNow().ToUnixTimeSeconds());
        if (comparison.Credited > 0) PaymentLog.Recovered(log, comparison.Credited);
        if (comparison.Mismatches > 0) PaymentLog.Disagrees(log, comparison.Mismatches);
        PaymentLog.Compared(log, comparison.Compared);
    }
}

/// <summary>What the payment company told and what its books showed.</summary>
internal static partial class PaymentLog
{
    [LoggerMessage(Level = LogLevel.Information, Message = "Stripe told {Type} of {Object} ({Event}): {Effect}")]
    public static partial void Received(ILogger log, string type, string @object, string @event, PaymentEffect effect);

    [LoggerMessage(Level = LogLevel.Error, Message = "Stripe told {Type} of {Object} ({Event}), which does not agree with the ledger: see payment_mismatch")]
    public static partial void Mismatch(ILogger log, string type, string @object, string @event);

    [LoggerMessage(Level = LogLevel.Warning, Message = "{Count} payments had succeeded at Stripe without reaching us, and are credited now")]
    public static partial void Recovered(ILogger log, int count);

    [LoggerMessage(Level = LogLevel.Error, Message = "Stripe and the ledger disagree about {Count} payments: see payment_mismatch where resolved_at is null")]
    public static partial void Disagrees(ILogger log, long count);

    [LoggerMessage(Level = LogLevel.Warning, Message = "{Count} cards of another payment company are no longer on file: Stripe does not know them")]
    public static partial void Retired(ILogger log, int count);

    [LoggerMessage(Level = LogLevel.Debug, Message = "Compared {Count} payments with Stripe")]
    public static partial void Compared(ILogger log, int count);

    [LoggerMessage(Level = LogLevel.Warning, Message = "Payments could not be compared with Stripe")]
    public static partial void NotCompared(ILogger log, Exception failure);
}
