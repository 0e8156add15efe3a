using Npgsql;
using Tensormesh.Billing;
using Tensormesh.Operator.Admission;
using Tensormesh.Operator.Reconciling;

namespace Tensormesh.Operator.Watching;

/// <summary>
/// Turns the ledger's NOTIFY into work: the account whose money, cards or holds changed. Only a hint: whatever is lost while
/// the connection is down is made up for by looking at everything once it is back, and by the resync. A pooler in transaction mode lets
/// no hint through: it is told by a probe that does not come back, and then nothing is remembered on the word of hints.
/// </summary>
internal sealed partial class StandingListener(
    NpgsqlDataSource dataSource, StandingMemory memory, TimeProvider time, ILogger<StandingListener> logger)
{
    private static readonly TimeSpan Pause = TimeSpan.FromSeconds(1);
    private static readonly TimeSpan ProbeInterval = TimeSpan.FromSeconds(5);
    /// <summary>A connection on which nothing came for this long is asked whether it still lives.</summary>
    private static readonly TimeSpan KeepAlive = TimeSpan.FromSeconds(30);

    /// <param name="changed">Called with the account.</param>
    /// <param name="connected">Called after each (re)connection: anything may have been missed.</param>
    public async Task RunAsync(Action<AccountId> changed, Action connected, CancellationToken cancellation)
    {
        while (!cancellation.IsCancellationRequested)
        {
            try
            {
                await using var connection = await dataSource.OpenConnectionAsync(cancellation).ConfigureAwait(false);
                var (probe, hears, told) = (Guid.NewGuid().ToString(), false, false);
                connection.Notification += (_, notification) =>
                {
                    if (notification.Channel == StandingChannel.Probe)
                    {
                        if (notification.Payload != probe || hears) return;
                        hears = true;
                        memory.Listen(true);
                        return;
                    }

                    var account = new AccountId(notification.Payload);
                    memory.Forget(account);
                    changed(account);
                };
                await using (var listen = new NpgsqlCommand($"LISTEN {StandingChannel.Name}; LISTEN {StandingChannel.Probe}", connection))
                {
                    await listen.ExecuteNonQueryAsync(cancellation).ConfigureAwait(false);
                }

                connected();
                await ProbeAsync(probe, cancellation).ConfigureAwait(false);
                while (true)
                {
                    if (await connection.WaitAsync(hears ? KeepAlive : ProbeInterval, cancellation).ConfigureAwait(false)) continue;
                    await using var ping = new NpgsqlCommand("SELECT 1", connection);
                    await ping.ExecuteScalarAsync(cancellation).ConfigureAwait(false);
                    if (hears) continue;
                    if (!told) LogDeaf(logger, Decider.Resync);
                    told = true;
                    // After the ping: together, a pooler could bring them to one session, and then that one hint would come.
                    await ProbeAsync(probe, cancellation).ConfigureAwait(false);
                }
            }
            catch (OperationCanceledException) when (cancellation.IsCancellationRequested)
            {
                return;
            }
            catch (Exception fault) when (fault is NpgsqlException or TimeoutException or IOException)
            {
                LogBroken(logger, fault.Message);
                memory.Listen(false);
                await Task.Delay(Pause, time, cancellation).ConfigureAwait(false);
            }
            finally
            {
                memory.Listen(false);
            }
        }
    }

    /// <summary>By another connection than the one that listens. One that is lost is sent again.</summary>
    private async Task ProbeAsync(string probe, CancellationToken cancellation)
    {
        try
        {
            await StandingChannel.ProbeAsync(dataSource, probe, cancellation).ConfigureAwait(false);
        }
        catch (Exception lost) when (LedgerAvailability.IsUnavailable(lost))
        {
        }
    }

    [LoggerMessage(Level = LogLevel.Warning, Message = "The ledger's hints do not come through, as behind a pooler in transaction mode: what money that is added lets run starts up to {Resync} late. Connect the operator to Postgres directly, or by a pooler in session mode.")]
    private static partial void LogDeaf(ILogger logger, TimeSpan resync);

    [LoggerMessage(Level = LogLevel.Warning, Message = "Listening to the ledger broke and will be started again: {Reason}")]
    private static partial void LogBroken(ILogger logger, string reason);
}
