using k8s.Models;
using Tensormesh.Operator.Reconciling;

namespace Tensormesh.Operator.Tests;

public sealed class PodRunTests
{
    private static readonly Guid Uid = Guid.Parse("aaaaaaaa-0000-0000-0000-000000000001");

    [Fact]
    public void Waiting_for_a_node_or_an_image_is_free()
    {
        var run = From(A.Pod(Uid));
        Assert.Null(run.StartedAt);
        Assert.Null(run.EndedAt);
        Assert.True(run.Live);
    }

    [Fact]
    public void Starts_with_the_gpu_container_and_not_with_a_sidecar()
    {
        var pod = A.Pod(Uid, started: A.Noon.AddSeconds(-10));
        pod.Status.ContainerStatuses.Insert(0, new V1ContainerStatus
        {
            Name = "sidecar",
            Image = "",
            ImageID = "",
            State = new V1ContainerState { Running = new V1ContainerStateRunning { StartedAt = A.Noon.AddHours(-1).UtcDateTime } },
        });
        Assert.Equal(A.Noon.AddSeconds(-10), From(pod).StartedAt);
    }

    [Fact]
    public void A_restart_does_not_begin_a_new_hold()
    {
        var pod = A.Pod(Uid, started: A.Noon.AddSeconds(-10));
        pod.Status.ContainerStatuses[0].LastState = new V1ContainerState
        {
            Terminated = new V1ContainerStateTerminated { StartedAt = A.Noon.AddSeconds(-60).UtcDateTime, FinishedAt = A.Noon.AddSeconds(-12).UtcDateTime, ExitCode = 1 },
        };
        var run = From(pod);
        Assert.Equal(A.Noon.AddSeconds(-60), run.StartedAt);
        Assert.Null(run.EndedAt);
    }

    [Fact]
    public void A_crashed_container_still_holds_its_gpus_until_the_pod_goes()
    {
        var run = From(A.Pod(Uid, started: A.Noon.AddSeconds(-60), finished: A.Noon.AddSeconds(-10)));
        Assert.Null(run.EndedAt);
        Assert.Equal(A.Noon.AddSeconds(-60), run.StartedAt);
    }

    [Fact]
    public void Ends_when_the_container_of_a_deleted_pod_has_ended()
        => Assert.Equal(A.Noon.AddSeconds(-2), From(A.Pod(Uid, started: A.Noon.AddSeconds(-60), finished: A.Noon.AddSeconds(-2), deleted: A.Noon.AddSeconds(25), grace: 30)).EndedAt);

    [Fact]
    public void A_pod_that_ignores_its_end_is_held_until_it_really_ends()
        => Assert.Null(From(A.Pod(Uid, started: A.Noon.AddSeconds(-60), deleted: A.Noon.AddSeconds(-20), grace: 30)).EndedAt);

    [Fact]
    public void A_pod_deleted_by_force_ends_when_it_was_deleted()
        => Assert.Equal(A.Noon.AddSeconds(-3), From(A.Pod(Uid, started: A.Noon.AddSeconds(-60), deleted: A.Noon.AddSeconds(-3), grace: 0)).EndedAt);

    [Fact]
    public void A_pod_whose_node_is_gone_ends_no_later_than_now()
    {
        var pod = A.Pod(Uid, started: A.Noon.AddSeconds(-60), deleted: A.Noon.AddSeconds(20), grace: 30);
        Assert.Equal(A.Noon, PodRun.From(pod, nodeExists: false, A.Noon).EndedAt);
    }

    [Fact]
    public void A_pod_on_a_silent_node_is_held_until_it_is_given_up_and_then_ended_when_the_silence_began()
    {
        var silent = A.Noon.AddSeconds(-40);
        Assert.Null(PodRun.From(A.Pod(Uid, started: A.Noon.AddSeconds(-60)), nodeExists: true, A.Noon, silent).EndedAt);
        var evicted = A.Pod(Uid, started: A.Noon.AddSeconds(-60), deleted: A.Noon.AddSeconds(20), grace: 30);
        Assert.Equal(silent, PodRun.From(evicted, nodeExists: true, A.Noon, silent).EndedAt);

        // What the kubelet still said of its end is better than when it fell silent.
        var reported = A.Pod(Uid, started: A.Noon.AddSeconds(-60), finished: A.Noon.AddSeconds(-50), deleted: A.Noon.AddSeconds(20), grace: 30);
        Assert.Equal(A.Noon.AddSeconds(-50), PodRun.From(reported, nodeExists: true, A.Noon, silent).EndedAt);
        // A deletion that came before the silence ends it no later.
        var before = A.Pod(Uid, started: A.Noon.AddSeconds(-60), deleted: A.Noon.AddSeconds(-45), grace: 5);
        Assert.Equal(A.Noon.AddSeconds(-45), PodRun.From(before, nodeExists: true, A.Noon, silent).EndedAt);
    }

    [Theory]
    [InlineData("Running")]
    [InlineData("Failed")]
    public void A_pod_whose_node_is_gone_ends_when_the_node_controller_took_it_for_lost(string phase)
    {
        var lost = A.Noon.AddSeconds(-40);
        var pod = A.Pod(Uid, started: A.Noon.AddSeconds(-60), deleted: A.Noon.AddSeconds(-3), grace: 0, phase: phase);
        pod.Status.Conditions = [Condition("Ready", "False", lost), Condition("ContainersReady", "True", A.Noon.AddSeconds(-60))];
        Assert.Equal(lost, PodRun.From(pod, nodeExists: false, A.Noon).EndedAt);
    }

    [Fact]
    public void A_workload_that_was_not_ready_by_itself_does_not_pass_for_lost()
    {
        // Unready for an hour by its own probe, and so are its containers: the node controller had no part in it.
        var pod = A.Pod(Uid, started: A.Noon.AddHours(-2), deleted: A.Noon.AddSeconds(-3), grace: 0);
        pod.Status.Conditions = [Condition("Ready", "False", A.Noon.AddHours(-1)), Condition("ContainersReady", "False", A.Noon.AddHours(-1))];
        Assert.Equal(A.Noon.AddSeconds(-3), PodRun.From(pod, nodeExists: false, A.Noon).EndedAt);

        // With a gate of its own, Ready alone may be False as well.
        pod.Status.Conditions[1].Status = "True";
        pod.Spec.ReadinessGates = [new V1PodReadinessGate { ConditionType = "example.com/warm" }];
        Assert.Equal(A.Noon.AddSeconds(-3), PodRun.From(pod, nodeExists: false, A.Noon).EndedAt);
    }

    [Fact]
    public void A_container_that_the_kubelet_lost_while_deleting_its_pod_ends_when_it_was_last_seen_to_change()
    {
        // As a kubelet of 1.20 reported it, for a pod that it then never finished deleting.
        var pod = A.Pod(Uid, deleted: A.Noon.AddSeconds(-1), grace: 5, phase: "Running", ready: false);
        var later = A.Noon.AddMinutes(3);
        pod.Status.ContainerStatuses[0].LastState = new V1ContainerState
        {
            Terminated = new V1ContainerStateTerminated { ExitCode = 137, Reason = "ContainerStatusUnknown", Message = "The container could not be located when the pod was deleted." },
        };
        pod.Status.Conditions.Add(new V1PodCondition { Type = "ContainersReady", Status = "False", LastTransitionTime = A.Noon.AddSeconds(-4).UtcDateTime });
        Assert.Null(From(pod).EndedAt);
        Assert.Equal(A.Noon.AddSeconds(-4), PodRun.From(pod, nodeExists: true, later).EndedAt);
        // Where it did finish, its deletion without grace takes the deletion's time stamp back to when it was asked for, before the drain.
        (pod.Metadata.DeletionTimestamp, pod.Metadata.DeletionGracePeriodSeconds) = (A.Noon.AddSeconds(-6).UtcDateTime, 0);
        Assert.Equal(A.Noon.AddSeconds(-4), From(pod).EndedAt);

        // A workload that was unready long before did not end then: it ran until the deletion was asked for.
        pod.Status.Conditions[^1].LastTransitionTime = A.Noon.AddHours(-3).UtcDateTime;
        Assert.Equal(A.Noon.AddSeconds(-6), From(pod).EndedAt);
        Assert.Equal(A.Noon.AddSeconds(-6), PodRun.From(pod, nodeExists: true, later).EndedAt);
    }

    [Fact]
    public void A_pod_deleted_between_two_crashes_ends_when_its_deletion_was_asked_for()
    {
        var pod = A.Pod(Uid, deleted: A.Noon.AddSeconds(20), grace: 30, phase: "Running", ready: false);
        pod.Status.ContainerStatuses[0].LastState = new V1ContainerState
        {
            Terminated = new V1ContainerStateTerminated { ExitCode = 1, StartedAt = A.Noon.AddMinutes(-5).UtcDateTime, FinishedAt = A.Noon.AddMinutes(-2).UtcDateTime },
        };
        Assert.Equal(A.Noon.AddSeconds(-10), PodRun.From(pod, nodeExists: true, A.Noon.AddMinutes(3)).EndedAt);
    }

    [Theory]
    [InlineData("Succeeded")]
    [InlineData("Failed")]
    public void A_final_phase_ends_the_hold(string phase)
    {
        var run = From(A.Pod(Uid, started: A.Noon.AddSeconds(-60), finished: A.Noon.AddSeconds(-7), phase: phase));
        Assert.Equal(A.Noon.AddSeconds(-7), run.EndedAt);
        Assert.False(run.Live);
    }

    private static V1PodCondition Condition(string type, string status, DateTimeOffset since)
        => new() { Type = type, Status = status, LastTransitionTime = since.UtcDateTime };

    private static PodRun From(V1Pod pod) => PodRun.From(pod, nodeExists: true, A.Noon);
}
