using System.Diagnostics;
using Tensormesh.Billing;
using Tensormesh.Operator.Telemetry;
using Tensormesh.Operator.Watching;

namespace Tensormesh.Operator.Metering;

/// <summary>
/// Settles what runs to the ledger at every interval. Settlement only sets how fine the transaction list is; what an account
/// can spend follows from its standing at any instant.
/// </summary>
internal sealed partial class MeteringClock(
    ClusterView cluster, Accounts accounts, Meter meter, CreditGrants grants, CreditPolicy policy, OperatorMetrics metrics, TimeProvider time, ILogger<MeteringClock> logger)
{
    /// <summary>Beyond this many changes all are forgotten, and told of once more: a bound on memory, not a policy.</summary>
    private const int MaxRemembered = 10_000;

    private readonly HashSet<ActivityTraceId> posted = [];

    /// <summary>When all was settled last; 0 until the clock runs. Read by whoever shows it.</summary>
    private long lastWhole;

    /// <summary>Grows while a settlement hangs as well as while it fails.</summary>
    public TimeSpan Lag => Interlocked.Read(ref lastWhole) is not 0 and var at ? time.GetElapsedTime(at) : TimeSpan.Zero;

    /// <summary>
    /// Runs while this process leads. <paramref name="caughtUp"/> ends once every pod's end that happened before is recorded; <paramref name="settled"/> is
    /// told each account that was charged, so that what is shown of it is brought up to date.
    /// </summary>
    public async Task RunAsync(Task caughtUp, Action<AccountId> settled, CancellationToken cancellation)
    {
        Interlocked.Exchange(ref lastWhole, time.GetTimestamp());
        // Whatever ended while no operator watched must be recorded first, or it would be charged past its end and corrected after.
        await caughtUp.WaitAsync(cancellation).ConfigureAwait(false);
        using var timer = new PeriodicTimer(policy.SettlementInterval, time);
        do
        {
            try
            {
                await SettleAllAsync(settled, cancellation).ConfigureAwait(false);
                Interlocked.Exchange(ref lastWhole, time.GetTimestamp());
            }
            catch (Exception fault) when (LedgerAvailability.IsUnavailable(fault))
            {
                LogNotSettled(logger, fault.Message);
            }
        }
        while (await timer.WaitForNextTickAsync(cancellation).ConfigureAwait(false));
    }

    private async Task SettleAllAsync(Action<AccountId> settled, CancellationToken cancellation)
    {
        var until = time.GetUtcNow() - policy.SettlementLag;
        foreach (var account in await accounts.ListAsync(cancellation).ConfigureAwait(false))
        {
            Settlement settlement;
            try
            {
                using var span = OperatorTrace.Settlement(account);
                settlement = await meter.SettleAsync(account, until, cancellation, policy.TokenSettlementInterval).ConfigureAwait(false);
                if (span is not null) TellPosted(account, settlement, span.Context);
            }
            catch (Exception fault) when (fault is not OperationCanceledException && !LedgerAvailability.IsUnavailable(fault) && !OperatorEpoch.IsOver(fault))
            {
                // One account whose books refuse a settlement must not keep all the others from theirs.
                metrics.SettlementFaults.Inc();
                LogAccountNotSettled(logger, fault, account.Value);
                continue;
            }

            if (settlement.Windows == 0 && settlement.TokenTransactions == 0) continue;
            metrics.Windows.Inc(settlement.Windows);
            metrics.Charged.Inc(settlement.Charged.Nanos / (double)Money.NanosPerUnit);
            metrics.TokensCharged.Inc(settlement.Tokens.Nanos / (double)Money.NanosPerUnit);
            if (settlement.OldestTokensAt is { } used) metrics.TokenPostingSeconds.Observe(Math.Max(0, (time.GetUtcNow() - used).TotalSeconds));
            settled(account);
            LogSettled(logger, account.Value, settlement.Windows, settlement.Charged, settlement.Tokens);
        }

        try
        {
            // After what ran until then is charged, which the grants that end pay for.
            foreach (var account in await grants.ExpireAsync(until, cancellation).ConfigureAwait(false)) settled(account);
        }
        catch (Exception fault) when (fault is not OperationCanceledException && !LedgerAvailability.IsUnavailable(fault) && !OperatorEpoch.IsOver(fault))
        {
            LogGrantsNotEnded(logger, fault);
        }
    }

    /// <summary>Once for each change: a trace tells of the first posting, and the ledger of all.</summary>
    private void TellPosted(AccountId account, Settlement settlement, ActivityContext span)
    {
        foreach (var (id, ns, name) in settlement.Deployments)
        {
            var deployment = cluster.GpuDeployments.Find(ObjectKey.Of(ns, name));
            if (deployment?.Metadata.Uid != id.ToString() || OperatorTrace.ChangeOf(deployment) is not { } change) continue;
            if (posted.Count >= MaxRemembered) posted.Clear();
            if (posted.Add(change)) OperatorTrace.Posted(ObjectKey.Of(ns, name), change, account, span);
        }
    }

    [LoggerMessage(Level = LogLevel.Information, Message = "{Account}: {Windows} windows settled, {Charged} charged for them and {Tokens} for tokens")]
    private static partial void LogSettled(ILogger logger, string account, int windows, Money charged, Money tokens);

    [LoggerMessage(Level = LogLevel.Error, Message = "{Account}: could not be settled, and will be tried again")]
    private static partial void LogAccountNotSettled(ILogger logger, Exception fault, string account);

    [LoggerMessage(Level = LogLevel.Error, Message = "Grants that expired could not be ended, and will be tried again")]
    private static partial void LogGrantsNotEnded(ILogger logger, Exception fault);

    [LoggerMessage(Level = LogLevel.Warning, Message = "Nothing was settled, and all of it will be later: the ledger cannot be reached: {Reason}")]
    private static partial void LogNotSettled(ILogger logger, string reason);
}
