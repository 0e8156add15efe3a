using k8s.Models;
using Tensormesh.Billing;
using Tensormesh.Operator.Reconciling;
using Tensormesh.Resources;

namespace Tensormesh.Operator.Tests;

public sealed class DeciderTests
{
    private static readonly Guid One = Guid.Parse("aaaaaaaa-0000-0000-0000-000000000001");
    private static readonly Guid Two = Guid.Parse("aaaaaaaa-0000-0000-0000-000000000002");

    [Fact]
    public void Places_a_hold_before_it_makes_pods()
    {
        var decision = Decider.Decide(A.Seen(standing: A.Standing()), A.Policy);

        Assert.IsType<Verdict.Admit>(decision.Verdict);
        Assert.Collection(decision.Changes,
            change => Assert.Equal("trainer", Assert.IsType<ClusterChange.ClaimName>(change).Name),
            change => Assert.Equal(4, Assert.IsType<ClusterChange.PlaceHold>(change).Request.Gpus),
            change => Assert.Equal(2, Assert.IsType<ClusterChange.ApplyChild>(change).Rendered.Spec.Replicas));
    }

    [Fact]
    public void A_refused_deployment_has_no_child_at_all()
    {
        var decision = Decider.Decide(A.Seen(standing: A.Standing(posted: 1m)), A.Policy);

        Assert.Equal(RefusalReason.InsufficientBalance, Assert.IsType<Verdict.Refuse>(decision.Verdict).Reason);
        Assert.Empty(decision.Changes);
        Assert.Equal("InsufficientBalance", Condition(decision, ConditionTypes.Ready).Reason);
        Assert.True(Condition(decision, ConditionTypes.Stalled).Status);
        Assert.True(Condition(decision, ConditionTypes.Suspended).Status);
    }

    [Fact]
    public void Adds_the_finalizer_before_anything_else()
    {
        var deployment = A.Deployment();
        deployment.Metadata.Finalizers = null;
        var decision = Decider.Decide(A.Seen(deployment, A.Standing()), A.Policy);

        Assert.IsType<ClusterChange.AddFinalizer>(decision.Changes[0]);
    }

    [Fact]
    public void Is_silent_when_everything_is_as_it_should_be()
    {
        var deployment = A.Deployment();
        var (child, applied) = A.Child(deployment, 2);
        var started = A.Noon.AddSeconds(-30);
        var seen = A.Seen(
            deployment, A.Standing(hold: A.Hold(), intervals: [A.Interval(One), A.Interval(Two)]), child, applied,
            [A.Pod(One, "trainer-1", started), A.Pod(Two, "trainer-2", started)], [Run(One), Run(Two)]);

        var decision = Decider.Decide(seen, A.Policy);

        Assert.Empty(decision.Changes);
        Assert.Equal("Running", Condition(decision, ConditionTypes.Ready).Reason);
        Assert.True(Condition(decision, ConditionTypes.Ready).Status);
        Assert.False(Condition(decision, ConditionTypes.Reconciling).Status);
        Assert.False(Condition(decision, ConditionTypes.Stalled).Status);
    }

    [Fact]
    public void Looks_again_at_the_very_instant_of_exhaustion()
    {
        // 4 GPUs at 2.50 burn 10 dollars an hour; 0.10 posted at noon - 30 s lasts 36 s, so until noon + 6 s.
        var deployment = A.Deployment();
        var (child, applied) = A.Child(deployment, 2);
        var started = A.Noon.AddSeconds(-30);
        var seen = A.Seen(
            deployment, A.Standing(posted: 0.1m, hold: A.Hold(remaining: 0.05m), intervals: [A.Interval(One), A.Interval(Two)]), child, applied,
            [A.Pod(One, "trainer-1", started), A.Pod(Two, "trainer-2", started)], [Run(One), Run(Two)]);

        var decision = Decider.Decide(seen, A.Policy);

        Assert.Equal(A.Noon.AddSeconds(6), decision.LookAgainAt);
    }

    [Fact]
    public void Suspends_the_account_and_stops_the_pods_once_the_balance_is_used_up()
    {
        var deployment = A.Deployment();
        var (child, applied) = A.Child(deployment, 2);
        var started = A.Noon.AddSeconds(-30);
        var seen = A.Seen(
            deployment, A.Standing(posted: 0.1m, hold: A.Hold(remaining: 0.05m), intervals: [A.Interval(One), A.Interval(Two)]), child, applied,
            [A.Pod(One, "trainer-1", started), A.Pod(Two, "trainer-2", started)], [Run(One), Run(Two)], now: A.Noon.AddSeconds(7));

        var decision = Decider.Decide(seen, A.Policy);

        Assert.Collection(decision.Changes,
            change => Assert.Equal(A.Acme, Assert.IsType<ClusterChange.SuspendAccount>(change).Account),
            change => Assert.Equal(0, Assert.IsType<ClusterChange.ApplyChild>(change).Rendered.Spec.Replicas));
        Assert.Equal("Stopping", Condition(decision, ConditionTypes.Reconciling).Reason);
    }

    [Fact]
    public void Leaves_the_pods_of_a_suspended_child_to_its_replica_set_which_would_replace_an_evicted_one()
    {
        var deployment = A.Deployment();
        var (child, applied) = A.Child(deployment, 0);
        var uncharged = new OpenRun(new PodId(One), A.Trainer, A.Acme, A.Noon.AddSeconds(-30), A.Noon);
        V1Pod[] pods = [A.Pod(One, started: A.Noon.AddSeconds(-30))];

        Assert.Empty(Decider.Decide(A.Seen(deployment, A.Standing(posted: 0), child, applied, pods, [uncharged]), A.Policy).Changes);

        // Without a child nobody else removes it.
        var orphaned = Decider.Decide(A.Seen(deployment, A.Standing(posted: 0), pods: pods, runs: [uncharged]), A.Policy);
        Assert.Equal("trainer-1", Assert.IsType<ClusterChange.EvictPod>(Assert.Single(orphaned.Changes)).Name);
    }

    [Fact]
    public void Removes_a_pod_that_runs_uncharged_even_when_money_came_back_in_between()
    {
        // Suspended and topped up before the ReplicaSet noticed: the pod still runs, and its charging has stopped for good.
        var deployment = A.Deployment();
        var (child, applied) = A.Child(deployment, 0);
        var seen = A.Seen(
            deployment, A.Standing(), child, applied, [A.Pod(One, started: A.Noon.AddSeconds(-30))],
            [new OpenRun(new PodId(One), A.Trainer, A.Acme, A.Noon.AddSeconds(-30), A.Noon.AddSeconds(-5))]);

        var decision = Decider.Decide(seen, A.Policy);

        Assert.Contains(decision.Changes, change => change is ClusterChange.PlaceHold);
        Assert.Contains(decision.Changes, change => change is ClusterChange.EvictPod { Name: "trainer-1" });
    }

    [Fact]
    public void While_the_ledger_is_silent_starts_nothing_and_stops_nothing()
    {
        var deployment = A.Deployment();
        var (child, applied) = A.Child(deployment, 2);
        foreach (var seen in new[] { A.Seen(ledgerDown: true), A.Seen(deployment, child: child, applied: applied, ledgerDown: true) })
        {
            var decision = Decider.Decide(seen, A.Policy);

            Assert.IsType<Verdict.Hold>(decision.Verdict);
            Assert.Empty(decision.Changes);
            Assert.Null(Condition(decision, ConditionTypes.BillingAuthorized).Status);
            Assert.Null(decision.Report!.CostToDate);
        }
    }

    [Fact]
    public void While_the_ledger_is_silent_a_customer_may_still_stop_their_own_work()
    {
        var deployment = A.Deployment(paused: true);
        deployment.Status = new GpuDeploymentStatus { GpuProduct = A.H100.Name };
        var (child, applied) = A.Child(deployment, 2);

        var decision = Decider.Decide(A.Seen(deployment, child: child, applied: applied, ledgerDown: true), A.Policy);

        Assert.Equal(0, Assert.IsType<ClusterChange.ApplyChild>(Assert.Single(decision.Changes)).Rendered.Spec.Replicas);
    }

    [Fact]
    public void What_is_paid_for_goes_on_when_a_scale_up_is_refused()
    {
        var deployment = A.Deployment(replicas: 50);
        var (child, applied) = A.Child(deployment, 2);
        var started = A.Noon.AddSeconds(-30);
        var seen = A.Seen(
            deployment, A.Standing(hold: A.Hold(), intervals: [A.Interval(One), A.Interval(Two)]), child, applied,
            [A.Pod(One, "trainer-1", started), A.Pod(Two, "trainer-2", started)], [Run(One), Run(Two)]);

        var decision = Decider.Decide(seen, A.Policy);

        Assert.Equal(RefusalReason.InsufficientBalance, Assert.IsType<Verdict.Refuse>(decision.Verdict).Reason);
        Assert.Empty(decision.Changes);
        Assert.False(Condition(decision, ConditionTypes.Suspended).Status);
        Assert.False(Condition(decision, ConditionTypes.Ready).Status);
    }

    [Theory]
    [InlineData(4, 2, "NVIDIA-H100-80GB-HBM3")]   // more pods, smaller ones
    [InlineData(1, 8, "NVIDIA-H100-80GB-HBM3")]   // one pod, a larger one
    [InlineData(4, 4, "NVIDIA-L40S")]             // another product
    [InlineData(1, 4, "NVIDIA-B200")]             // a product that no node has
    public void Pods_that_are_paid_for_are_not_replaced_by_others_that_were_refused(int replicas, int gpus, string product)
    {
        var before = A.Deployment(replicas: 1, gpus: 4);
        var (child, applied) = A.Child(before, 1);
        var seen = A.Seen(
            A.Deployment(replicas, gpus, product), A.Standing(posted: 10m, hold: A.Hold(gpus: 4), intervals: [A.Interval(One, gpus: 4)]), child, applied,
            [A.Pod(One, "trainer-1", A.Noon.AddSeconds(-30), gpus: 4)], [Run(One)]);

        var decision = Decider.Decide(seen, A.Policy);

        Assert.IsType<Verdict.Refuse>(decision.Verdict);
        Assert.Empty(decision.Changes);
        Assert.False(Condition(decision, ConditionTypes.Suspended).Status);
        Assert.Equal(4, decision.Report!.Gpus);
    }

    [Fact]
    public void A_hold_whose_pods_never_started_is_given_back_when_more_was_asked_and_refused()
    {
        // The process died between the hold and the child, and the spec was edited before it came back.
        var decision = Decider.Decide(A.Seen(A.Deployment(replicas: 50), A.Standing(hold: A.Hold())), A.Policy);

        Assert.IsType<Verdict.Refuse>(decision.Verdict);
        Assert.IsType<ClusterChange.ReleaseHold>(Assert.Single(decision.Changes));
    }

    [Fact]
    public void Smaller_pods_wait_for_the_larger_ones_that_they_replace()
    {
        var (child, applied) = A.Child(A.Deployment(), 2);
        var edited = A.Deployment(replicas: 4, gpus: 1);
        var running = A.Seen(
            edited, A.Standing(hold: A.Hold(), intervals: [A.Interval(One), A.Interval(Two)]), child, applied,
            [A.Pod(One, "trainer-1", A.Noon.AddSeconds(-30)), A.Pod(Two, "trainer-2", A.Noon.AddSeconds(-30))], [Run(One), Run(Two)]);

        // Four of one GPU beside two of two would be eight where four are paid for.
        Assert.Equal(2, Applied(Decider.Decide(running, A.Policy)).Spec.Replicas);
        Assert.Equal(4, Applied(Decider.Decide(running with { Pods = [] }, A.Policy)).Spec.Replicas);

        static k8s.Models.V1Deployment Applied(Decision decision) => Assert.Single(decision.Changes.OfType<ClusterChange.ApplyChild>()).Rendered;
    }

    [Fact]
    public void A_scale_down_gives_back_what_is_held_for_the_difference()
    {
        var deployment = A.Deployment(replicas: 1);
        var (child, applied) = A.Child(A.Deployment(), 2);
        var decision = Decider.Decide(A.Seen(deployment, A.Standing(hold: A.Hold()), child, applied), A.Policy);

        Assert.Collection(decision.Changes,
            change => Assert.Equal(2, Assert.IsType<ClusterChange.PlaceHold>(change).Request.Gpus),
            change => Assert.Equal(1, Assert.IsType<ClusterChange.ApplyChild>(change).Rendered.Spec.Replicas));
    }

    [Fact]
    public void A_pause_keeps_its_money_aside_until_the_last_pod_has_ended()
    {
        var deployment = A.Deployment(paused: true);
        var (child, applied) = A.Child(deployment, 0);
        var started = A.Noon.AddSeconds(-30);
        var draining = A.Pod(One, started: started, deleted: A.Noon.AddSeconds(10), grace: 30);

        var during = Decider.Decide(A.Seen(deployment, A.Standing(hold: A.Hold(), intervals: A.Interval(One)), child, applied, [draining], [Run(One)]), A.Policy);
        Assert.Empty(during.Changes);
        Assert.Contains("1 pod is still ending", Condition(during, ConditionTypes.Ready).Message, StringComparison.Ordinal);

        var after = Decider.Decide(A.Seen(deployment, A.Standing(hold: A.Hold()), child, applied), A.Policy);
        Assert.IsType<ClusterChange.ReleaseHold>(Assert.Single(after.Changes));
        Assert.Equal("Paused: nothing runs and nothing is charged.", Condition(after, ConditionTypes.Ready).Message);
    }

    [Fact]
    public void Records_a_start_in_the_times_that_the_kubelet_reported()
    {
        var deployment = A.Deployment();
        var (child, applied) = A.Child(deployment, 2);
        var started = A.Noon.AddSeconds(-30);
        var decision = Decider.Decide(A.Seen(deployment, A.Standing(hold: A.Hold()), child, applied, [A.Pod(One, started: started)]), A.Policy);

        var start = Assert.IsType<ClusterChange.RecordStart>(Assert.Single(decision.Changes)).Start;
        Assert.Equal((started, A.Acme, A.H100, 2, "gpu-a"), (start.StartedAt, start.Account, start.Product, start.Gpus, start.Node));
    }

    [Fact]
    public void Records_start_and_end_of_a_pod_that_came_and_went_unseen()
    {
        var deployment = A.Deployment();
        var (child, applied) = A.Child(deployment, 2);
        var pod = A.Pod(One, started: A.Noon.AddMinutes(-10), finished: A.Noon.AddMinutes(-4), deleted: A.Noon.AddMinutes(-4));
        var decision = Decider.Decide(A.Seen(deployment, A.Standing(hold: A.Hold()), child, applied, [pod]), A.Policy);

        Assert.Collection(decision.Changes,
            change => Assert.IsType<ClusterChange.RecordStart>(change),
            change => Assert.Equal(A.Noon.AddMinutes(-4), Assert.IsType<ClusterChange.RecordEnd>(change).EndedAt),
            change => Assert.IsType<ClusterChange.ReleasePod>(change));
    }

    [Fact]
    public void Asks_the_server_about_a_run_whose_pod_is_not_in_the_local_copy()
    {
        var deployment = A.Deployment();
        var (child, applied) = A.Child(deployment, 2);
        var decision = Decider.Decide(A.Seen(deployment, A.Standing(hold: A.Hold()), child, applied, runs: [Run(One)]), A.Policy);

        Assert.Equal(One, Assert.IsType<ClusterChange.EndVanishedRun>(Assert.Single(decision.Changes)).Run.Pod.Value);
    }

    [Fact]
    public void Another_payer_is_asked_like_any_other_and_what_the_former_paid_for_stops()
    {
        var deployment = A.Deployment();
        var (child, applied) = A.Child(deployment, 2);
        var seen = A.Seen(
            deployment, A.Standing(), child, applied, [A.Pod(One, started: A.Noon.AddSeconds(-30))],
            [Run(One) with { Account = new AccountId("former") }]);

        var decision = Decider.Decide(seen, A.Policy);

        Assert.Collection(decision.Changes,
            change => Assert.Equal(A.Noon, Assert.IsType<ClusterChange.SuspendDeployment>(change).At),
            change => Assert.Equal(0, Assert.IsType<ClusterChange.ApplyChild>(change).Rendered.Spec.Replicas));
        Assert.Equal(A.Noon, decision.LookAgainAt);
    }

    [Fact]
    public void A_deleted_deployment_is_let_go_only_after_its_pods_are_recorded()
    {
        var deployment = A.Deployment();
        deployment.Metadata.DeletionTimestamp = A.Noon.UtcDateTime;
        var (child, applied) = A.Child(deployment, 2);
        var draining = A.Pod(One, started: A.Noon.AddSeconds(-30), deleted: A.Noon.AddSeconds(30), grace: 30);

        var first = Decider.Decide(A.Seen(deployment, A.Standing(hold: A.Hold()), child, applied, [draining], [Run(One)]), A.Policy);
        Assert.IsType<ClusterChange.DeleteChild>(Assert.Single(first.Changes));

        var second = Decider.Decide(A.Seen(deployment, A.Standing(hold: A.Hold()), pods: [draining], runs: [Run(One)]), A.Policy);
        Assert.Empty(second.Changes);

        var ended = A.Pod(One, started: A.Noon.AddSeconds(-30), finished: A.Noon.AddSeconds(-1), deleted: A.Noon.AddSeconds(30), grace: 30);
        var third = Decider.Decide(A.Seen(deployment, A.Standing(hold: A.Hold()), pods: [ended], runs: [Run(One)]), A.Policy);
        Assert.Collection(third.Changes,
            change => Assert.IsType<ClusterChange.RecordEnd>(change),
            change => Assert.IsType<ClusterChange.ReleasePod>(change));

        var last = Decider.Decide(A.Seen(deployment, A.Standing(hold: A.Hold())), A.Policy);
        Assert.Collection(last.Changes,
            change => Assert.IsType<ClusterChange.ReleaseHold>(change),
            change => Assert.IsType<ClusterChange.RemoveFinalizer>(change));
    }

    [Fact]
    public void Deleted_while_the_ledger_is_silent_stops_the_pods_and_keeps_the_evidence()
    {
        var deployment = A.Deployment();
        deployment.Metadata.DeletionTimestamp = A.Noon.UtcDateTime;
        var (child, applied) = A.Child(deployment, 2);
        var decision = Decider.Decide(A.Seen(deployment, child: child, applied: applied, ledgerDown: true), A.Policy);

        Assert.IsType<ClusterChange.DeleteChild>(Assert.Single(decision.Changes));
    }

    [Fact]
    public void An_invalid_spec_changes_nothing_that_runs()
    {
        var deployment = A.Deployment(gpus: 0);
        var (child, applied) = A.Child(A.Deployment(), 2);
        var decision = Decider.Decide(A.Seen(deployment, A.Standing(hold: A.Hold()), child, applied), A.Policy);

        Assert.Empty(decision.Changes);
        Assert.Equal("InvalidSpec", Condition(decision, ConditionTypes.Ready).Reason);
        Assert.Contains("spec.gpu.count", Condition(decision, ConditionTypes.Ready).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_child_that_the_server_refused_is_not_sent_again_and_holds_no_money()
    {
        var deployment = A.Deployment();
        var refused = new RefusedChild(PodDrift.Hash(PodTemplate.Render(deployment, A.H100, 2)), "spec.template.spec.containers[0].image: Required value");

        var decision = Decider.Decide(A.Seen(deployment, A.Standing(hold: A.Hold()), refused: refused), A.Policy);
        Assert.IsType<ClusterChange.ReleaseHold>(Assert.Single(decision.Changes));
        Assert.Equal("InvalidSpec", Condition(decision, ConditionTypes.Ready).Reason);
        Assert.Equal("spec.template: spec.template.spec.containers[0].image: Required value", Condition(decision, ConditionTypes.Ready).Message);

        // Another template is another question.
        deployment.Spec.Template.Spec.Containers[0].Image = "fixed";
        Assert.Contains(Decider.Decide(A.Seen(deployment, A.Standing(), refused: refused), A.Policy).Changes, change => change is ClusterChange.ApplyChild);
    }

    [Fact]
    public void A_child_that_a_quota_refused_is_sent_again_when_its_time_has_come_and_not_before()
    {
        var deployment = A.Deployment();
        var until = A.Noon.AddSeconds(30);
        var refused = new RefusedChild(PodDrift.Hash(PodTemplate.Render(deployment, A.H100, 2)), "exceeded quota: none", until);

        var waits = Decider.Decide(A.Seen(deployment, A.Standing(), refused: refused), A.Policy);
        Assert.Equal(until, waits.LookAgainAt);
        Assert.DoesNotContain(waits.Changes, change => change is ClusterChange.ApplyChild);
        Assert.Contains(Decider.Decide(A.Seen(deployment, A.Standing(), refused: refused, now: until), A.Policy).Changes, change => change is ClusterChange.ApplyChild);
    }

    [Fact]
    public void A_foreign_deployment_of_the_same_name_is_left_alone()
    {
        var deployment = A.Deployment();
        var (child, _) = A.Child(deployment, 5);
        var decision = Decider.Decide(A.Seen(deployment, A.Standing(), child, nameTaken: true), A.Policy);

        Assert.Empty(decision.Changes);
        Assert.Equal("NameTaken", Condition(decision, ConditionTypes.Ready).Reason);
    }

    [Fact]
    public void Whoever_has_no_name_keeps_no_money_aside_and_can_go()
    {
        var taken = A.Seen(A.Deployment(), A.Standing(hold: A.Hold()), nameTaken: true);
        Assert.IsType<ClusterChange.ReleaseHold>(Assert.Single(Decider.Decide(taken, A.Policy).Changes));

        var deleted = A.Deployment();
        deleted.Metadata.DeletionTimestamp = A.Noon.UtcDateTime;
        var (theirs, _) = A.Child(deleted, 5);
        Assert.Collection(Decider.Decide(A.Seen(deleted, A.Standing(), theirs, nameTaken: true), A.Policy).Changes,
            change => Assert.IsType<ClusterChange.ReleaseHold>(change),
            change => Assert.IsType<ClusterChange.RemoveFinalizer>(change));
    }

    [Fact]
    public void A_child_scaled_by_hand_is_put_back()
    {
        var deployment = A.Deployment();
        var (child, applied) = A.Child(deployment, 2);
        child.Spec.Replicas = 7;
        child.Metadata.Generation = 2;
        var decision = Decider.Decide(A.Seen(deployment, A.Standing(hold: A.Hold()), child, applied), A.Policy);

        Assert.Equal(2, Assert.IsType<ClusterChange.ApplyChild>(Assert.Single(decision.Changes)).Rendered.Spec.Replicas);
    }

    [Fact]
    public void Without_a_product_the_cheapest_that_fits_and_has_a_price_is_chosen()
    {
        var decision = Decider.Decide(A.Seen(A.Deployment(product: null), A.Standing()), A.Policy);
        Assert.Equal(A.L40S, decision.Report!.Product);

        // Eight on one node: only the H100 node has that many.
        var large = Decider.Decide(A.Seen(A.Deployment(replicas: 1, gpus: 8, product: null), A.Standing()), A.Policy);
        Assert.Equal(A.H100, large.Report!.Product);
    }

    [Fact]
    public void Names_what_the_cluster_has_when_no_node_fits()
    {
        var decision = Decider.Decide(A.Seen(A.Deployment(product: "NVIDIA-B200"), A.Standing()), A.Policy);

        var refuse = Assert.IsType<Verdict.Refuse>(decision.Verdict);
        Assert.Equal(RefusalReason.NoMatchingGpu, refuse.Reason);
        Assert.Contains("NVIDIA-B200", refuse.Message, StringComparison.Ordinal);
        Assert.Contains("NVIDIA-L40S", refuse.Message, StringComparison.Ordinal);
    }

    private static OpenRun Run(Guid pod) => new(new PodId(pod), A.Trainer, A.Acme, A.Noon.AddSeconds(-30), null);

    private static ConditionReport Condition(Decision decision, string type) => decision.Report!.Conditions.Single(condition => condition.Type == type);
}
