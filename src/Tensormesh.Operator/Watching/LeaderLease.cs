using System.Net;
using k8s;
using k8s.Autorest;
using k8s.Models;
using Tensormesh.Operator.Telemetry;

namespace Tensormesh.Operator.Watching;

/// <summary>Where the lease is, and how patient it is.</summary>
internal sealed record LeaseOptions
{
    public string Namespace { get; init; } = "default";
    public string Name { get; init; } = "tensormesh-operator";
    public string Identity { get; init; } = Environment.MachineName + "_" + Guid.NewGuid().ToString("N")[..8];
    /// <summary>A holder that has not renewed for this long has lost it.</summary>
    public TimeSpan Duration { get; init; } = TimeSpan.FromSeconds(15);
    /// <summary>The holder gives up by itself after this long without a renewal: before anyone else may take over.</summary>
    public TimeSpan RenewDeadline { get; init; } = TimeSpan.FromSeconds(10);
    public TimeSpan RetryPeriod { get; init; } = TimeSpan.FromSeconds(2);
}

/// <summary>This process may lead no more, or does not know yet whether it may.</summary>
internal sealed class LeaseLapsedException() : InvalidOperationException("the leader lease was not renewed in time");

/// <summary>
/// Leadership by a coordination Lease. It is for liveness only: the database's keys and locks, not this lease, keep two operators
/// that both believe they lead from charging twice. Expiry is judged by how long *we* have seen the record unchanged, on the
/// monotonic clock, never by comparing another machine's clock with ours.
/// </summary>
internal sealed partial class LeaderLease(IKubernetes client, LeaseOptions options, OperatorMetrics metrics, TimeProvider time, ILogger<LeaderLease> logger)
{
    private string? observedRecord;
    private long observedSince;
    private long renewedAt;
    private volatile bool leading;

    public bool IsLeader => leading;

    public string Identity => options.Identity;

    /// <summary>True while this process believes it leads but could not renew for half of the deadline.</summary>
    public bool InDoubt => leading && time.GetElapsedTime(Interlocked.Read(ref renewedAt)) > options.RenewDeadline / 2;

    /// <summary>
    /// Asked before each change to the cluster: a process that was paused and wakes up finds here that its time is over, before it has
    /// asked anyone.
    /// </summary>
    /// <exception cref="LeaseLapsedException">It was not renewed for as long as its holder may rely on it.</exception>
    public void ThrowIfLapsed()
    {
        if (!leading || time.GetElapsedTime(Interlocked.Read(ref renewedAt)) > options.RenewDeadline) throw new LeaseLapsedException();
    }

    /// <summary>Waits for the lease, runs <paramref name="lead"/> while it is held, and returns when it is lost, given up or cancelled.</summary>
    public async Task RunAsync(Func<CancellationToken, Task> lead, CancellationToken cancellation)
    {
        // A lease counts from when it was asked for: one that took long to get is renewed before anything is done in its name.
        while (!await TryHoldAsync(cancellation).ConfigureAwait(false) || NotPastDeadline(options.RenewDeadline) < options.RenewDeadline / 2)
        {
            await Task.Delay(options.RetryPeriod, time, cancellation).ConfigureAwait(false);
        }

        SetLeading(true);
        LogAcquired(logger, options.Identity);
        using var term = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        var work = lead(term.Token);
        try
        {
            await RenewUntilLostAsync(work, cancellation).ConfigureAwait(false);
        }
        finally
        {
            SetLeading(false);
            await term.CancelAsync().ConfigureAwait(false);
            try
            {
                await work.ConfigureAwait(false);
            }
            catch (OperationCanceledException)
            {
            }

            if (cancellation.IsCancellationRequested) await ReleaseAsync().ConfigureAwait(false);
        }
    }

    private async Task RenewUntilLostAsync(Task work, CancellationToken cancellation)
    {
        while (!cancellation.IsCancellationRequested && !work.IsCompleted)
        {
            try
            {
                await Task.WhenAny(work, Task.Delay(NotPastDeadline(options.RetryPeriod), time, cancellation)).ConfigureAwait(false);
                // A server that accepts and never answers must not keep us believing.
                using var attempt = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
                attempt.CancelAfter(NotPastDeadline(options.RenewDeadline / 2));
                if (await TryHoldAsync(attempt.Token).ConfigureAwait(false)) continue;
            }
            catch (OperationCanceledException) when (!cancellation.IsCancellationRequested)
            {
            }

            if (time.GetElapsedTime(Interlocked.Read(ref renewedAt)) <= options.RenewDeadline) continue;
            LogLost(logger, options.Identity);
            return;
        }
    }

    private TimeSpan NotPastDeadline(TimeSpan wait)
    {
        var left = options.RenewDeadline - time.GetElapsedTime(Interlocked.Read(ref renewedAt));
        return left < TimeSpan.Zero ? TimeSpan.Zero : left < wait ? left : wait;
    }

    /// <summary>Takes or renews the lease; false when another holds it or the server cannot say.</summary>
    private async Task<bool> TryHoldAsync(CancellationToken cancellation)
    {
        try
        {
            var began = time.GetTimestamp();
            V1Lease lease;
            try
            {
                lease = await client.CoordinationV1.ReadNamespacedLeaseAsync(options.Name, options.Namespace, cancellationToken: cancellation).ConfigureAwait(false);
            }
            catch (HttpOperationException missing) when (missing.Response.StatusCode == HttpStatusCode.NotFound)
            {
                await client.CoordinationV1.CreateNamespacedLeaseAsync(Claim(new V1Lease(), 0), options.Namespace, cancellationToken: cancellation).ConfigureAwait(false);
                Interlocked.Exchange(ref renewedAt, began);
                return true;
            }

            var mine = lease.Spec?.HolderIdentity == options.Identity;
            if (!mine && !string.IsNullOrEmpty(lease.Spec?.HolderIdentity) && !Expired(lease)) return false;
            var transitions = lease.Spec?.LeaseTransitions ?? 0;
            // The resourceVersion of what was read makes the server refuse a write over somebody else's.
            await client.CoordinationV1.ReplaceNamespacedLeaseAsync(
                Claim(lease, mine ? transitions : transitions + 1), options.Name, options.Namespace, cancellationToken: cancellation).ConfigureAwait(false);
            Interlocked.Exchange(ref renewedAt, began);
            return true;
        }
        catch (HttpOperationException refused)
        {
            // A conflict is the ordinary loss of a race; a 403 is a missing permission that would otherwise be waited on in silence.
            if (refused.Response.StatusCode != HttpStatusCode.Conflict) LogRefused(logger, (int)refused.Response.StatusCode, refused.Response.Content);
            return false;
        }
        catch (HttpRequestException fault)
        {
            LogRefused(logger, 0, fault.Message);
            return false;
        }
    }

    /// <summary>A record is expired when we have watched it stay the same for its own duration.</summary>
    private bool Expired(V1Lease lease)
    {
        var record = lease.Spec.HolderIdentity + "/" + lease.Spec.RenewTime?.ToString("O", System.Globalization.CultureInfo.InvariantCulture);
        if (record != observedRecord)
        {
            observedRecord = record;
            observedSince = time.GetTimestamp();
            return false;
        }

        return time.GetElapsedTime(observedSince) > TimeSpan.FromSeconds(lease.Spec.LeaseDurationSeconds ?? (int)options.Duration.TotalSeconds);
    }

    private V1Lease Claim(V1Lease lease, int transitions)
    {
        var now = MicroTime(time.GetUtcNow());
        lease.Metadata ??= new V1ObjectMeta();
        lease.Metadata.Name = options.Name;
        var acquired = lease.Spec?.HolderIdentity == options.Identity ? lease.Spec.AcquireTime : now;
        lease.Spec = new V1LeaseSpec
        {
            HolderIdentity = options.Identity,
            LeaseDurationSeconds = (int)options.Duration.TotalSeconds,
            AcquireTime = acquired is { } kept ? MicroTime(kept) : now,
            RenewTime = now,
            LeaseTransitions = transitions,
        };
        return lease;
    }

    /// <summary>
    /// The server reads a MicroTime with exactly six fractional digits, and the client writes none for a whole second: a time
    /// that falls on one is moved by a microsecond.
    /// </summary>
    internal static DateTime MicroTime(DateTimeOffset instant)
    {
        var whole = new DateTime(instant.UtcTicks / TimeSpan.TicksPerMicrosecond * TimeSpan.TicksPerMicrosecond, DateTimeKind.Utc);
        return whole.Ticks % TimeSpan.TicksPerSecond == 0 ? whole.AddMicroseconds(1) : whole;
    }

    /// <summary>An orderly stop gives the lease back, so that the next operator need not wait it out.</summary>
    private async Task ReleaseAsync()
    {
        using var limit = new CancellationTokenSource(options.RetryPeriod, time);
        try
        {
            var lease = await client.CoordinationV1.ReadNamespacedLeaseAsync(options.Name, options.Namespace, cancellationToken: limit.Token).ConfigureAwait(false);
            if (lease.Spec?.HolderIdentity != options.Identity) return;
            lease.Spec.HolderIdentity = "";
            lease.Spec.RenewTime = MicroTime(time.GetUtcNow());
            lease.Spec.AcquireTime = lease.Spec.AcquireTime is { } acquired ? MicroTime(acquired) : null;
            await client.CoordinationV1.ReplaceNamespacedLeaseAsync(lease, options.Name, options.Namespace, cancellationToken: limit.Token).ConfigureAwait(false);
        }
        catch (Exception fault) when (fault is HttpOperationException or HttpRequestException or OperationCanceledException)
        {
            LogRefused(logger, 0, fault.Message);
        }
    }

    private void SetLeading(bool value)
    {
        leading = value;
        metrics.Leader.Set(value ? 1 : 0);
    }

    [LoggerMessage(Level = LogLevel.Information, Message = "Leading as {Identity}")]
    private static partial void LogAcquired(ILogger logger, string identity);

    [LoggerMessage(Level = LogLevel.Error, Message = "Lost the lease as {Identity}: it could not be renewed in time")]
    private static partial void LogLost(ILogger logger, string identity);

    [LoggerMessage(Level = LogLevel.Warning, Message = "The lease could not be written: {Status} {Reason}")]
    private static partial void LogRefused(ILogger logger, int status, string reason);
}
