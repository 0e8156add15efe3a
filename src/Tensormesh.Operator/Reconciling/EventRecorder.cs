using k8s;
using k8s.Autorest;
using k8s.Models;
using Tensormesh.Operator.Telemetry;
using Tensormesh.Resources;

namespace Tensormesh.Operator.Reconciling;

/// <summary>Writes Kubernetes Events. An Event that cannot be written is counted and forgotten: it must never stop the loop.</summary>
internal sealed class EventRecorder(IKubernetes client, OperatorMetrics metrics, TimeProvider time)
{
    /// <summary>The server refuses longer notes.</summary>
    private const int LongestMessage = 1024;

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
        try
        {
            await client.CoreV1.CreateNamespacedEventAsync(story, ns, cancellationToken: cancellation).ConfigureAwait(false);
        }
        catch (Exception fault) when (fault is HttpOperationException or HttpRequestException)
        {
            metrics.EventsDropped.Inc();
        }
    }
}
