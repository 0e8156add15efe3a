using Npgsql;

namespace Tensormesh.Billing;

/// <summary>
/// The clock of the ledger's database, carried on between two readings by this machine's monotonic clock. Money follows this clock: all
/// programs that share a ledger agree on it, and a step of one machine's wall clock charges nobody and stops nobody. It may lag Postgres
/// by the time that a reading takes, and never runs ahead of it by more. Before the first reading it is the machine's own.
/// </summary>
public sealed class LedgerClock : TimeProvider
{
    /// <summary>How often it is compared with Postgres. Two monotonic clocks drift apart by well under a millisecond in this time.</summary>
    public static readonly TimeSpan Interval = TimeSpan.FromSeconds(10);

    private readonly Lock gate = new();
    private Reading? last;

    /// <summary>What Postgres said, and the monotonic timestamp at which its answer had come.</summary>
    private sealed record Reading(DateTimeOffset Instant, long Timestamp);

    public override DateTimeOffset GetUtcNow() => Volatile.Read(ref last) is { } reading
        ? reading.Instant + GetElapsedTime(reading.Timestamp)
        : base.GetUtcNow();

    /// <summary>How far this machine's wall clock is ahead of the ledger's.</summary>
    public TimeSpan MachineIsAhead => base.GetUtcNow() - GetUtcNow();

    /// <summary>Compares with Postgres.</summary>
    /// <returns>By how much this clock was moved: zero when it was right as far as the reading can tell.</returns>
    public Task<TimeSpan> ReadAsync(NpgsqlDataSource dataSource, CancellationToken cancellation)
        => Transact.UseAsync(dataSource, async connection =>
        {
            await using var command = new NpgsqlCommand("select clock_timestamp()", connection);
            var asked = GetTimestamp();
            var instant = new DateTimeOffset((DateTime)(await command.ExecuteScalarAsync(cancellation))!);
            var reading = new Reading(instant, GetTimestamp());
            lock (gate)
            {
                if (last is null)
                {
                    Volatile.Write(ref last, reading);
                    return TimeSpan.Zero;
                }

                // Postgres' clock is at what it said or after it, by at most the time that asking took. Within that nothing is known better
                // than before, and to take every reading would move the clock back and forth with every slow answer.
                var now = last.Instant + GetElapsedTime(last.Timestamp, reading.Timestamp);
                var behind = instant - now;
                if (behind <= TimeSpan.Zero && now - instant <= GetElapsedTime(asked, reading.Timestamp)) return TimeSpan.Zero;
                Volatile.Write(ref last, reading);
                return behind;
            }
        }, cancellation);
}
