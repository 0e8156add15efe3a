using System.Collections.Concurrent;
using k8s;
using k8s.Models;
using Npgsql;
using Tensormesh.Billing;
using Tensormesh.Operator.Admission;
using Tensormesh.Operator.Metering;
using Tensormesh.Operator.Proving;
using Tensormesh.Operator.Reconciling;
using Tensormesh.Operator.Telemetry;
using Tensormesh.Operator.Uninstalling;
using Tensormesh.Operator.Watching;
using Tensormesh.Resources;

namespace Tensormesh.Operator;

/// <summary>What changed, to which key, to which loop: the wiring between watches, the ledger's hints and the four reconcilers.</summary>
internal sealed partial class Controller(
    ClusterView cluster, GpuDeploymentReconciler deployments, BillingAccountReconciler billingAccounts, PriceBookReconciler priceBooks, GpuNodeReconciler gpuNodes, Rounds rounds,
    StandingListener listener, MeteringClock metering, LedgerProver prover, LeaderLease lease, PodDrift drift, OwnWrites own, Applier applier, StandingMemory memory, Departures departures, Orphans orphans, Audit audit,
    Uninstaller uninstaller, OwnRights rights, OwnDeletion deletion, StatusReporter reporter, EventRecorder events, NpgsqlDataSource dataSource, LedgerClock clock, ClockWatch clocks, OperatorEpoch epoch,
    OperatorOptions options, OperatorMetrics metrics,
    TimeProvider time, IHostApplicationLifetime lifetime, ILogger<Controller> logger) : BackgroundService
{
    /// <summary>Hints about one account within this time are one hint: placing fifty holds must not reconcile fifty deployments fifty times.</summary>
    private static readonly TimeSpan HintWindow = TimeSpan.FromMilliseconds(50);

    /// <summary>A database that is away must not keep a customer from pausing work, which needs none.</summary>
    private static readonly TimeSpan EpochPatience = TimeSpan.FromSeconds(5);

    /// <summary>What is shown of an account follows holds that were placed within this time: nothing but what people read depends on it.</summary>
    private static readonly TimeSpan ShowWindow = TimeSpan.FromSeconds(1);

    /// <summary>How long work waits at the start for the ledger's hints: what is looked at before they come must be looked at again.</summary>
    private static readonly TimeSpan ListenPatience = TimeSpan.FromSeconds(2);

    private static readonly TimeSpan GaugeInterval = TimeSpan.FromMilliseconds(500);

    private readonly WorkQueue gpuQueue = new(time);
    private readonly WorkQueue accountQueue = new(time);
    private readonly WorkQueue priceQueue = new(time);
    private readonly WorkQueue gpuNodeQueue = new(time);
    private readonly ConcurrentDictionary<AccountId, byte> hints = new();
    private readonly ConcurrentDictionary<AccountId, byte> held = new();
    private volatile bool everythingChanged;
    private volatile bool offersChanged;
    private volatile bool begun;
    private volatile bool led;
    /// <summary>Ends when the operator's own namespace is being deleted.</summary>
    private readonly TaskCompletionSource goodbye = new(TaskCreationOptions.RunContinuationsAsynchronously);

    /// <summary>True once every local copy is complete: only then may anything be decided.</summary>
    public bool Synced => cluster.Informers.All(informer => informer.HasSynced);

    protected override async Task ExecuteAsync(CancellationToken stopping)
    {
        Wire();
        if (options.MigrateOnStart) await Retry(() => Migrator.MigrateAsync(dataSource, stopping), stopping).ConfigureAwait(false);
        await Retry(() => clock.ReadAsync(dataSource, stopping), stopping).ConfigureAwait(false);
        var ticking = clocks.RunAsync(stopping);

        // The watches run whether or not this process leads: a standby takes over with warm copies.
        var watches = Task.WhenAll(cluster.Informers.Select(informer => informer.RunAsync(stopping)));
        using var leading = CancellationTokenSource.CreateLinkedTokenSource(stopping);
        _ = goodbye.Task.ContinueWith(_ => leading.CancelAsync(), stopping, TaskContinuationOptions.None, TaskScheduler.Default);
        try
        {
            await lease.RunAsync(LeadAsync, leading.Token).ConfigureAwait(false);
        }
        catch (OperationCanceledException) when (leading.IsCancellationRequested)
        {
        }
        catch (Exception fault) when (!stopping.IsCancellationRequested)
        {
            LogBroken(logger, fault);
        }

        // Not every stop is a restart: one that nobody will follow must not leave behind what waits for a follower.
        var uninstalled = led && leading.IsCancellationRequested && await uninstaller.RunIfDueAsync().ConfigureAwait(false);
        if (uninstalled) lifetime.StopApplication();
        else if (!stopping.IsCancellationRequested)
        {
            // Leadership was lost, or one of its loops. A process that goes on with half of its loops stopped is worse than one that starts again.
            Environment.ExitCode = 1;
            lifetime.StopApplication();
        }

        await Task.WhenAll(watches, ticking).ConfigureAwait(false);
    }

    private async Task LeadAsync(CancellationToken term)
    {
        led = true;
        await WaitForSyncAsync(term).ConfigureAwait(false);
        using var all = CancellationTokenSource.CreateLinkedTokenSource(term);
        var loop = all.Token;
        var listens = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        var listening = listener.RunAsync(Hint, () =>
        {
            // What was decided before the hints came may have missed one.
            if (begun) everythingChanged = true;
            listens.TrySetResult();
        }, loop);
        await Task.WhenAny(listens.Task, Task.Delay(ListenPatience, time, loop)).ConfigureAwait(false);
        begun = true;
        if (await deletion.HasBegunAsync(loop).ConfigureAwait(false))
        {
            // The one that led before has let go of everything, or could not: that is looked at once more, and nothing is begun.
            goodbye.TrySetResult();
            await Task.Delay(Timeout.InfiniteTimeSpan, time, loop).ConfigureAwait(false);
        }

        await rights.KeepAsync(loop).ConfigureAwait(false);
        var caughtUp = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        // What was hinted at so far is looked at with everything else, and not before it.
        hints.Clear();
        foreach (var account in cluster.BillingAccounts.All) accountQueue.Add(ObjectKey.Of(account));
        foreach (var book in cluster.PriceBooks.All) priceQueue.Add(ObjectKey.Of(book));
        foreach (var node in cluster.GpuNodes.All) gpuNodeQueue.Add(node.Metadata.Name);
        EnqueueAll();
        var backlog = new ConcurrentDictionary<string, byte>(cluster.GpuDeployments.All.Select(deployment => KeyValuePair.Create(ObjectKey.Of(deployment), (byte)0)));
        LogReady(logger, cluster.GpuDeployments.Count);

        // Until the epoch is taken, whatever would write finds the ledger unavailable, and tries again.
        var taking = Retry(() => TakeEpochAsync(loop), loop);
        await Task.WhenAny(taking, Task.Delay(EpochPatience, time, loop)).ConfigureAwait(false);
        Task[] loops =
        [
            rounds.RunAsync("GpuDeployment", gpuQueue, options.Workers, CountDownAsync, loop),
            rounds.RunAsync("BillingAccount", accountQueue, 2, billingAccounts.ReconcileAsync, loop),
            rounds.RunAsync("PriceBook", priceQueue, 1, (key, token) => priceBooks.ReconcileAsync(key, EnqueueAll, token), loop),
            rounds.RunAsync("GpuNode", gpuNodeQueue, 4, gpuNodes.ReconcileAsync, loop),
            listening,
            FollowHintsAsync(loop),
            events.RunAsync(loop),
            orphans.RunAsync(loop),
            audit.RunAsync(loop),
            WatchBacklogAsync(backlog, caughtUp, loop),
            metering.RunAsync(Task.WhenAll(taking, caughtUp.Task), Hint, loop),
            prover.RunAsync(loop),
        ];

        // None of them ends by itself. When one does, or the fence has refused a write, all of them end.
        var ended = await Task.WhenAny([rounds.Fenced, .. loops]).ConfigureAwait(false);
        await all.CancelAsync().ConfigureAwait(false);
        await Task.WhenAll(loops.Select(each => each.ContinueWith(_ => { }, CancellationToken.None, TaskContinuationOptions.ExecuteSynchronously, TaskScheduler.Default))).ConfigureAwait(false);
        if (ended.Exception?.InnerException is { } fault && OperatorEpoch.IsOver(fault)) LogFenced(logger, fault.Message);
        else await ended.ConfigureAwait(false);

        // Each of those that were there at the start, once: a queue that is never empty must not keep settlement from beginning.
        async Task<DateTimeOffset?> CountDownAsync(string key, CancellationToken cancellation)
        {
            try
            {
                return await deployments.ReconcileAsync(key, cancellation).ConfigureAwait(false);
            }
            finally
            {
                backlog.TryRemove(key, out _);
            }
        }
    }

    private void Wire()
    {
        metrics.Registry.AddBeforeCollectCallback(ShowHeldGpus);
        applier.Held += account =>
        {
            held.TryAdd(account, 0);
            // Nobody is told of a hold that only takes money, and the gate must not admit from before it.
            memory.Forget(account);
        };
        cluster.GpuDeployments.Changed += (before, after) =>
        {
            if (before is not null && after is not null)
            {
                EnqueueUnless(ObjectKey.Of(after), () => own.IsEcho(before, after));
                return;
            }

            Enqueue(ObjectKey.Of((after ?? before)!));
            if (after is not null) return;
            cluster.Forget(before!.Metadata.Uid);
            drift.ForgetOwner(before.Metadata.Uid);
            reporter.Forget(before.Metadata.Uid);
        };
        cluster.Deployments.Changed += (before, after) =>
        {
            if (before is not null && after is not null && PodDrift.IsSame(before, after)) return;
            if (after is not null && ClusterView.OwnerKey(after) is { } key) EnqueueUnless(key, () => drift.IsAsApplied(after));
            if (after is not null) return;
            EnqueueOwner(before);
            drift.Forget(before!);
        };
        cluster.Pods.Changed += departures.Note;
        cluster.Pods.Changed += (before, after) => EnqueueOwner(after ?? before);
        cluster.BillingAccounts.Changed += (before, after) =>
        {
            // Our own status writes come back as changes; only the spec's generation calls for work.
            if (before?.Metadata.Generation != after?.Metadata.Generation) accountQueue.Add(ObjectKey.Of((after ?? before)!));
            // What its deployments say of it changes when it comes or goes.
            if (before is null || after is null) Hint(new AccountId((after ?? before)!.Metadata.Name));
        };
        cluster.PriceBooks.Changed += (before, after) =>
        {
            if (before?.Metadata.Generation == after?.Metadata.Generation && before?.Metadata.DeletionTimestamp == after?.Metadata.DeletionTimestamp) return;
            // The others too: a conflict ends when either book changes or goes.
            foreach (var book in cluster.PriceBooks.All) priceQueue.Add(ObjectKey.Of(book));
            priceQueue.Add(ObjectKey.Of((after ?? before)!));
        };
        cluster.Namespaces.Changed += (before, after) =>
        {
            var name = (after ?? before)!.Metadata.Name;
            var ends = after?.Metadata.DeletionTimestamp is not null && before?.Metadata.DeletionTimestamp is null;
            if (ends && name == options.Namespace) goodbye.TrySetResult();
            if (Label(before) == Label(after) && !ends) return;
            foreach (var deployment in cluster.GpuDeployments.All.Where(deployment => deployment.Metadata.NamespaceProperty == name)) gpuQueue.Add(ObjectKey.Of(deployment));
        };
        cluster.OfferChanged += node =>
        {
            offersChanged = true;
            gpuNodeQueue.Add(node);
        };
        cluster.GpuNodes.Changed += (before, after) =>
        {
            gpuNodeQueue.Add((after ?? before)!.Metadata.Name);
            foreach (var pod in HeldDevices.Changed(before?.Status, after?.Status)) EnqueueOwner(cluster.Pods.Find(pod));
        };
        cluster.Nodes.Changed += (before, after) =>
        {
            if (before?.GetLabelOrNull(WellKnown.GpuUnhealthyLabel) != after?.GetLabelOrNull(WellKnown.GpuUnhealthyLabel)) gpuNodeQueue.Add((after ?? before)!.Metadata.Name);
            if (ClusterView.SilentSince(before) == ClusterView.SilentSince(after)) return;
            var name = (after ?? before)!.Metadata.Name;
            foreach (var pod in cluster.Pods.All.Where(pod => pod.Spec?.NodeName == name)) EnqueueOwner(pod);
        };
    }

    private static string? Label(V1Namespace? value)
        => value?.Metadata.Labels is { } labels && labels.TryGetValue(WellKnown.AccountLabel, out var account) ? account : null;

    private void EnqueueOwner(IMetadata<V1ObjectMeta>? value)
    {
        if (ClusterView.OwnerKey(value) is { } key) Enqueue(key);
    }

    /// <summary>What comes before work begins is its backlog: all of it is there already, and none is news.</summary>
    private void Enqueue(string key)
    {
        if (begun) gpuQueue.Add(key);
        else gpuQueue.AddLater(key);
    }

    private void EnqueueUnless(string key, Func<bool> nothingNew)
    {
        if (begun) gpuQueue.AddUnless(key, nothingNew);
        else gpuQueue.AddLater(key);
    }

    private void EnqueueAll()
    {
        foreach (var deployment in cluster.GpuDeployments.All) gpuQueue.AddLater(ObjectKey.Of(deployment));
    }

    private void Hint(AccountId account) => hints.TryAdd(account, 0);

    /// <summary>Turns hints into work, at most once a window for each account.</summary>
    private async Task FollowHintsAsync(CancellationToken cancellation)
    {
        using var timer = new PeriodicTimer(HintWindow, time);
        var shown = time.GetTimestamp();
        while (await timer.WaitForNextTickAsync(cancellation).ConfigureAwait(false))
        {
            if (time.GetElapsedTime(shown) >= ShowWindow)
            {
                shown = time.GetTimestamp();
                foreach (var (account, _) in held)
                {
                    if (held.TryRemove(account, out _)) accountQueue.Add(account.Value);
                }
            }

            if (offersChanged)
            {
                // A thousand agents that report at once change what there is once.
                offersChanged = false;
                EnqueueAll();
            }

            if (everythingChanged)
            {
                everythingChanged = false;
                EnqueueAll();
                foreach (var account in cluster.BillingAccounts.All) accountQueue.Add(ObjectKey.Of(account));
            }

            if (hints.IsEmpty) continue;
            var changed = hints.Keys.ToHashSet();
            foreach (var account in changed)
            {
                hints.TryRemove(account, out _);
                accountQueue.Add(account.Value);
            }

            foreach (var deployment in cluster.GpuDeployments.All)
            {
                if (cluster.AccountOf(deployment.Metadata.NamespaceProperty) is { } account && changed.Contains(account)) gpuQueue.Add(ObjectKey.Of(deployment));
            }
        }
    }

    /// <summary>Completes once the backlog that was there at the start has been worked off, and keeps the gauges.</summary>
    private async Task WatchBacklogAsync(ConcurrentDictionary<string, byte> backlog, TaskCompletionSource caughtUp, CancellationToken cancellation)
    {
        using var timer = new PeriodicTimer(GaugeInterval, time);
        while (await timer.WaitForNextTickAsync(cancellation).ConfigureAwait(false))
        {
            Gauge("GpuDeployment", gpuQueue);
            Gauge("BillingAccount", accountQueue);
            Gauge("PriceBook", priceQueue);
            Gauge("GpuNode", gpuNodeQueue);
            foreach (var informer in cluster.Informers) metrics.InformerStaleness.WithLabels(informer.Kind).Set(informer.Staleness.TotalSeconds);
            metrics.InformerObjects.WithLabels("GpuDeployment").Set(cluster.GpuDeployments.Count);
            metrics.InformerObjects.WithLabels("V1Pod").Set(cluster.Pods.Count);
            metrics.InformerObjects.WithLabels("GpuNode").Set(cluster.GpuNodes.Count);
            foreach (var (product, gpus) in cluster.HeldGpus()) metrics.RunningGpus.WithLabels(product).Set(gpus);
            metrics.SettlementLag.Set(metering.Lag.TotalSeconds);
            if (backlog.IsEmpty && orphans.Swept.IsCompleted) caughtUp.TrySetResult();
        }
    }

    /// <summary>At each scrape, since it looks at every pod; by the one that leads, since a standby sees the same.</summary>
    private void ShowHeldGpus()
    {
        if (!begun) return;
        var held = cluster.HeldGpusByDeployment();
        foreach (var (holder, gpus) in held) metrics.DeploymentGpus.WithLabels(holder.Namespace, holder.Deployment, holder.Product).Set(gpus);
        foreach (var gone in metrics.DeploymentGpus.GetAllLabelValues().Where(labels => !held.ContainsKey((labels[0], labels[1], labels[2]))).ToList())
        {
            metrics.DeploymentGpus.RemoveLabelled(gone);
        }
    }

    private void Gauge(string kind, WorkQueue queue)
    {
        metrics.QueueDepth.WithLabels(kind).Set(queue.Depth);
        metrics.ActiveWorkers.WithLabels(kind).Set(queue.Working);
    }

    private async Task WaitForSyncAsync(CancellationToken cancellation)
        => await Task.WhenAll(
            cluster.GpuDeployments.Synced, cluster.BillingAccounts.Synced, cluster.PriceBooks.Synced, cluster.Deployments.Synced,
            cluster.Pods.Synced, cluster.Nodes.Synced, cluster.GpuNodes.Synced, cluster.Namespaces.Synced).WaitAsync(cancellation).ConfigureAwait(false);

    private async Task TakeEpochAsync(CancellationToken cancellation)
    {
        var taken = await epoch.TakeAsync(lease.Identity, cancellation).ConfigureAwait(false);
        LogEpoch(logger, taken);
    }

    private async Task Retry(Func<Task> action, CancellationToken cancellation)
    {
        while (true)
        {
            try
            {
                await action().ConfigureAwait(false);
                return;
            }
            catch (Exception fault) when (LedgerAvailability.IsUnavailable(fault))
            {
                LogWaiting(logger, fault.Message);
                await Task.Delay(TimeSpan.FromSeconds(1), time, cancellation).ConfigureAwait(false);
            }
        }
    }

    [LoggerMessage(Level = LogLevel.Information, Message = "Local copies are complete: {Count} GpuDeployments")]
    private static partial void LogReady(ILogger logger, int count);

    [LoggerMessage(Level = LogLevel.Warning, Message = "Waiting for the ledger's database: {Reason}")]
    private static partial void LogWaiting(ILogger logger, string reason);

    [LoggerMessage(Level = LogLevel.Information, Message = "Writing to the ledger in epoch {Epoch}")]
    private static partial void LogEpoch(ILogger logger, long epoch);

    [LoggerMessage(Level = LogLevel.Error, Message = "Another operator has taken over, and the ledger refused a write of this one, which steps down: {Reason}")]
    private static partial void LogFenced(ILogger logger, string reason);

    [LoggerMessage(Level = LogLevel.Critical, Message = "A loop of the operator ended, and with it the process, to be started again")]
    private static partial void LogBroken(ILogger logger, Exception fault);
}
