using System.Threading.Channels;
using k8s;
using k8s.Autorest;
using k8s.Models;
using Tensormesh.Operator.Telemetry;
using Tensormesh.Resources;

namespace Tensormesh.Operator.Reconciling;

/// <summary>
/// Writes Kubernetes Events, beside the loop and not in it: people read them, and no decision waits for one. An Event that cannot be written is counted and
/// forgotten: it must never stop the loop.
/// </summary>
internal sealed class EventRecorder(IKubernetes client, OperatorMetrics metrics, TimeProvider time)
{
    /// <summary>The server refuses longer notes.</summary>
    private const int LongestMessage = 1024;
    /// <summary>Events that wait to be written. Whoever has more to tell waits for its turn.</summary>
    private const int Waiting = 1000;

    private readonly Channel<Corev1Event> queue = Channel.CreateBounded<Corev1Event>(Waiting);

    /// <summary>Writes what is told, one after the other, until cancelled.</summary>
    public async Task RunAsync(CancellationToken cancellation)
    {
        try
        {
            await foreach (var story in queue.Reader.ReadAllAsync(cancellation).ConfigureAwait(false)) await WriteAsync(story, cancellation).ConfigureAwait(false);
        }
        catch (OperationCanceledException) when (cancellation.IsCancellationRequested)
        {
        }
    }

    public async Task RecordAsync(IKubernetesObject<V1ObjectMeta> about, bool warning, string reason, string message, CancellationToken cancellation)
    {
        var now = time.GetUtcNow().UtcDateTime;
        var ns = about.Metadata.NamespaceProperty ?? "default";
        var story = new Corev1Event
        {
            Metadata = new V1ObjectMeta { Name = $"{about.Metadata.Name}.{Guid.NewGuid():N}"[..Math.Min(about.Metadata.Name.Length + 17, 253)], NamespaceProperty = ns },
            InvolvedObject = new V1ObjectReference
            {
                ApiVersion = about.ApiVersion,
                Kind = about.Kind,
                Name = about.Metadata.Name,
                NamespaceProperty = about.Metadata.NamespaceProperty,
                Uid = about.Metadata.Uid,
                ResourceVersion = about.Metadata.ResourceVersion,
            },
            Type = warning ? "Warning" : "Normal",
            Reason = reason,
            Message = message.Length <= LongestMessage ? message : message[..LongestMessage],
            FirstTimestamp = now,
            LastTimestamp = now,
            Count = 1,
            Source = new V1EventSource { Component = WellKnown.FieldManager },
        };
        await queue.Writer.WriteAsync(story, cancellation).ConfigureAwait(false);
    }

    private async Task WriteAsync(Corev1Event story, CancellationToken cancellation)
    {
        try
        {
            await client.CoreV1.CreateNamespacedEventAsync(story, story.Metadata.NamespaceProperty, cancellationToken: cancellation).ConfigureAwait(false);
        }
        catch (Exception fault) when (fault is HttpOperationException or HttpRequestException)
        {
            metrics.EventsDropped.Inc();
        }
    }
}
