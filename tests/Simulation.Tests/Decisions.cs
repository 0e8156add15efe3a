using Tensormesh.Billing;
using Tensormesh.Operator.Reconciling;

namespace Tensormesh.Simulation.Tests;

/// <summary>What a decision may never be, whatever was seen.</summary>
internal static class Decisions
{
    /// <exception cref="FoundException">
    /// A refusal that raises something, an outage that does more than the customer's own wish, or a stop without its reason.
    /// </exception>
    public static void Judge(Stage stage, Observation seen, Decision decision)
    {
        foreach (var stop in decision.Changes.OfType<ClusterChange.SuspendDeployment>()) ExpectReason(stage, seen, stop);
        var children = decision.Changes.OfType<ClusterChange.ApplyChild>().ToList();
        switch (decision.Verdict)
        {
            case Verdict.Refuse refuse:
                if (decision.Changes.Any(change => change is ClusterChange.PlaceHold)) throw new FoundException($"money was set aside in spite of {refuse}");
                if (children.Any(child => Gpus(child) > SeenGpus(seen))) throw new FoundException($"more GPUs than run in spite of {refuse}");
                break;
            case Verdict.Hold:
                var wish = seen.WantedReplicas < seen.CurrentReplicas;
                if (decision.Changes.Count > children.Count || children.Any(child => !wish || child.Rendered.Spec.Replicas != seen.WantedReplicas))
                {
                    throw new FoundException($"more than the customer's wish while the ledger cannot be read: {string.Join(", ", decision.Changes)}");
                }

                break;
            case null:
                if (children.Any(child => Gpus(child) > SeenGpus(seen))) throw new FoundException("more GPUs than run, and nobody asked the gate");
                break;
        }
    }

    /// <summary>One deployment is stopped at an instant that its reason names.</summary>
    private static void ExpectReason(Stage stage, Observation seen, ClusterChange.SuspendDeployment stop)
    {
        var sound = stop.Reason switch
        {
            nameof(RefusalReason.BudgetExhausted) => IsSpent(stage.Auditor, seen, stop.At),
            nameof(RefusalReason.NoValidCard) or nameof(RefusalReason.CardExpired) => stage.CardLosses.Contains(stop.At - Stage.CardGrace),
            _ => stop.At == seen.Now,
        };
        if (!sound) throw new FoundException($"{seen.Deployment.Metadata.Name} was stopped at {stop.At:O} for {stop.Reason}, which was not so then");
    }

    /// <summary>The last microsecond within the budget; or what is settled has passed it, and then it is as it is.</summary>
    private static bool IsSpent(Auditor books, Observation seen, DateTimeOffset at)
    {
        var budget = Money.Parse(seen.Deployment.Spec.Budget!.MaxTotalCost!).Nanos;
        var settled = books.Cost(seen.Id, DateTimeOffset.MinValue);
        if (settled > budget) return true;
        return books.Cost(seen.Id, at) <= budget && (books.Cost(seen.Id, at.AddMicroseconds(1)) > budget || (at == seen.Now && settled == budget));
    }

    /// <summary>The changes, with a flaw planted in them.</summary>
    public static IEnumerable<ClusterChange> Spoil(Flaw flaw, Observation seen, Decision decision)
    {
        var product = new GpuProduct(seen.Deployment.Spec.Gpu.Product ?? "");
        return flaw switch
        {
            Flaw.ForgetsEnds => decision.Changes.Where(change => change is not ClusterChange.RecordEnd),
            Flaw.RecordsEndsAsSeen => decision.Changes.Select(change => change is ClusterChange.RecordEnd end ? end with { EndedAt = seen.Now } : change),
            Flaw.KeepsHolds => decision.Changes.Where(change => change is not ClusterChange.ReleaseHold),
            Flaw.StartsInSpiteOfRefusal => decision.Verdict is Verdict.Refuse ? [.. decision.Changes, Child(seen.WantedReplicas)] : decision.Changes,
            Flaw.StopsWhenNotKnowing => decision.Verdict is Verdict.Hold && seen.Child is not null ? [.. decision.Changes, Child(0)] : decision.Changes,
            Flaw.None or Flaw.ChargesTwice or Flaw.PaysUnderANewKey or Flaw.IsNotFenced => decision.Changes,
        };

        ClusterChange.ApplyChild Child(int replicas) => new(PodTemplate.Render(seen.Deployment, product, replicas));
    }

    private static int Gpus(ClusterChange.ApplyChild child) => child.Rendered.Spec.Replicas!.Value * PodGpus.Of(child.Rendered.Spec.Template.Spec);

    private static int SeenGpus(Observation seen) => seen.Child is { } child ? seen.CurrentReplicas * PodGpus.Of(child.Spec.Template.Spec) : 0;
}
