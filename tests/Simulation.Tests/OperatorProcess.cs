using System.Net;
using k8s.Autorest;
using k8s.Models;
using Microsoft.Extensions.Logging.Abstractions;
using Microsoft.Extensions.Time.Testing;
using Tensormesh.Billing;
using Tensormesh.Operator.Reconciling;
using Tensormesh.Operator.Telemetry;
using Tensormesh.Operator.Watching;
using Tensormesh.Resources;

namespace Tensormesh.Simulation.Tests;

/// <summary>
/// One operator: the real Decider, Applier, Meter, RunIntervals, Holds and GpuFaults on the model's API server and a real ledger. Only the Observer's half
/// of the informers is the model's, and the loops that would wake it are the story's. What it only remembers goes with it.
/// </summary>
internal sealed class OperatorProcess : IAsyncDisposable
{
    private static readonly OperatorMetrics Metrics = new(Prometheus.Metrics.NewCustomRegistry());

    /// <summary>Rounds of one deployment that follow at once on a refusal under the lock.</summary>
    private const int MostAttempts = 3;

    private readonly Stage stage;
    private readonly World world;
    private readonly Accounts accounts;
    private readonly PriceList prices;
    private readonly RunIntervals runs;
    private readonly Holds holds;
    private readonly Meter meter;
    private readonly GpuFaults faults;
    private readonly PodDrift drift = new();
    private readonly Departures departures;
    private readonly LeaderLease lease;
    private readonly Applier applier;
    private readonly CancellationTokenSource life = new();
    /// <summary>When a running deployment must stop, as of the last look at it.</summary>
    private readonly Dictionary<ModelDeployment, DateTimeOffset> alarms = [];
    private Task leading = Task.CompletedTask;

    private OperatorProcess(Stage stage, OperatorEpoch? epoch)
    {
        (this.stage, world) = (stage, stage.World);
        var (database, time) = (stage.Database, stage.World.Time);
        (accounts, runs, holds) = (new(database, epoch), new(database, epoch), new(database, epoch));
        (meter, faults, Prices) = (new(database, epoch), new(database, epoch), new(database, epoch));
        prices = new PriceList(Prices, Metrics, time);
        departures = new Departures(time);
        // Its clock stands still: a story pauses a process by taking another's turn, not by letting its lease run out.
        lease = new LeaderLease(stage.Client, new LeaseOptions(), Metrics, new FakeTimeProvider(), NullLogger<LeaderLease>.Instance);
        applier = new Applier(
            stage.Client, lease, runs, holds, meter, drift, new OwnWrites(), new LastTrace(stage.Client, departures, runs, stage.Policy, time), stage.Policy,
            Metrics, time, NullLogger<Applier>.Instance);
        world.Departed += NoteDeparture;
    }

    public Prices Prices { get; }
    /// <summary>Another took over, and the ledger said so: the process ends.</summary>
    public bool IsOver { get; private set; }
    /// <summary>Every deployment was looked at once: before that nothing is settled.</summary>
    public bool CaughtUp { get; private set; }
    /// <summary>Rounds that were begun, and go on later: of a deployment there is one at a time.</summary>
    public Dictionary<ModelDeployment, Round> Late { get; } = [];

    public static async Task<OperatorProcess> StartAsync(Stage stage, string name)
    {
        var epoch = stage.Fenced && stage.Flaw != Flaw.IsNotFenced ? new OperatorEpoch(stage.Database) : null;
        if (epoch is not null) await epoch.TakeAsync(name, stage.Cancellation);
        var process = new OperatorProcess(stage, epoch);
        var led = new TaskCompletionSource();
        process.leading = process.lease.RunAsync(token =>
        {
            led.SetResult();
            return Task.Delay(Timeout.Infinite, token);
        }, process.life.Token);
        // One that cannot lead says why.
        await await Task.WhenAny(led.Task, process.leading);
        return process;
    }

    /// <summary>Observe and decide.</summary>
    public async Task<Round> LookAsync(ModelDeployment deployment, bool ledgerAnswers = true, bool timely = true)
        => Decide(deployment, await ObserveAsync(deployment, deployment.Render(), ledgerAnswers), timely);

    /// <summary>A whole round of one deployment; one that was begun before goes first.</summary>
    public async Task RoundAsync(ModelDeployment deployment, bool ledgerAnswers = true)
    {
        if (Late.Remove(deployment, out var late)) await FinishAsync(late);
        for (var attempt = 0; attempt < MostAttempts && !IsOver && !deployment.Gone; attempt++)
        {
            if (await FinishAsync(await LookAsync(deployment, ledgerAnswers)) != Outcome.LookAgain) return;
        }
    }

    public async Task RoundsAsync(bool ledgerAnswers = true)
    {
        foreach (var deployment in world.Deployments.Where(deployment => !deployment.Gone || Late.ContainsKey(deployment)).ToList())
        {
            await RoundAsync(deployment, ledgerAnswers);
            if (IsOver) return;
        }

        if (!ledgerAnswers) return;
        await SweepAsync();
        CaughtUp = true;
    }

    /// <summary>A round of every deployment.</summary>
    /// <returns>False when nothing was left to change.</returns>
    public async Task<bool> ChangesAnythingAsync()
    {
        var changed = false;
        foreach (var deployment in world.Present.ToList())
        {
            var round = await LookAsync(deployment);
            changed |= round.Left.Count > 0;
            await FinishAsync(round);
        }

        return changed;
    }

    /// <returns>Null when the round broke off: by a conflict, or because another operator has taken over.</returns>
    public async Task<Outcome?> FinishAsync(Round round)
    {
        while (round.Left.Count > 0)
        {
            if (await StepAsync(round) is var outcome and not Outcome.Whole) return outcome;
        }

        if (round.Decision.Verdict is Verdict.Hold) await stage.Auditor.AfterAsync(new Effect.Nothing("the ledger could not be read"), stage.Cancellation);
        if (round.Decision.Report is { } report && !round.Deployment.Gone) round.Deployment.ReportedProduct = report.Product;
        if (round.Decision.Verdict is Verdict.Admit { StopsAt: { } stopsAt }) alarms[round.Deployment] = stopsAt;
        else alarms.Remove(round.Deployment);
        return Outcome.Whole;
    }

    /// <summary>Carries out the next change of a round by the real Applier, and has the books looked at.</summary>
    /// <inheritdoc cref="FinishAsync" path="/returns"/>
    public async Task<Outcome?> StepAsync(Round round)
    {
        var change = round.Left.Dequeue();
        var before = round.Deployment.ChildGpus;
        Outcome? outcome = null;
        await WriteAsync(async () =>
        {
            try
            {
                outcome = await applier.ApplyAsync(round.Seen.Deployment, [change], stage.Cancellation);
            }
            catch (HttpOperationException conflict) when (conflict.Response.StatusCode == HttpStatusCode.Conflict)
            {
                stage.Count("conflict");
            }
        });
        stage.Tell($"    {round.Name(change)}{(outcome is null ? ": refused" : outcome == Outcome.Whole ? "" : $": {outcome}")}");
        if (outcome is { } done && round.EffectOf(change, done) is { } effect) await stage.Auditor.AfterAsync(effect, stage.Cancellation);
        if (round.Timely) ExpectPaidFor(round, before);
        if (round.Timely && change is ClusterChange.RemoveFinalizer) ExpectNothingOpen(round.Deployment);
        if (outcome != Outcome.Whole) round.Left.Clear();
        stage.Mortality.Step();
        return outcome;
    }

    /// <summary>The metering clock's tick: every account, one after the other.</summary>
    public async Task SettleAsync(TimeSpan late)
    {
        var until = world.Now - stage.Policy.SettlementLag - late;
        foreach (var account in stage.Accounts)
        {
            var settled = Settlement.Nothing;
            if (!await WriteAsync(async () => settled = await meter.SettleAsync(account, until, stage.Cancellation, stage.Policy.TokenSettlementInterval))) return;
            if (stage.Flaw == Flaw.ChargesTwice && settled.Windows > 0) await ChargeAgainAsync(account);
            await stage.Auditor.AfterAsync(new Effect.Settle(account, until), stage.Cancellation);
        }
    }

    /// <summary>What nodes' agents tell of GPUs that failed, told as often as the story likes.</summary>
    public async Task TellOfGpusAsync()
    {
        foreach (var pod in world.Deployments.SelectMany(deployment => deployment.Pods).Where(pod => pod.GpuFaultSeenAt is not null).ToList())
        {
            var gpu = $"GPU-{pod.Uid}";
            var fault = new GpuFault
            {
                Gpus = [gpu],
                Gpu = gpu,
                Node = pod.Node.Name,
                Reason = "Lost",
                Message = "the driver no longer answers for this GPU",
                LastHealthyAt = pod.GpuWellUntil,
                SeenAt = pod.GpuFaultSeenAt!.Value,
            };
            if (!await WriteAsync(() => runs.RecordGpusAsync([new HeldGpus(new PodId(pod.Uid), [gpu])], stage.Cancellation))) return;
            if (!await WriteAsync(() => faults.ApplyAsync([fault], stage.Policy, world.Now, stage.Cancellation))) return;
            await stage.Auditor.AfterAsync(new Effect.GpuFault(new PodId(pod.Uid), pod.GpuWellUntil!.Value), stage.Cancellation);
        }
    }

    /// <summary>The first alarm ahead, which then has rung; null when none rings until then.</summary>
    public (ModelDeployment Deployment, DateTimeOffset At)? NextAlarm(DateTimeOffset until)
    {
        var due = alarms.Where(alarm => alarm.Value > world.Now && alarm.Value <= until && !alarm.Key.Gone).OrderBy(alarm => alarm.Value).ToList();
        if (due.Count == 0) return null;
        alarms.Remove(due[0].Key);
        return (due[0].Key, due[0].Value);
    }

    public void ForgetPrices() => prices.Forget();

    public async ValueTask DisposeAsync()
    {
        world.Departed -= NoteDeparture;
        await life.CancelAsync();
        await leading.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        life.Dispose();
    }

    /// <summary>One effect on ledger or cluster, before which the process may die.</summary>
    /// <returns>False when another operator has taken over: then nothing of it was written, and this one ends.</returns>
    private async Task<bool> WriteAsync(Func<Task> write)
    {
        stage.Mortality.Step();
        try
        {
            await write();
            return true;
        }
        catch (Exception fault) when (OperatorEpoch.IsOver(fault))
        {
            stage.Count("overtaken");
            IsOver = true;
            await stage.Auditor.AfterAsync(new Effect.Nothing("the operator was overtaken"), stage.Cancellation);
            return false;
        }
    }

    private Round Decide(ModelDeployment deployment, Observation seen, bool timely)
    {
        var decision = Decider.Decide(seen, stage.Policy);
        Decisions.Judge(stage, seen, decision);
        stage.Tell($"  {deployment.Name}: {(decision.Verdict is { } verdict ? GpuDeploymentReconciler.VerdictName(verdict) : "no verdict")}, {decision.Changes.Count} changes");
        stage.Count($"verdict: {(decision.Verdict is { } asked ? GpuDeploymentReconciler.VerdictName(asked) : "none")}");
        return new Round(deployment, seen, decision, new(Decisions.Spoil(stage.Flaw, seen, decision)), timely);
    }

    /// <summary>As the Observer does it: the ledger, then the clock, then the local copies.</summary>
    private async Task<Observation> ObserveAsync(ModelDeployment deployment, GpuDeployment rendered, bool ledgerAnswers)
    {
        LedgerView ledger = new LedgerView.Unavailable("The ledger cannot be read right now.");
        if (ledgerAnswers)
        {
            var (standing, open) = await accounts.ReadWithRunsAsync(deployment.Account, deployment.Id, stage.Cancellation);
            ledger = new LedgerView.Known(standing, open, await prices.CurrentAsync(stage.Cancellation));
        }

        return new Observation
        {
            Deployment = rendered,
            Account = deployment.Account,
            Child = deployment.Child,
            Applied = drift.Find(deployment.Child),
            Refused = drift.FindRefusal(rendered.Metadata.Uid),
            NameTaken = false,
            Pods =
            [
                .. deployment.There.OrderBy(pod => pod.Name, StringComparer.Ordinal)
                    .Select(pod => PodRun.From(pod.Render(), world.HasNode(pod.Node), world.Now, pod.Node.MarkedAt)),
            ],
            Gpus = stage.Inventory,
            Ledger = ledger,
            Now = world.Now,
        };
    }

    /// <summary>What <see cref="Orphans"/> does: whatever is left of deployments that went without their finalizer is finished.</summary>
    private async Task SweepAsync()
    {
        var open = (await runs.ListOpenOwnersAsync(stage.Cancellation)).ToDictionary(each => each.Deployment, each => each.Owner);
        foreach (var gone in world.Deployments.Where(deployment => deployment.Gone).ToList())
        {
            var left = open.TryGetValue(gone.Id, out var owner);
            if (!left && gone.There.All(pod => !pod.HasFinalizer)) continue;
            stage.Count("orphan");
            if (left && owner is null)
            {
                if (!await WriteAsync(() => holds.ReleaseAsync(gone.Id, stage.Cancellation))) return;
                await stage.Auditor.AfterAsync(new Effect.Release(gone.Id), stage.Cancellation);
                continue;
            }

            var round = Decide(gone, await ObserveAsync(gone, Ghost(gone), ledgerAnswers: true), timely: true);
            await FinishAsync(round with { Left = new(round.Left.Where(change => change is not ClusterChange.RemoveFinalizer)) });
            if (IsOver) return;
        }
    }

    /// <summary>There is no object any more to look at.</summary>
    private GpuDeployment Ghost(ModelDeployment gone) => new()
    {
        Metadata = new V1ObjectMeta
        {
            Name = gone.Name,
            NamespaceProperty = gone.Namespace,
            Uid = gone.Uid.ToString(),
            DeletionTimestamp = world.Now.UtcDateTime,
            Finalizers = [WellKnown.MeteringFinalizer],
        },
    };

    /// <summary>Nothing is started that no hold covers, and nothing by a refusal or an outage; an outage stops nothing either.</summary>
    private void ExpectPaidFor(Round round, int before)
    {
        var (deployment, verdict) = (round.Deployment, round.Decision.Verdict);
        if (verdict is Verdict.Hold && deployment.ChildGpus < before && round.Seen.WantedReplicas >= round.Seen.CurrentReplicas)
        {
            throw new FoundException($"{deployment.Name} was stopped although the ledger could not be read");
        }

        if (deployment.ChildGpus <= before) return;
        if (verdict is not Verdict.Admit and not Verdict.Refuse) throw new FoundException($"{deployment.Name} was raised to {deployment.ChildGpus} GPUs by {verdict}");
        if (verdict is Verdict.Refuse) throw new FoundException($"{deployment.Name} was raised to {deployment.ChildGpus} GPUs in spite of {verdict}");
        var held = stage.Auditor.Last.Holds.GetValueOrDefault(deployment.Uid)?.Gpus ?? 0;
        if (held < deployment.ChildGpus) throw new FoundException($"{deployment.Name} was raised to {deployment.ChildGpus} GPUs, and {held} are held for");
    }

    /// <summary>What is let go has nothing left that anybody would have to look after.</summary>
    private void ExpectNothingOpen(ModelDeployment deployment)
    {
        var books = stage.Auditor.Last;
        if (books.Holds.TryGetValue(deployment.Uid, out var hold)) throw new FoundException($"{deployment.Name} was let go with a hold of {hold.Gpus} GPUs");
        if (books.Runs.Values.Any(run => run.Deployment == deployment.Uid && run.EndedAt is null)) throw new FoundException($"{deployment.Name} was let go while it is charged");
    }

    /// <summary>The flaw: what was charged last is charged again.</summary>
    private async Task ChargeAgainAsync(AccountId account)
    {
        var pod = stage.Auditor.Last.Runs.Values.First(run => run.Account == account.Value && run.Accrues).Pod;
        var again = Movements.Adjustment(account, -new Money(1), $"{pod}/{world.Now.Ticks}", "simulation", "a window that was charged before") with
        {
            Type = MovementType.GpuUsage,
            Details = $$"""{"pod": "{{pod}}"}""",
        };
        await new Ledger(stage.Database).PostAsync(again, stage.Cancellation);
    }

    private void NoteDeparture(ModelPod pod) => departures.Note(pod.Render(), null);
}
