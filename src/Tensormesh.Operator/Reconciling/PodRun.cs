using k8s.Models;
using Tensormesh.Billing;
using Tensormesh.Resources;

namespace Tensormesh.Operator.Reconciling;

internal static class PodGpus
{
    /// <summary>What the pods themselves were given, which an edit of the GpuDeployment does not change any more.</summary>
    public static int Of(V1PodSpec pod) => pod.Containers
        .Sum(container => container.Resources?.Limits is { } limits && limits.TryGetValue(WellKnown.GpuResource, out var count) ? count.ToInt32() : 0);
}

/// <summary>
/// What one pod's status says about its hold on GPUs. Queueing and image pull are free: the hold begins at the first
/// startedAt of the GPU container. It ends when the pod is over, not when a container restarts: between two restarts the
/// GPUs are still the pod's, and nobody else can have them.
/// </summary>
internal sealed record PodRun(V1Pod Pod, PodId Id, DateTimeOffset? StartedAt, DateTimeOffset? EndedAt, bool Ready)
{
    /// <summary>How long after its grace a pod may take to report the true end of its container before the best evidence is taken instead.</summary>
    internal static readonly TimeSpan LostPatience = TimeSpan.FromMinutes(2);

    public bool Deleting => Pod.Metadata.DeletionTimestamp is not null;

    /// <summary>Neither over nor on its way out.</summary>
    public bool Live => EndedAt is null && !Deleting && Pod.Status?.Phase is not ("Succeeded" or "Failed");

    public bool HasFinalizer => Pod.Metadata.Finalizers?.Contains(WellKnown.MeteringFinalizer) == true;

    /// <param name="nodeExists">False when the pod's node is gone from the cluster: nothing there can report an end any more.</param>
    /// <param name="silentSince">Since when the node's kubelet is not heard; null while it is.</param>
    public static PodRun From(V1Pod pod, bool nodeExists, DateTimeOffset now, DateTimeOffset? silentSince = null)
    {
        var container = GpuContainer(pod);
        var lost = nodeExists ? silentSince : MarkedLost(pod);
        return new PodRun(pod, new PodId(Guid.Parse(pod.Metadata.Uid)), FirstStart(container), End(pod, container, nodeExists, lost, now), IsReady(pod));
    }

    private static V1ContainerStatus? GpuContainer(V1Pod pod)
    {
        var statuses = pod.Status?.ContainerStatuses;
        if (statuses is null || statuses.Count == 0) return null;
        var name = pod.Metadata.Annotations is { } annotations && annotations.TryGetValue(WellKnown.GpuContainerAnnotation, out var value) ? value : null;
        return statuses.FirstOrDefault(status => status.Name == name) ?? statuses[0];
    }

    private static DateTimeOffset? FirstStart(V1ContainerStatus? container)
    {
        DateTime?[] starts = [container?.LastState?.Terminated?.StartedAt, container?.State?.Terminated?.StartedAt, container?.State?.Running?.StartedAt];
        var known = starts.Where(start => start is { Year: > 1970 }).Select(start => Utc(start!.Value)).ToList();
        return known.Count == 0 ? null : known.Min();
    }

    /// <param name="lostAt">When the cluster lost sight of the pod's node; null when it has not, or left no trace of when.</param>
    private static DateTimeOffset? End(V1Pod pod, V1ContainerStatus? container, bool nodeExists, DateTimeOffset? lostAt, DateTimeOffset now)
    {
        var deleted = pod.Metadata.DeletionTimestamp is { } timestamp ? Utc(timestamp) : (DateTimeOffset?)null;
        var finished = container?.State?.Terminated?.FinishedAt is { Year: > 1970 } at ? Utc(at) : (DateTimeOffset?)null;

        // A pod that will not run again: Succeeded and Failed are final. (A Deployment's pods fail when they are evicted.)
        // Newer garbage collectors fail the pods of a node that is gone, and know no more of their end than we do.
        if (pod.Status?.Phase is "Succeeded" or "Failed") return finished ?? Instants.Earlier(lostAt ?? deleted ?? now, now);
        if (deleted is null) return null;

        // On its way out, and its GPU container has ended: the kubelet starts none again in a pod that is being deleted.
        if (finished is not null) return finished;
        if (now > deleted + LostPatience && Lost(pod, container, deleted.Value) is { } lost) return lost < now ? lost : now;

        // The kubelet deletes with a grace of zero once the pod's resources are free; so does a person with --force. A pod that
        // was never bound, or whose node is gone, has nobody to report its end. deletionTimestamp includes the grace, and goes back
        // to when the deletion was asked for as the grace becomes zero: a container that the kubelet lost may have run on after it.
        // Of a node that went silent first, nothing was seen after that: what may have run on there is not charged.
        if (pod.Metadata.DeletionGracePeriodSeconds == 0 || string.IsNullOrEmpty(pod.Spec?.NodeName) || !nodeExists || lostAt is not null)
        {
            return Instants.Earlier(Instants.Earlier(lostAt ?? now, Lost(pod, container, deleted.Value) ?? deleted.Value), now);
        }

        return null;
    }

    /// <summary>
    /// A container that ran and that the kubelet no longer finds while it deletes the pod. Kubelets of 1.20 then report it as waiting, with a last state of
    /// unknown time; most find the true end within a minute, which is worth waiting for, but a pod must not be charged for ever for want of one. The
    /// containers were last seen to change when ContainersReady turned; they cannot have ended before the deletion was asked for, because until then they ran.
    /// </summary>
    private static DateTimeOffset? Lost(V1Pod pod, V1ContainerStatus? container, DateTimeOffset deleted)
    {
        if (container?.State?.Running is not null || container?.LastState?.Terminated is not { } last) return null;
        var asked = deleted - TimeSpan.FromSeconds(pod.Metadata.DeletionGracePeriodSeconds ?? 0);
        var turned = pod.Status?.Conditions?.FirstOrDefault(condition => condition is { Type: "ContainersReady", Status: "False" })?.LastTransitionTime;
        var seen = last.FinishedAt is { Year: > 1970 } finished ? finished : turned;
        return seen is { } at && Utc(at) > asked ? Utc(at) : asked;
    }

    /// <summary>
    /// When the node controller took the pod for lost with its node: it turns Ready alone, and leaves the containers' own condition as the kubelet last wrote
    /// it. That outlives the node, the Lease and this process. A readiness gate can look the same, so a pod with one tells nothing.
    /// </summary>
    private static DateTimeOffset? MarkedLost(V1Pod pod)
    {
        var conditions = pod.Status?.Conditions ?? [];
        if (pod.Spec?.ReadinessGates is { Count: > 0 } || !conditions.Any(condition => condition is { Type: "ContainersReady", Status: "True" })) return null;
        return conditions.FirstOrDefault(condition => condition is { Type: "Ready", Status: "False" })?.LastTransitionTime is { } at ? Utc(at) : null;
    }

    private static bool IsReady(V1Pod pod) => pod.Status?.Conditions?.Any(condition => condition is { Type: "Ready", Status: "True" }) == true;

    private static DateTimeOffset Utc(DateTime time) => new(DateTime.SpecifyKind(time, DateTimeKind.Utc));
}
