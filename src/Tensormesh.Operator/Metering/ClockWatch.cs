using Npgsql;
using Tensormesh.Billing;
using Tensormesh.Operator.Watching;

namespace Tensormesh.Operator.Metering;

/// <summary>Keeps the ledger's clock, and tells when either clock is not what it was.</summary>
internal sealed partial class ClockWatch(LedgerClock clock, NpgsqlDataSource dataSource, TimeProvider time, ILogger<ClockWatch> logger)
{
    /// <summary>Clocks that differ by more than this are worth a line.</summary>
    private static readonly TimeSpan ClockTolerance = TimeSpan.FromSeconds(1);

    public async Task RunAsync(CancellationToken stopping)
    {
        var ahead = TimeSpan.Zero;
        using var timer = new PeriodicTimer(LedgerClock.Interval, time);
        try
        {
            do
            {
                try
                {
                    var moved = await clock.ReadAsync(dataSource, stopping).ConfigureAwait(false);
                    if (moved.Duration() > ClockTolerance) LogLedgerClockMoved(logger, moved);
                }
                catch (Exception away) when (LedgerAvailability.IsUnavailable(away))
                {
                    // The monotonic clock carries on until it answers again.
                }

                if ((clock.MachineIsAhead - ahead).Duration() <= ClockTolerance) continue;
                ahead = clock.MachineIsAhead;
                // In whole seconds: the fraction is the reading's, not the clock's.
                LogMachineClockMoved(logger, TimeSpan.FromSeconds(Math.Round(ahead.TotalSeconds)));
            }
            while (await timer.WaitForNextTickAsync(stopping).ConfigureAwait(false));
        }
        catch (OperationCanceledException) when (stopping.IsCancellationRequested)
        {
        }
    }

    [LoggerMessage(Level = LogLevel.Warning, Message = "This machine's clock is ahead of the ledger's by {Ahead}. Charges follow the ledger's.")]
    private static partial void LogMachineClockMoved(ILogger logger, TimeSpan ahead);

    [LoggerMessage(Level = LogLevel.Warning, Message = "The ledger's clock was moved by {Moved}. Charges follow it.")]
    private static partial void LogLedgerClockMoved(ILogger logger, TimeSpan moved);
}
