using System.Collections.Concurrent;
using k8s;
using k8s.Models;
using Tensormesh.Resources;
using Tensormesh.TestKit;

namespace Tensormesh.Soak;

/// <summary>Writes down when containers began and ended, as their kubelets know it: not by way of the API server, and without a look at the product.</summary>
internal sealed class Witness
{
    private readonly ConcurrentDictionary<Guid, SeenPod> seen = new();

    public Witness(HollowNodes nodes) => nodes.Witness = Look;

    /// <summary>Who pays for each namespace.</summary>
    public ConcurrentDictionary<string, string> Payers { get; } = new(StringComparer.Ordinal);

    public IReadOnlyCollection<SeenPod> Seen => [.. seen.Values];

    private void Look(V1Pod pod, V1ContainerState state)
    {
        if (!Payers.TryGetValue(pod.Namespace(), out var payer)) return;
        var first = new SeenPod(
            Guid.Parse(pod.Uid()), $"{pod.Namespace()}/{pod.Name()}", payer, Stage.ProductsOfNodes[pod.Spec.NodeName],
            pod.Spec.Containers.Sum(each => each.Resources?.Limits?.TryGetValue(WellKnown.GpuResource, out var gpus) == true ? gpus.ToInt32() : 0), null, null);
        seen.AddOrUpdate(first.Uid, With(first, state), (_, before) => With(before, state));
    }

    private static SeenPod With(SeenPod pod, V1ContainerState state) => pod with
    {
        StartedAt = pod.StartedAt ?? Instant(state.Running?.StartedAt ?? state.Terminated?.StartedAt),
        FinishedAt = pod.FinishedAt ?? Instant(state.Terminated?.FinishedAt),
    };

    private static DateTimeOffset? Instant(DateTime? time) => time is { } known ? new DateTimeOffset(DateTime.SpecifyKind(known, DateTimeKind.Utc)) : null;
}
