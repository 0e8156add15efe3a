using Tensormesh.Billing;
using Tensormesh.Operator.Telemetry;
using Tensormesh.Operator.Watching;

namespace Tensormesh.Operator.Reconciling;

/// <summary>The loop of the product: observe, decide, act, report.</summary>
internal sealed partial class GpuDeploymentReconciler(
    Observer observer, Applier applier, StatusReporter reporter, CreditPolicy policy, OperatorMetrics metrics, ILogger<GpuDeploymentReconciler> logger)
{
    /// <returns>When to look at the deployment again; null when it is gone.</returns>
    public async Task<DateTimeOffset?> ReconcileAsync(string key, CancellationToken cancellation)
    {
        if (await observer.ObserveAsync(key, cancellation).ConfigureAwait(false) is not { } seen) return null;

        var decision = Decider.Decide(seen, policy);
        Count(seen.Account, decision.Verdict);

        Outcome outcome;
        try
        {
            outcome = await applier.ApplyAsync(seen.Deployment, decision.Changes, cancellation).ConfigureAwait(false);
            if (outcome == Outcome.NameTaken)
            {
                decision = Decider.Decide(seen with { NameTaken = true }, policy);
                outcome = await applier.ApplyAsync(seen.Deployment, decision.Changes, cancellation).ConfigureAwait(false);
            }
        }
        catch (Exception fault) when (LedgerAvailability.IsUnavailable(fault))
        {
            // The ledger went away between reading and writing: what was decided is decided again once it answers.
            metrics.LedgerUp.Set(0);
            LogLedgerLost(logger, key, fault.Message);
            return seen.Now + TimeSpan.FromSeconds(1);
        }

        // A round that the gate ended under the lock is reported by the next one, which sees what the lock saw.
        if (outcome != Outcome.Whole) return seen.Now;
        var owed = decision.Report is { } report ? await reporter.ReportAsync(seen.Deployment, report, cancellation).ConfigureAwait(false) : null;
        LogReconciled(logger, key, decision.Verdict, decision.Changes.Count);
        return owed < decision.LookAgainAt ? owed : decision.LookAgainAt;
    }

    private void Count(AccountId? account, Verdict? verdict)
    {
        metrics.LedgerUp.Set(verdict is Verdict.Hold ? 0 : 1);
        if (verdict is null) return;
        metrics.Verdicts.WithLabels("reconciler", VerdictName(verdict)).Inc();
        OperatorTrace.Note(account, VerdictName(verdict));
    }

    internal static string VerdictName(Verdict verdict) => verdict switch
    {
        Verdict.Admit => "Admit",
        Verdict.Refuse refuse => refuse.Reason.ToString(),
        Verdict.Hold => Verdict.Hold.Reason,
        _ => throw new InvalidOperationException($"unknown verdict {verdict}"),
    };

    [LoggerMessage(Level = LogLevel.Debug, Message = "{Key}: {Verdict}, {Changes} changes")]
    private static partial void LogReconciled(ILogger logger, string key, Verdict? verdict, int changes);

    [LoggerMessage(Level = LogLevel.Warning, Message = "{Key}: the ledger went away in the middle of a round: {Reason}")]
    private static partial void LogLedgerLost(ILogger logger, string key, string reason);
}
