using k8s.Models;

namespace Tensormesh.TestKit;

/// <summary>A pod's status as a kubelet writes it. Pure: what a hollow pod is, rendered for a strategic merge patch.</summary>
internal sealed record HollowPodStatus
{
    public required string Phase { get; init; }

    public required V1ContainerState State { get; init; }

    public V1ContainerState? LastState { get; init; }

    public required int RestartCount { get; init; }

    /// <summary>When the kubelet took the pod on, in whole seconds.</summary>
    public required DateTime StartTime { get; init; }

    public required string HostIp { get; init; }

    /// <summary>Null until the sandbox stands.</summary>
    public string? PodIp { get; init; }

    private bool Ready => State.Running is not null;

    /// <summary>
    /// The body of the patch. The uid makes it a precondition: a pod of the same name that came later is not touched.
    /// <paramref name="since"/> remembers when each condition took its status, as transitions are told by the writer.
    /// </summary>
    public object Render(V1Pod pod, Dictionary<string, (string Status, DateTime Since)> since, DateTime now)
    {
        var unready = Ready ? null : Phase == "Succeeded" ? "PodCompleted" : "ContainersNotReady";
        var message = unready == "ContainersNotReady"
            ? $"containers with unready status: [{string.Join(' ', pod.Spec.Containers.Select(container => container.Name))}]"
            : null;
        return new
        {
            metadata = new { uid = pod.Uid() },
            status = new V1PodStatus
            {
                Phase = Phase,
                HostIP = HostIp,
                PodIP = PodIp,
                PodIPs = PodIp is null ? null : [new V1PodIP { Ip = PodIp }],
                StartTime = StartTime,
                Conditions =
                [
                    Condition("Initialized", true),
                    Condition("Ready", Ready, unready, message),
                    Condition("ContainersReady", Ready, unready, message),
                    Condition("PodScheduled", true),
                ],
                InitContainerStatuses = pod.Spec.InitContainers?.Select(container => Finished(container, pod)).ToList(),
                ContainerStatuses = [.. pod.Spec.Containers.Select(container => Status(container, pod))],
            },
        };

        V1PodCondition Condition(string type, bool holds, string? reason = null, string? text = null)
        {
            var status = holds ? "True" : "False";
            if (!since.TryGetValue(type, out var before) || before.Status != status)
            {
                since[type] = before = (status, now);
            }

            return new V1PodCondition { Type = type, Status = status, LastTransitionTime = before.Since, Reason = reason, Message = text };
        }
    }

    private V1ContainerStatus Status(V1Container container, V1Pod pod) => new()
    {
        Name = container.Name,
        Image = container.Image,
        ImageID = State.Waiting is null ? $"hollow://{container.Image}" : "",
        ContainerID = State.Waiting is null ? $"hollow://{pod.Uid()}/{container.Name}/{RestartCount}" : null,
        Ready = Ready,
        Started = Ready,
        RestartCount = RestartCount,
        State = State,
        LastState = LastState ?? new V1ContainerState(),
    };

    private V1ContainerStatus Finished(V1Container container, V1Pod pod) => new()
    {
        Name = container.Name,
        Image = container.Image,
        ImageID = $"hollow://{container.Image}",
        ContainerID = $"hollow://{pod.Uid()}/{container.Name}/0",
        Ready = true,
        RestartCount = 0,
        State = Terminated(0, StartTime, StartTime),
        LastState = new V1ContainerState(),
    };

    public static V1ContainerState Waiting(string reason, string? message = null) =>
        new() { Waiting = new V1ContainerStateWaiting { Reason = reason, Message = message } };

    public static V1ContainerState Running(DateTime startedAt) => new() { Running = new V1ContainerStateRunning { StartedAt = startedAt } };

    public static V1ContainerState Terminated(int exitCode, DateTime startedAt, DateTime finishedAt) => new()
    {
        Terminated = new V1ContainerStateTerminated
        {
            ExitCode = exitCode,
            Reason = exitCode == 0 ? "Completed" : "Error",
            StartedAt = startedAt,
            FinishedAt = finishedAt,
        },
    };
}
