using Tensormesh.Billing;
using Tensormesh.Operator.Telemetry;

namespace Tensormesh.Operator.Proving;

/// <summary>
/// Seals what was posted, and proves it with all that came before, in small steps. A difference is told and nothing is done about it: what
/// somebody changed past every trigger needs a person. Whoever writes down the hashes in the log can prove later that nothing was taken away.
/// </summary>
internal sealed partial class LedgerProver(LedgerSeals seals, LedgerProof proof, OperatorMetrics metrics, TimeProvider time, ILogger<LedgerProver> logger)
{
    private static readonly TimeSpan Period = TimeSpan.FromSeconds(30);

    private LedgerDifference? told;

    /// <summary>Runs while this process leads.</summary>
    public async Task RunAsync(CancellationToken cancellation)
    {
        using var timer = new PeriodicTimer(Period, time);
        do
        {
            try
            {
                await StepAsync(cancellation).ConfigureAwait(false);
            }
            catch (Exception fault) when (fault is not OperationCanceledException)
            {
                // What cannot be proven now must not end what charges and starts.
                if (LedgerAvailability.IsUnavailable(fault)) LogPutOff(logger, fault.Message);
                else LogFault(logger, fault);
            }
        }
        while (await timer.WaitForNextTickAsync(cancellation).ConfigureAwait(false));
    }

    private async Task StepAsync(CancellationToken cancellation)
    {
        if (await seals.SealAsync(cancellation).ConfigureAwait(false) is { } result)
        {
            metrics.LedgerSealedPosition.Set(result.Position);
            if (result.Transactions > 0) LogSealed(logger, result.Transactions, result.Position, result.Hash);
        }

        var step = await proof.StepAsync(cancellation).ConfigureAwait(false);
        if (step.Difference is { } difference)
        {
            metrics.LedgerImbalance.Set(1);
            if (difference != told) LogDifference(logger, difference);
            told = difference;
        }
        else if (step.Whole)
        {
            metrics.LedgerImbalance.Set(0);
            if (told is not null) LogSound(logger, step.Position);
            told = null;
        }
    }

    [LoggerMessage(Level = LogLevel.Information, Message = "{Count} ledger transactions sealed up to position {Position}, hash {Hash}")]
    private static partial void LogSealed(ILogger logger, int count, long position, string hash);

    [LoggerMessage(Level = LogLevel.Critical, Message = "The ledger is not sound: {Difference}")]
    private static partial void LogDifference(ILogger logger, LedgerDifference difference);

    [LoggerMessage(Level = LogLevel.Warning, Message = "The ledger is sound again up to position {Position}")]
    private static partial void LogSound(ILogger logger, long position);

    [LoggerMessage(Level = LogLevel.Warning, Message = "The ledger was not proven, and will be later: it cannot be reached: {Reason}")]
    private static partial void LogPutOff(ILogger logger, string reason);

    [LoggerMessage(Level = LogLevel.Error, Message = "The ledger could not be proven, and will be tried again")]
    private static partial void LogFault(ILogger logger, Exception fault);
}
