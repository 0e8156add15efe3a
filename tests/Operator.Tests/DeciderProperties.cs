using CsCheck;
using k8s.Models;
using Tensormesh.Billing;
using Tensormesh.Operator.Reconciling;
using Tensormesh.Resources;

namespace Tensormesh.Operator.Tests;

/// <summary>Decide, played against a small model of the cluster and the ledger that carries its changes out.</summary>
public sealed class DeciderProperties
{
    private static readonly Gen<(int Replicas, int Gpus, bool Paused, long Cents, bool Card, bool Deleting)> Wishes = Gen.Select(
        Gen.Int[0, 4], Gen.Int[1, 4], Gen.Bool, Gen.Long[0, 20_000], Gen.Bool, Gen.Frequency((9, Gen.Const(false)), (1, Gen.Const(true))));

    [Fact]
    public void Converges_and_is_then_silent()
        => Wishes.Array[1, 4].Sample(wishes =>
        {
            var model = new Model();
            foreach (var wish in wishes)
            {
                model.Wish(wish.Replicas, wish.Gpus, wish.Paused, wish.Cents, wish.Card, wish.Deleting);
                var rounds = 0;
                while (model.Step().Changes.Count > 0) Assert.True(++rounds < 30, $"still changing after {rounds} rounds: {string.Join(", ", model.Last!.Changes)}");
                Assert.Empty(model.Step().Changes);
                if (wish.Deleting) break;
            }
        });

    [Fact]
    public void Nothing_runs_without_a_hold_that_covers_it()
        => Wishes.Array[1, 4].Sample(wishes =>
        {
            var model = new Model();
            foreach (var wish in wishes)
            {
                model.Wish(wish.Replicas, wish.Gpus, wish.Paused, wish.Cents, wish.Card, wish.Deleting);
                for (var round = 0; round < 30 && model.Step().Changes.Count > 0; round++)
                {
                }

                Assert.True(model.PodGpus <= (model.Hold?.Gpus ?? 0), $"{model.PodGpus} GPUs run with {model.Hold}");
                if (wish.Deleting) break;
            }
        });

    [Fact]
    public void A_refusal_never_raises_replicas_or_gpus_and_silence_of_the_ledger_changes_nothing()
        => Gen.Select(Wishes, Wishes).Sample((first, second) =>
        {
            var model = new Model();
            model.Wish(first.Replicas, first.Gpus, first.Paused, first.Cents, first.Card, deleting: false);
            while (model.Step().Changes.Count > 0)
            {
            }

            var before = model.ChildReplicas;
            model.Wish(second.Replicas, second.Gpus, paused: false, second.Cents, second.Card, deleting: false);
            var silent = Decider.Decide(model.See(ledgerDown: true), A.Policy);
            Assert.All(silent.Changes, change => Assert.True(((ClusterChange.ApplyChild)change).Rendered.Spec.Replicas < before));

            var decision = Decider.Decide(model.See(), A.Policy);
            if (decision.Verdict is not Verdict.Refuse) return;
            Assert.All(decision.Changes.OfType<ClusterChange.ApplyChild>(), change =>
            {
                Assert.True(change.Rendered.Spec.Replicas <= before);
                Assert.True(change.Rendered.Spec.Replicas * second.Gpus <= before * first.Gpus);
            });
            Assert.DoesNotContain(decision.Changes, change => change is ClusterChange.PlaceHold);
        });

    /// <summary>A cluster and a ledger in a few lists. Pods start and end at once; time stands still, so nothing accrues.</summary>
    private sealed class Model
    {
        private readonly GpuDeployment deployment = A.Deployment();
        private readonly List<OpenRun> runs = [];
        private List<V1Pod> pods = [];
        private V1Deployment? child;
        private AppliedChild? applied;
        private long generation;
        private long cents;
        private bool card;
        private int names;

        public CreditHold? Hold { get; private set; }
        public int ChildReplicas => child?.Spec.Replicas ?? 0;
        public int PodGpus => pods.Where(pod => pod.Metadata.DeletionTimestamp is null).Sum(pod => Reconciling.PodGpus.Of(pod.Spec));
        public Decision? Last { get; private set; }

        public Model() => deployment.Metadata.Finalizers = null;

        public void Wish(int replicas, int gpus, bool paused, long money, bool hasCard, bool deleting)
        {
            (deployment.Spec.Replicas, deployment.Spec.Paused, cents, card) = (replicas, paused, money, hasCard);
            deployment.Spec.Gpu.Count = gpus;
            if (deleting) deployment.Metadata.DeletionTimestamp = A.Noon.UtcDateTime;
        }

        public Observation See(bool ledgerDown = false) => A.Seen(
            deployment, A.Standing(cents / 100m, Hold, card), child, applied, pods, runs, ledgerDown: ledgerDown);

        public Decision Step()
        {
            Last = Decider.Decide(See(), A.Policy);
            foreach (var change in Last.Changes) Apply(change);
            return Last;
        }

        private void Apply(ClusterChange change)
        {
            switch (change)
            {
                case ClusterChange.AddFinalizer: deployment.Metadata.Finalizers = [WellKnown.MeteringFinalizer]; break;
                case ClusterChange.RemoveFinalizer: deployment.Metadata.Finalizers = []; break;
                // Nobody else has the name.
                case ClusterChange.ClaimName: break;
                case ClusterChange.PlaceHold place: Hold = A.Hold(place.Request.Gpus, place.Request.Product, 0); break;
                case ClusterChange.ReleaseHold: Hold = null; break;
                case ClusterChange.SuspendAccount or ClusterChange.SuspendDeployment:
                    Hold = null;
                    for (var i = 0; i < runs.Count; i++) runs[i] = runs[i] with { ChargeUntil = A.Noon };
                    break;
                case ClusterChange.RecordStart start: runs.Add(new OpenRun(start.Start.Pod, A.Trainer, A.Acme, start.Start.StartedAt, null)); break;
                case ClusterChange.RecordEnd end: runs.RemoveAll(run => run.Pod == end.Pod); break;
                case ClusterChange.EndVanishedRun vanished: runs.Remove(vanished.Run); break;
                case ClusterChange.ReleasePod pod: pods = [.. pods.Where(other => other.Metadata.Name != pod.Name)]; break;
                case ClusterChange.EvictPod pod: End(pods.First(other => other.Metadata.Name == pod.Name)); break;
                case ClusterChange.DeleteChild:
                    child = null;
                    Scale(0);
                    break;
                case ClusterChange.ApplyChild apply:
                    child = apply.Rendered;
                    child.Metadata.Uid = "22222222-2222-2222-2222-222222222222";
                    child.Metadata.Generation = ++generation;
                    applied = new AppliedChild(PodDrift.Hash(child), generation);
                    Scale(child.Spec.Replicas ?? 0);
                    break;
                default: throw new InvalidOperationException($"the model does not know {change}");
            }
        }

        /// <summary>The Deployment controller, the scheduler and the kubelet in one: live pods are as many as there should be.</summary>
        private void Scale(int replicas)
        {
            var size = child is null ? 0 : Reconciling.PodGpus.Of(child.Spec.Template.Spec);
            foreach (var pod in pods.Where(pod => pod.Metadata.DeletionTimestamp is null && Reconciling.PodGpus.Of(pod.Spec) != size).ToList()) End(pod);
            var live = pods.Where(pod => pod.Metadata.DeletionTimestamp is null).ToList();
            foreach (var pod in live.Skip(replicas)) End(pod);
            for (var i = live.Count; i < replicas; i++)
            {
                names++;
                pods.Add(A.Pod(new Guid(names, 0, 0, new byte[8]), "trainer-" + names, started: A.Noon.AddSeconds(-1), gpus: size));
            }
        }

        private void End(V1Pod pod)
        {
            pods = [.. pods.Where(other => other != pod), A.Pod(Guid.Parse(pod.Metadata.Uid), pod.Metadata.Name, A.Noon.AddSeconds(-1), finished: A.Noon, deleted: A.Noon.AddSeconds(30), grace: 30)];
        }
    }
}
