using Tensormesh.Billing;

namespace Tensormesh.Simulation.Tests;

/// <summary>What holds once everything has ended: each pod that ever held GPUs is paid for, to the nano, as far as it had to be.</summary>
internal static class Ending
{
    /// <exception cref="FoundException">Something was charged too much, too little or not at all.</exception>
    public static void Compare(Stage stage, PaperBank bank, MoneyActs money)
    {
        var due = stage.World.Deployments.SelectMany(deployment => deployment.Pods).Where(pod => pod.StartedAt is not null).Sum(pod => Due(stage, pod));
        if (due != stage.Auditor.Charged) throw new FoundException($"GPU time costs {due} nanos, and {stage.Auditor.Charged} were charged");
        foreach (var account in stage.Accounts)
        {
            var (taken, credited) = (bank.Taken(account), new Money(stage.Auditor.CashIn(account)));
            if (credited != taken)
            {
                throw new FoundException($"cards of {account} paid {taken.ToDecimalString()}, and {credited.ToDecimalString()} were credited");
            }

            if (taken > money.Asked(account))
            {
                throw new FoundException($"cards of {account} paid {taken.ToDecimalString()}, and its holder asked for {money.Asked(account).ToDecimalString()}");
            }

            if (stage.Auditor.Funds(account.Value) != stage.Auditor.Balance(account))
            {
                throw new FoundException($"tokens of {account} are not charged, although it has money");
            }
        }
    }

    private static long Due(Stage stage, ModelPod pod)
    {
        if (!stage.Auditor.Last.Runs.TryGetValue(pod.Uid, out var run))
        {
            // It was taken away by force before anybody recorded that it had begun.
            if (pod.VanishedAt is null) throw new FoundException($"{pod.Name} held GPUs from {pod.StartedAt:O}, and nobody recorded it");
            stage.Count("run: never recorded");
            return 0;
        }

        var end = pod.TrueEnd ?? throw new FoundException($"{pod.Name} still runs");
        var chargeable = run.ChargeUntil < run.EndedAt ? run.ChargeUntil.Value : run.EndedAt!.Value;
        if (chargeable > end) throw new FoundException($"{pod.Name} ended at {end:O}, and is charged until {chargeable:O}");
        if (pod.GpuWellUntil is { } well && chargeable > run.StartedAt && chargeable > well)
        {
            throw new FoundException($"{pod.Name} is charged until {chargeable:O}, and its GPU was last seen well at {well:O}");
        }

        stage.Count(run.ChargeUntil is null ? "run: charged to its end" : "run: stopped before its end");
        return stage.Auditor.BillOf(pod.Uid)!.Due(chargeable);
    }
}
