using Npgsql;

namespace Tensormesh.Billing;

/// <summary>
/// The fence between operators that both believe they lead. The leader takes the next epoch when it gets the lease, and every SQL
/// transaction in which it writes asks, under the locks that it took, whether that is still the newest. One that was paused while
/// another took over is refused, and writes nothing. Programs that do not lead (the Web API) have no epoch and are not asked.
/// </summary>
public sealed class OperatorEpoch(NpgsqlDataSource dataSource)
{
    private readonly NpgsqlDataSource dataSource = dataSource;
    private long taken;

    /// <summary>Takes the next epoch: from the return of this call on, no earlier holder begins to write.</summary>
    /// <param name="holder">Who leads, for the message that an earlier holder gets.</param>
    public Task<long> TakeAsync(string holder, CancellationToken cancellation)
        => Transact.UseAsync(dataSource, async connection =>
        {
            await using var command = new NpgsqlCommand(
                "update operator_epoch set epoch = epoch + 1, holder = $1, taken_at = clock_timestamp() returning epoch", connection);
            command.Parameters.Add(Transact.Value(holder));
            var next = (long)(await command.ExecuteScalarAsync(cancellation))!;
            Interlocked.Exchange(ref taken, next);
            return next;
        }, cancellation);

    /// <summary>True for the error with which a write is refused because another operator took a later epoch.</summary>
    public static bool IsOver(Exception fault) => fault is PostgresException { SqlState: SqlStates.EpochIsOver };

    /// <exception cref="EpochNotTakenException">Nothing may be written yet.</exception>
    internal long Number => Interlocked.Read(ref taken) is var number and > 0 ? number : throw new EpochNotTakenException();

    /// <summary>For a batch that has taken its locks, or whose writes take them: afterwards, for a refusal undoes it all.</summary>
    internal NpgsqlBatchCommand Check() => Transact.Command("select check_operator_epoch($1)", Transact.Value(Number));
}

/// <summary>This process leads, but has not reached the database to say so: to its callers the ledger is away.</summary>
public sealed class EpochNotTakenException() : InvalidOperationException("no epoch was taken from the ledger's database yet");
