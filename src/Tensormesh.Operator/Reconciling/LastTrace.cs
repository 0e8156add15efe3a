using k8s;
using k8s.Autorest;
using Tensormesh.Billing;
using Tensormesh.Operator.Watching;

namespace Tensormesh.Operator.Reconciling;

/// <summary>
/// When a pod ended that is no longer there to say so: never later than it truly did. In this order: the kubelet's Event of its killing, which outlives the
/// pod by an hour; the moment at which this process saw it go; and, where nobody was watching, the instant up to which it is settled.
/// </summary>
internal sealed class LastTrace(IKubernetes client, Departures departures, RunIntervals runs, CreditPolicy policy, TimeProvider time)
{
    /// <returns>True when this call ended the run.</returns>
    public async Task<bool> CloseAsync(string @namespace, PodId pod, CancellationToken cancellation)
    {
        var ended = await KilledAtAsync(@namespace, pod, cancellation).ConfigureAwait(false) ?? departures.Of(pod.ToString());
        return ended is { } at
            ? await runs.CloseAsync(pod, Instants.Earlier(at, time.GetUtcNow()), policy, cancellation).ConfigureAwait(false)
            : await runs.CloseWhereSettledAsync(pod, policy, cancellation).ConfigureAwait(false);
    }

    private async Task<DateTimeOffset?> KilledAtAsync(string @namespace, PodId pod, CancellationToken cancellation)
    {
        try
        {
            var events = await client.CoreV1.ListNamespacedEventAsync(
                @namespace, fieldSelector: $"involvedObject.uid={pod},reason=Killing", cancellationToken: cancellation).ConfigureAwait(false);
            // A container that failed its probes was killed as well, and started again: the last one counts.
            var last = events.Items.Select(each => each.LastTimestamp ?? each.EventTime).Max();
            return last is { } at ? new DateTimeOffset(DateTime.SpecifyKind(at, DateTimeKind.Utc)) : null;
        }
        catch (HttpOperationException)
        {
            // Without the permission, or the namespace, there is one trace less.
            return null;
        }
    }
}
