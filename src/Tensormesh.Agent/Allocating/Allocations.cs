using System.Net;
using System.Net.Sockets;
using Grpc.Core;
using Tensormesh.Agent.Cluster;

namespace Tensormesh.Agent.Allocating;

/// <param name="PodUid">Null while it is not certain which pod of the name holds them.</param>
internal sealed record Allocation(HeldGpus Held, string? PodUid);

internal abstract record AllocationReading
{
    public sealed record Known(IReadOnlyList<Allocation> Allocations) : AllocationReading;

    /// <param name="Why">For people.</param>
    public sealed record Unknown(string Why) : AllocationReading;
}

/// <summary>
/// Which pod holds which GPU. The kubelet knows pods by name here and the API server by uid, and a pod may be made again under its
/// old name. So a uid is taken only when the kubelet says the same before and after the API server was asked, and only from a pod that
/// the kubelet has taken in: it takes in a pod of an old name after it let go of the pod that had it.
/// </summary>
internal sealed partial class Allocations(
    Kubelet kubelet, ApiServer server, AgentOptions options, TimeProvider time, ILogger<Allocations> logger)
{
    private sealed record Resolved(Allocation Allocation, bool Finished, long AskedAt);

    private List<Resolved> known = [];

    public async Task<AllocationReading> ReadAsync(CancellationToken cancellation)
    {
        try
        {
            var held = await kubelet.ListAsync(cancellation).ConfigureAwait(false);
            var certain = held.ToDictionary(each => each, each => known.Find(before => IsStillCertain(before, each)));
            var asked = new Dictionary<PodKey, PodAnswer>();
            foreach (var pod in held.Where(each => certain[each] is null).Select(each => each.Pod).Distinct())
            {
                asked[pod] = await AskAsync(pod, cancellation).ConfigureAwait(false);
            }

            var again = asked.Count == 0 ? held : await kubelet.ListAsync(cancellation).ConfigureAwait(false);
            known = [.. again.Select(each => Resolve(each, held, certain, asked))];
            return new AllocationReading.Known([.. known.Where(each => !each.Finished).Select(each => each.Allocation)]);
        }
        catch (Exception silent) when (silent is RpcException or SocketException or IOException)
        {
            var why = silent is RpcException refused ? refused.Status.Detail : silent.Message;
            return new AllocationReading.Unknown($"the kubelet does not say which pod holds which GPU, at {options.PodResourcesSocket}: {why}");
        }
    }

    private Resolved Resolve(
        HeldGpus each, IReadOnlyList<HeldGpus> before, Dictionary<HeldGpus, Resolved?> certain, Dictionary<PodKey, PodAnswer> asked)
    {
        if (before.FirstOrDefault(each.HoldsSameAs) is not { } same) return new Resolved(new Allocation(each, null), Finished: false, AskedAt: 0);
        if (certain[same] is { } sure) return sure;
        return asked[each.Pod] switch
        {
            PodAnswer.Is pod => new Resolved(new Allocation(each, pod.Uid), pod.Finished, time.GetTimestamp()),
            // Gone from the API server, or it does not answer: whoever held the same a moment ago still does, until the kubelet says otherwise.
            PodAnswer.NoAnswer => new Resolved(new Allocation(each, UidBefore(each)), Finished: false, AskedAt: 0),
            PodAnswer.NotYet => new Resolved(new Allocation(each, null), Finished: false, AskedAt: 0),
            _ => throw new InvalidOperationException("an answer of no known kind"),
        };
    }

    /// <summary>Asked again with each heartbeat, for a pod that was made again and got the very GPUs that its namesake had.</summary>
    private bool IsStillCertain(Resolved before, HeldGpus now) =>
        before.Allocation.PodUid is not null && before.Allocation.Held.HoldsSameAs(now)
        && time.GetElapsedTime(before.AskedAt) < options.HeartbeatInterval;

    private string? UidBefore(HeldGpus now) => known.Find(before => before.Allocation.Held.HoldsSameAs(now))?.Allocation.PodUid;

    private abstract record PodAnswer
    {
        public sealed record Is(string Uid, bool Finished) : PodAnswer;
        public sealed record NotYet : PodAnswer;
        public sealed record NoAnswer : PodAnswer;
    }

    private async Task<PodAnswer> AskAsync(PodKey key, CancellationToken cancellation)
    {
        try
        {
            var pod = await server.ReadAsync($"api/v1/namespaces/{key.Namespace}/pods/{key.Name}", Shapes.Default.PodObject, cancellation).ConfigureAwait(false);
            // What has no start time was not taken in by the kubelet, which speaks of a namesake then.
            return pod.Spec.NodeName != options.NodeName || pod.Status?.StartTime is null
                ? new PodAnswer.NotYet()
                : new PodAnswer.Is(pod.Metadata.Uid!, Finished: pod.Status.Phase is "Succeeded" or "Failed");
        }
        catch (ApiServerRefusal gone) when (gone.Status == HttpStatusCode.NotFound)
        {
            return new PodAnswer.NoAnswer();
        }
        catch (Exception fault) when (fault is ApiServerRefusal or HttpRequestException)
        {
            LogNotAsked(logger, key, fault.Message);
            return new PodAnswer.NoAnswer();
        }
    }

    [LoggerMessage(Level = LogLevel.Warning, Message = "Pod {Pod} holds GPUs and could not be read: {Reason}")]
    private static partial void LogNotAsked(ILogger logger, PodKey pod, string reason);
}
