using Tensormesh.Billing;
using Tensormesh.Resources;

namespace Tensormesh.Operator.Reconciling;

/// <summary>From a decision to the words that a customer reads. Pure.</summary>
internal static class StatusReports
{
    public static StatusReport Of(Observation seen, LedgerView.Known ledger, LaunchRequest request, Verdict verdict, int replicas)
    {
        var ready = ReadyPods(seen);
        var draining = seen.Pods.Count(pod => pod.EndedAt is null && !pod.Live);
        var authorized = Authorized(verdict);
        if (verdict is Verdict.Admit && AccountGone(seen) is { } gone) authorized = authorized with { Message = $"{authorized.Message} {gone}" };
        List<ConditionReport> conditions = [authorized, Suspended(seen, verdict, replicas), Ready(seen, verdict, ready, draining)];
        var settling = verdict is Verdict.Admit && !seen.Paused && ready < seen.WantedReplicas;
        var stopping = replicas == 0 && (draining > 0 || seen.Pods.Any(pod => pod.Live));
        conditions.Add(settling || stopping
            ? new ConditionReport(ConditionTypes.Reconciling, true, stopping ? ConditionReasons.Stopping : ConditionReasons.Starting, Progress(seen, ready, draining, stopping))
            : new ConditionReport(ConditionTypes.Reconciling, false, ConditionReasons.Idle, "The deployment is as it should be for now."));
        conditions.Add(verdict is Verdict.Refuse refuse
            ? new ConditionReport(ConditionTypes.Stalled, true, refuse.Reason.ToString(), refuse.Message)
            : NotStalled());
        if (Verified(seen) is { } verified) conditions.Add(verified);
        return Counts(seen, ledger, conditions) with { Product = request.Product, HourlyRate = request.HourlyRate };
    }

    /// <summary>Whether what is paid for is there and works, by the word of the nodes' agents. Null where there are none, and nothing was said before.</summary>
    private static ConditionReport? Verified(Observation seen)
    {
        var running = seen.Pods.Where(pod => pod.Live && pod.StartedAt is not null).ToList();
        var toldBefore = ConditionList.Find(seen.Deployment.Status?.Conditions, ConditionTypes.GpuVerified) is not null;
        if (!toldBefore && (running.Count == 0 || !seen.HasAgents)) return null;
        if (running.Count == 0) return new(ConditionTypes.GpuVerified, null, ConditionReasons.Idle, "No pod holds GPUs.");

        var held = running.Select(pod => seen.Devices.GetValueOrDefault(pod.Id)).OfType<HeldDevices>().ToList();
        var amiss = held.SelectMany(pod => pod.Amiss).ToList();
        if (held.Exists(pod => pod.Failed)) return new(ConditionTypes.GpuVerified, false, ConditionReasons.GpuUnhealthy, string.Join("; ", amiss));
        if (amiss.Count > 0) return new(ConditionTypes.GpuVerified, null, ConditionReasons.NotObserved, string.Join("; ", amiss));
        return held.Count == running.Count
            ? new(ConditionTypes.GpuVerified, true, ConditionReasons.AllHealthy, "The drivers of the nodes say that every GPU that is held is there and healthy.")
            : new(ConditionTypes.GpuVerified, null, ConditionReasons.NotObserved, $"Of {held.Count} of {running.Count} pods the agents on their nodes say which GPUs they hold.");
    }

    public static StatusReport Invalid(Observation seen, LedgerView.Known ledger, IReadOnlyList<FieldError> errors)
    {
        var (reason, message) = seen.NameTaken
            ? (ConditionReasons.NameTaken, $"A Deployment named {seen.Deployment.Metadata.Name} that this GpuDeployment does not own is in the way: rename one of them.")
            : (ConditionReasons.InvalidSpec, string.Join("; ", errors));
        return Counts(seen, ledger,
        [
            new ConditionReport(ConditionTypes.BillingAuthorized, null, reason, message),
            new ConditionReport(ConditionTypes.Suspended, false, ConditionReasons.NotSuspended, "Nothing was stopped because of this."),
            new ConditionReport(ConditionTypes.Ready, false, reason, message),
            new ConditionReport(ConditionTypes.Reconciling, false, ConditionReasons.Idle, "Waiting for a spec that can run."),
            new ConditionReport(ConditionTypes.Stalled, true, reason, message),
        ]) with
        { Product = ReportedProduct(seen) };
    }

    public static StatusReport Unknown(Observation seen, Verdict.Hold hold)
    {
        var ready = ReadyPods(seen);
        var message = hold.Message + " Nothing is started and nothing is stopped until it answers.";
        var running = ready >= seen.WantedReplicas && seen.WantedReplicas > 0;
        var report = Counts(seen, null,
        [
            new ConditionReport(ConditionTypes.BillingAuthorized, null, ConditionReasons.LedgerUnavailable, message),
            new ConditionReport(ConditionTypes.Ready, running, running ? ConditionReasons.Running : ConditionReasons.LedgerUnavailable, running ? Runs(seen, ready) : message),
            new ConditionReport(ConditionTypes.Reconciling, !running, running ? ConditionReasons.Idle : ConditionReasons.LedgerUnavailable, message),
            NotStalled(),
        ]);
        return report with { Product = ReportedProduct(seen), HourlyRate = Money.TryParse(seen.Deployment.Status?.HourlyRate, out var rate) ? rate : null };
    }

    /// <summary>The product that was reported before, for when nothing better can be known.</summary>
    public static GpuProduct? ReportedProduct(Observation seen)
        => seen.Deployment.Status?.GpuProduct is { Length: > 0 } product ? new GpuProduct(product) : null;

    private static StatusReport Counts(Observation seen, LedgerView.Known? ledger, IReadOnlyList<ConditionReport> conditions) => new(
        Replicas: seen.Pods.Count(pod => pod.Live),
        ReadyReplicas: ReadyPods(seen),
        Gpus: seen.Pods.Where(pod => pod.Live && pod.StartedAt is not null).Sum(pod => PodGpus.Of(pod.Pod.Spec)),
        Product: null,
        HourlyRate: null,
        CostToDate: ledger is null ? null : ledger.Standing?.SettledCost ?? Money.Zero,
        conditions);

    /// <summary>What to say of a payer whose BillingAccount was deleted: nothing stops for it, and somebody should know.</summary>
    public static string? AccountGone(Observation seen) => seen.AccountIsShown || seen.Account is not { } account
        ? null
        : $"BillingAccount {account} was deleted: its balance and history are kept in the ledger and go on paying; to see them, apply it again.";

    private static ConditionReport Authorized(Verdict verdict) => verdict switch
    {
        Verdict.Admit { StopsAt: { } stopsAt, StopReason: { } why } => new(
            ConditionTypes.BillingAuthorized, true, ConditionReasons.Admitted, Until(stopsAt, why)),
        Verdict.Admit => new(ConditionTypes.BillingAuthorized, true, ConditionReasons.Admitted, "A valid card is on file and the balance covers the hold."),
        Verdict.Refuse refuse => new(ConditionTypes.BillingAuthorized, false, refuse.Reason.ToString(), refuse.Message),
        Verdict.Hold hold => new(ConditionTypes.BillingAuthorized, null, ConditionReasons.LedgerUnavailable, hold.Message),
        _ => throw new InvalidOperationException($"unknown verdict {verdict}"),
    };

    /// <summary>In whole minutes, so that a message does not change with every look.</summary>
    private static string Until(DateTimeOffset stopsAt, RefusalReason why)
    {
        var when = stopsAt.ToString("yyyy-MM-dd HH:mm", System.Globalization.CultureInfo.InvariantCulture) + " UTC";
        return why switch
        {
            RefusalReason.InsufficientBalance => $"The balance lasts until {when} at the account's present burn.",
            RefusalReason.BudgetExhausted => $"The deployment's own budget lasts until {when}.",
            RefusalReason.NoValidCard or RefusalReason.CardExpired => $"No valid card is on file after {when}, grace included.",
            RefusalReason.AccountMissing or RefusalReason.NoMatchingGpu or RefusalReason.PriceMissing or RefusalReason.HourlyRateAboveBudget
                => $"It stops at {when}: {why}.",
        };
    }

    private static ConditionReport Suspended(Observation seen, Verdict verdict, int replicas)
    {
        if (seen.Paused) return new(ConditionTypes.Suspended, true, ConditionReasons.Paused, "spec.paused is true: set it to false to run again.");
        if (verdict is Verdict.Refuse refuse && replicas == 0 && seen.WantedReplicas > 0)
        {
            return new(ConditionTypes.Suspended, true, refuse.Reason.ToString(), refuse.Message);
        }

        return new(ConditionTypes.Suspended, false, ConditionReasons.NotSuspended, "What was asked for may run.");
    }

    private static ConditionReport Ready(Observation seen, Verdict verdict, int ready, int draining)
    {
        if (verdict is Verdict.Refuse refuse) return new(ConditionTypes.Ready, false, refuse.Reason.ToString(), refuse.Message);
        if (seen.Paused)
        {
            return new(ConditionTypes.Ready, false, ConditionReasons.Paused, draining > 0
                ? $"Paused: {Pods(draining)} still ending, and charged until then."
                : "Paused: nothing runs and nothing is charged.");
        }

        if (seen.WantedReplicas == 0) return new(ConditionTypes.Ready, true, ConditionReasons.ScaledToZero, "Scaled to zero: nothing runs and nothing is charged.");
        return ready >= seen.WantedReplicas
            ? new(ConditionTypes.Ready, true, ConditionReasons.Running, Runs(seen, ready))
            : new(ConditionTypes.Ready, false, ConditionReasons.Starting, Progress(seen, ready, draining, stopping: false));
    }

    private static ConditionReport NotStalled() => new(ConditionTypes.Stalled, false, ConditionReasons.NotStalled, "Nothing waits for a person.");

    private static string Runs(Observation seen, int ready) => $"{ready} of {seen.WantedReplicas} replicas run.";

    private static string Progress(Observation seen, int ready, int draining, bool stopping)
    {
        if (stopping) return $"{Pods(seen.Pods.Count(pod => pod.Live) + draining)} ending.";
        var unscheduled = seen.Pods
            .Select(pod => pod.Pod.Status?.Conditions?.FirstOrDefault(condition => condition is { Type: "PodScheduled", Status: "False" })?.Message)
            .FirstOrDefault(message => !string.IsNullOrEmpty(message));
        return unscheduled is null ? Runs(seen, ready) : string.Join(' ', [$"{Runs(seen, ready)} Waiting for GPUs: {unscheduled}", .. WhereGpusAre(seen)]);
    }

    private static IEnumerable<string> WhereGpusAre(Observation seen)
    {
        if (seen.MostFree is { } most) yield return $"One pod needs {seen.Deployment.Spec.Gpu.Count} on one node; {most.Node} has most free: {most.Gpus}.";
        if (seen.Gpus.Troubles.Count > 0) yield return $"{string.Join("; ", GpuInventory.Named(seen.Gpus.Troubles))}.";
    }

    private static string Pods(int count) => count == 1 ? "1 pod is" : $"{count} pods are";

    private static int ReadyPods(Observation seen) => seen.Pods.Count(pod => pod.Live && pod.Ready);
}
