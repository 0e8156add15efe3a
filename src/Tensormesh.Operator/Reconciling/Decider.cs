using Tensormesh.Billing;
using Tensormesh.Resources;

namespace Tensormesh.Operator.Reconciling;

/// <summary>
/// The heart: from what was seen to what to do. Pure; reads no clock. Suspension is not a feature of it: it is what this
/// answers when the balance changes.
/// </summary>
internal static class Decider
{
    /// <summary>How soon to look again while the ledger cannot be read.</summary>
    private static readonly TimeSpan LedgerRetry = TimeSpan.FromSeconds(2);
    /// <summary>Nobody tells when a Deployment that is not ours, and that has a child's name, goes.</summary>
    private static readonly TimeSpan NameRetry = TimeSpan.FromSeconds(30);
    /// <summary>Everything is looked at again this often even when nothing called for it: a lost hint delays, it never loses.</summary>
    internal static readonly TimeSpan Resync = TimeSpan.FromMinutes(5);

    public static Decision Decide(Observation seen, CreditPolicy policy) => (seen.Deleting, seen.Ledger) switch
    {
        (true, LedgerView.Known ledger) => Finish(seen, ledger),
        (true, LedgerView.Unavailable) => StopWithoutLedger(seen),
        (false, LedgerView.Unavailable ledger) => HoldStill(seen, ledger),
        (false, LedgerView.Known ledger) => Steer(seen, ledger, policy),
        _ => throw new InvalidOperationException("a ledger is known or unavailable"),
    };

    /// <summary>What the deployment asks of the gate, for <paramref name="replicas"/> of it.</summary>
    public static LaunchRequest Request(Observation seen, LedgerView.Known ledger, int replicas)
    {
        var spec = seen.Deployment.Spec;
        var product = seen.Gpus.Choose(spec.Gpu, ledger.Standing?.Hold?.Product, ledger.Prices);
        return new LaunchRequest
        {
            Deployment = seen.Id,
            Account = seen.Account,
            Namespace = seen.Deployment.Metadata.NamespaceProperty,
            Gpus = replicas * spec.Gpu.Count,
            Product = product,
            GpuConstraint = GpuInventory.Describe(spec.Gpu),
            GpusInCluster = seen.Gpus.Describe(),
            PerGpuHour = product is { } chosen && ledger.Prices.TryGetValue(chosen, out var price) ? price.PerGpuHour : null,
            MaxHourlyRate = Dollars(spec.Budget?.MaxHourlyRate),
            MaxTotalCost = Dollars(spec.Budget?.MaxTotalCost),
        };
    }

    private static Decision Steer(Observation seen, LedgerView.Known ledger, CreditPolicy policy)
    {
        var changes = Meter(seen, ledger);
        if (!seen.HasFinalizer) changes.Insert(0, new ClusterChange.AddFinalizer());

        var errors = Validation.Validate(seen.Deployment);
        if (errors.Count > 0 || seen.NameTaken)
        {
            // What runs goes on as it was last valid; nothing new starts. Without a name nothing ever runs: no money stays aside for it.
            if (seen.NameTaken && ledger.Standing?.Hold is not null && Drained(seen)) changes.Add(new ClusterChange.ReleaseHold());
            return new Decision(null, changes, StatusReports.Invalid(seen, ledger, errors), seen.Now + (seen.NameTaken ? NameRetry : Resync));
        }

        // Another account pays now: what the former one paid for stops, and the new one is asked like any other.
        if (ledger.Runs.Any(run => run.ChargeUntil is null && run.Account != seen.Account))
        {
            changes.Add(new ClusterChange.SuspendDeployment(seen.Now, "AccountChanged"));
            AddChild(seen, ledger, 0, changes);
            return new Decision(null, changes, null, seen.Now);
        }

        var wanted = seen.WantedReplicas;
        var request = Request(seen, ledger, wanted);
        if (WasRefused(seen, request.Product, wanted))
        {
            // Nothing of it can start, so no money stays aside for it; what ran before the edit goes on.
            if (ledger.Standing?.Hold is not null && seen.CurrentReplicas == 0 && Drained(seen)) changes.Add(new ClusterChange.ReleaseHold());
            return new Decision(null, changes, StatusReports.Invalid(seen, ledger, [new FieldError("spec.template", seen.Refused!.Message)]), seen.Refused.Until ?? seen.Now + Resync);
        }

        var (verdict, replicas) = ledger.Standing?.Hold is { } hold
            ? Continue(seen, request, ledger.Standing, hold, policy, changes)
            : Start(seen, request, ledger.Standing, wanted, policy, changes);

        if (replicas is { } target) AddChild(seen, ledger, WhileOthersEnd(seen, target), changes);
        if (seen.Child is null && changes.FindIndex(change => change is ClusterChange.PlaceHold or ClusterChange.ApplyChild) is var first and >= 0)
        {
            changes.Insert(first, new ClusterChange.ClaimName(seen.Deployment.Metadata.Name));
        }

        // Uncharged pods are removed: when the deployment goes on, its ReplicaSet makes new ones. A child at zero removes its own: evicting them as
        // well would be quicker than the ReplicaSet learns of the zero, and it would start others in their place.
        var going = replicas ?? seen.CurrentReplicas;
        var childRemoves = going == 0 && seen.Child is not null;
        foreach (var pod in seen.Pods.Where(pod => pod.Live && !childRemoves && ledger.Runs.Any(run => run.Pod == pod.Id && run.ChargeUntil is not null)))
        {
            changes.Add(new ClusterChange.EvictPod(pod.Pod.Metadata.Name));
        }

        var stopsAt = (verdict as Verdict.Admit)?.StopsAt;
        var lookAgain = seen.Now + Resync;
        return new Decision(verdict, changes, StatusReports.Of(seen, ledger, request, verdict, going), stopsAt < lookAgain ? stopsAt : lookAgain);
    }

    /// <summary>No hold: the start rule.</summary>
    private static (Verdict, int? Replicas) Start(
        Observation seen, LaunchRequest request, DeploymentStanding? standing, int wanted, CreditPolicy policy, List<ClusterChange> changes)
    {
        var verdict = BillingGate.EvaluateStart(request, standing, policy, seen.Now);
        if (verdict is not Verdict.Admit) return (verdict, 0);
        if (wanted > 0) changes.Add(new ClusterChange.PlaceHold(request));
        return (verdict, wanted);
    }

    /// <summary>A hold: the stop rule, and the start rule for what is asked beyond it. Without a number of replicas the child stays as it is.</summary>
    private static (Verdict, int? Replicas) Continue(
        Observation seen, LaunchRequest request, DeploymentStanding standing, CreditHold hold, CreditPolicy policy, List<ClusterChange> changes)
    {
        var running = BillingGate.EvaluateRunning(request, standing, policy, seen.Now);
        if (running is Verdict.Refuse stop)
        {
            changes.Add(stop.Reason == RefusalReason.InsufficientBalance
                ? new ClusterChange.SuspendAccount(hold.Account)
                : new ClusterChange.SuspendDeployment(stop.Since ?? seen.Now, stop.Reason.ToString()));
            return (stop, 0);
        }

        var wanted = seen.WantedReplicas;
        if (wanted == 0)
        {
            // Pods that drain after a pause are still paid for: their money stays aside until the last has ended.
            if (Drained(seen)) changes.Add(new ClusterChange.ReleaseHold());
            return (running, 0);
        }

        if (request.Gpus == hold.Gpus && request.Product == hold.Product) return (running, wanted);
        if (request.Gpus < hold.Gpus && request.Product == hold.Product)
        {
            changes.Add(new ClusterChange.PlaceHold(request));
            return (running, wanted);
        }

        var grown = BillingGate.EvaluateStart(request, standing, policy, seen.Now);
        if (grown is Verdict.Admit)
        {
            changes.Add(new ClusterChange.PlaceHold(request));
            return (running, wanted);
        }

        if (seen.CurrentReplicas == 0 && Drained(seen)) changes.Add(new ClusterChange.ReleaseHold());
        return (grown, PaidFor(seen, request, hold));
    }

    /// <summary>
    /// What goes on when more was asked than is held for, and refused: never more than runs, so a refusal raises nothing. Null leaves
    /// the child as it is: pods of another size or product would take the place of those that run, and nobody paid for them.
    /// </summary>
    private static int? PaidFor(Observation seen, LaunchRequest request, CreditHold hold)
    {
        if (seen.CurrentReplicas == 0) return 0;
        var size = PodGpus.Of(seen.Child!.Spec.Template.Spec);
        if (size == seen.Deployment.Spec.Gpu.Count && hold.Product == request.Product)
            return Math.Min(seen.CurrentReplicas, Math.Min(seen.WantedReplicas, hold.Gpus / size));

        // Scaled by hand beyond its hold, and the template that it ran with is edited away: there is nothing to put it back to.
        return seen.CurrentReplicas * size <= hold.Gpus ? null : 0;
    }

    /// <summary>
    /// Replicas for as long as larger pods of an earlier spec still end: a rolling update counts pods, so four of two GPUs that become
    /// eight of one would stand on twelve where eight are paid for.
    /// </summary>
    private static int WhileOthersEnd(Observation seen, int replicas)
    {
        var size = seen.Deployment.Spec.Gpu.Count;
        var largest = seen.Pods.Where(pod => pod.EndedAt is null).Select(pod => PodGpus.Of(pod.Pod.Spec)).Append(size).Max();
        return replicas * size / largest;
    }

    /// <summary>Deleted: stop the pods, record their ends, give back what was held, let go.</summary>
    private static Decision Finish(Observation seen, LedgerView.Known ledger)
    {
        var changes = Meter(seen, ledger);
        if (seen.Child is not null && !seen.NameTaken) changes.Add(new ClusterChange.DeleteChild(seen.Child.Metadata.Name));
        if ((seen.Child is null || seen.NameTaken) && Drained(seen) && ledger.Runs.Count == 0 && seen.HasFinalizer)
        {
            // Whichever account holds it: the namespace's label may name another by now.
            changes.Add(new ClusterChange.ReleaseHold());
            changes.Add(new ClusterChange.RemoveFinalizer());
        }

        return new Decision(null, changes, null, seen.Now + TimeSpan.FromSeconds(30));
    }

    /// <summary>
    /// Deleted while the ledger cannot be read: the customer's own wish to stop is carried out at once; the finalizers keep
    /// everything visible until the ends can be recorded.
    /// </summary>
    private static Decision StopWithoutLedger(Observation seen)
    {
        List<ClusterChange> changes = [];
        if (seen.Child is not null && !seen.NameTaken) changes.Add(new ClusterChange.DeleteChild(seen.Child.Metadata.Name));
        return new Decision(null, changes, null, seen.Now + LedgerRetry);
    }

    /// <summary>The ledger cannot be read: start nothing, stop nothing, except what the customer wants stopped.</summary>
    private static Decision HoldStill(Observation seen, LedgerView.Unavailable ledger)
    {
        List<ClusterChange> changes = [];
        var verdict = new Verdict.Hold(ledger.Why);
        if (seen.Child is not null && !seen.NameTaken && seen.WantedReplicas < seen.CurrentReplicas && Validation.Validate(seen.Deployment).Count == 0
            && StatusReports.ReportedProduct(seen) is { } product)
        {
            AddRendered(seen, product, seen.WantedReplicas, changes);
        }

        return new Decision(verdict, changes, StatusReports.Unknown(seen, verdict), seen.Now + LedgerRetry);
    }

    /// <summary>Brings the ledger's intervals in step with the pods.</summary>
    private static List<ClusterChange> Meter(Observation seen, LedgerView.Known ledger)
    {
        List<ClusterChange> changes = [];
        foreach (var pod in seen.Pods)
        {
            var recorded = ledger.Runs.Any(run => run.Pod == pod.Id);
            if (pod.StartedAt is { } startedAt && !recorded && pod.HasFinalizer && Start(seen, ledger, pod, startedAt) is { } start)
            {
                changes.Add(new ClusterChange.RecordStart(start, pod.EndedAt));
                recorded = true;
            }

            if (pod.EndedAt is not { } endedAt) continue;
            if (recorded) changes.Add(new ClusterChange.RecordEnd(pod.Id, endedAt));
            if (pod.HasFinalizer) changes.Add(new ClusterChange.ReleasePod(pod.Pod.Metadata.Name));
        }

        changes.AddRange(ledger.Runs
            .Where(run => seen.Pods.All(pod => pod.Id != run.Pod))
            .Select(run => new ClusterChange.EndVanishedRun(run)));
        return changes;
    }

    private static RunStart? Start(Observation seen, LedgerView.Known ledger, PodRun pod, DateTimeOffset startedAt)
    {
        // The payer is the account that holds money for it; the namespace's label only names who is asked next.
        var account = ledger.Standing?.Hold?.Account ?? seen.Account;
        var product = PodProduct(pod) ?? ledger.Standing?.Hold?.Product;
        if (account is not { } payer || product is not { } held) return null;
        return new RunStart
        {
            Pod = pod.Id,
            PodName = pod.Pod.Metadata.Name,
            Deployment = seen.Id,
            DeploymentName = seen.Deployment.Metadata.Name,
            Namespace = seen.Deployment.Metadata.NamespaceProperty,
            Account = payer,
            Node = pod.Pod.Spec.NodeName ?? "",
            Product = held,
            Gpus = PodGpus.Of(pod.Pod.Spec),
            StartedAt = startedAt,
        };
    }

    /// <summary>The product that the pod was pinned to: the last requirement that its template carries.</summary>
    private static GpuProduct? PodProduct(PodRun pod)
    {
        var pinned = pod.Pod.Spec?.Affinity?.NodeAffinity?.RequiredDuringSchedulingIgnoredDuringExecution?.NodeSelectorTerms?.FirstOrDefault()
            ?.MatchExpressions?.LastOrDefault(requirement => requirement.Key == WellKnown.GpuProductLabel)?.Values?.FirstOrDefault();
        return pinned is null ? null : new GpuProduct(pinned);
    }

    private static bool Drained(Observation seen) => seen.Pods.All(pod => pod.EndedAt is not null && !pod.HasFinalizer);

    private static void AddChild(Observation seen, LedgerView.Known ledger, int replicas, List<ClusterChange> changes)
    {
        // Nothing to stop and nothing to start: a refused deployment has no child at all.
        if (replicas == 0 && seen.Child is null) return;
        var product = seen.Gpus.Choose(seen.Deployment.Spec.Gpu, ledger.Standing?.Hold?.Product, ledger.Prices) ?? StatusReports.ReportedProduct(seen);
        if (product is { } chosen) AddRendered(seen, chosen, replicas, changes);
    }

    private static void AddRendered(Observation seen, GpuProduct product, int replicas, List<ClusterChange> changes)
    {
        var rendered = PodTemplate.Render(seen.Deployment, product, replicas);
        if (PodDrift.Differs(seen.Child, rendered, seen.Applied)) changes.Add(new ClusterChange.ApplyChild(rendered));
    }

    private static bool WasRefused(Observation seen, GpuProduct? product, int wanted)
        => seen.Refused is { } refused && !(refused.Until <= seen.Now) && product is { } chosen && PodDrift.Hash(PodTemplate.Render(seen.Deployment, chosen, wanted)) == refused.Hash;

    private static Money? Dollars(string? text) => Money.TryParse(text, out var money) ? money : null;
}
