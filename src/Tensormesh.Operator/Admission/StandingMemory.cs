using System.Collections.Concurrent;
using Tensormesh.Billing;

namespace Tensormesh.Operator.Admission;

/// <summary>
/// Standings that were read a moment ago, for advice alone: the webhook admits from memory what it would have admitted then, and never
/// refuses from it. Whatever the ledger tells of is forgotten; what it may have told of while nobody listened is too; and nothing is
/// kept for long, so that a lost hint makes advice wrong for seconds. Money is reserved by the reconciler, from the ledger, under a lock.
/// </summary>
internal sealed class StandingMemory(TimeProvider time)
{
    private static readonly TimeSpan Freshness = TimeSpan.FromSeconds(10);
    /// <summary>Beyond this many accounts all are forgotten: a bound on memory, not a policy.</summary>
    private const int MaxAccounts = 10_000;

    private sealed record Reading(Standing Standing, long At);

    private readonly ConcurrentDictionary<AccountId, Reading> readings = new();
    private long changes;
    private volatile bool listening;

    /// <summary>To be taken before a reading that is kept: what changed meanwhile makes it too old.</summary>
    public long Now => Interlocked.Read(ref changes);

    /// <summary>Null when nothing is known that is good enough.</summary>
    public Standing? Find(AccountId account)
        => listening && readings.TryGetValue(account, out var reading) && time.GetElapsedTime(reading.At) < Freshness ? reading.Standing : null;

    public void Keep(Standing standing, long asOf)
    {
        if (!listening || asOf != Now) return;
        if (readings.Count >= MaxAccounts) readings.Clear();
        readings[standing.Account] = new Reading(standing, time.GetTimestamp());
        // A change that was told between the question and the line above has looked for the reading too early.
        if (asOf != Now) readings.TryRemove(standing.Account, out _);
    }

    public void Forget(AccountId account)
    {
        Interlocked.Increment(ref changes);
        readings.TryRemove(account, out _);
    }

    /// <summary>From here on changes are heard, or no longer.</summary>
    public void Listen(bool heard)
    {
        listening = heard;
        Interlocked.Increment(ref changes);
        readings.Clear();
    }
}
