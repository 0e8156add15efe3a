using Npgsql;
using Tensormesh.Billing;
using Tensormesh.Operator.Admission;

namespace Tensormesh.Operator.Watching;

/// <summary>
/// Turns the ledger's NOTIFY into work: the account whose money, cards or holds changed. Only a hint: whatever is lost while
/// the connection is down is made up for by looking at everything once it is back, and by the resync.
/// </summary>
internal sealed partial class StandingListener(
    NpgsqlDataSource dataSource, StandingMemory memory, TimeProvider time, ILogger<StandingListener> logger)
{
    private static readonly TimeSpan Pause = TimeSpan.FromSeconds(1);
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
                connection.Notification += (_, notification) =>
                {
                    var account = new AccountId(notification.Payload);
                    memory.Forget(account);
                    changed(account);
                };
                await using (var listen = new NpgsqlCommand($"LISTEN {StandingChannel.Name}", connection))
                {
                    await listen.ExecuteNonQueryAsync(cancellation).ConfigureAwait(false);
                }

                memory.Listen(true);
                connected();
                while (true)
                {
                    if (await connection.WaitAsync(KeepAlive, cancellation).ConfigureAwait(false)) continue;
                    await using var ping = new NpgsqlCommand("SELECT 1", connection);
                    await ping.ExecuteScalarAsync(cancellation).ConfigureAwait(false);
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

    [LoggerMessage(Level = LogLevel.Warning, Message = "Listening to the ledger broke and will be started again: {Reason}")]
    private static partial void LogBroken(ILogger logger, string reason);
}
