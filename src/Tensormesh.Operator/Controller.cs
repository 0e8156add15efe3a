using System.Collections.Concurrent;
using k8s;
using k8s.Models;
using Npgsql;
using Tensormesh.Billing;
using Tensormesh.Operator.Metering;
using Tensormesh.Operator.Reconciling;
using Tensormesh.Operator.Telemetry;
using Tensormesh.Operator.Watching;
using Tensormesh.Resources;

namespace Tensormesh.Operator;

/// <summary>What changed, to which key, to which loop: the wiring between watches, the ledger's hints and the three reconcilers.</summary>
internal sealed partial class Controller(
    ClusterView cluster, GpuDeploymentReconciler deployments, BillingAccountReconciler billingAccounts, PriceBookReconciler priceBooks,
    StandingListener listener, MeteringClock metering, LeaderLease lease, PodDrift drift, OwnWrites own, Applier applier, StatusReporter reporter, EventRecorder events, NpgsqlDataSource dataSource, OperatorOptions options, OperatorMetrics metrics,
    TimeProvider time, IHostApplicationLifetime lifetime, ILogger<Controller> logger) : BackgroundService
{
    /// <summary>Hints about one account within this time are one hint: placing fifty holds must not reconcile fifty deployments fifty times.</summary>
    private static readonly TimeSpan HintWindow = TimeSpan.FromMilliseconds(50);

    /// <summary>What is shown of an account follows holds that were placed within this time: nothing but what people read depends on it.</summary>
    private static readonly TimeSpan ShowWindow = TimeSpan.FromSeconds(1);

    /// <summary>How long work waits at the start for the ledger's hints: what is looked at before they come must be looked at again.</summary>
    private static readonly TimeSpan ListenPatience = TimeSpan.FromSeconds(2);

    private static readonly TimeSpan GaugeInterval = TimeSpan.FromMilliseconds(500);

    private readonly WorkQueue gpuQueue = new(time);
    private readonly WorkQueue accountQueue = new(time);
    private readonly WorkQueue priceQueue = new(time);
    private readonly ConcurrentDictionary<AccountId, byte> hints = new();
    private readonly ConcurrentDictionary<AccountId, byte> held = new();
    private volatile bool everythingChanged;
    private volatile bool begun;

    /// <summary>True once every local copy is complete: only then may anything be decided.</summary>
    public bool Synced => cluster.Informers.All(informer => informer.HasSynced);

    protected override async Task ExecuteAsync(CancellationToken stopping)
    {
        Wire();
        if (options.MigrateOnStart) await Retry(() => Migrator.MigrateAsync(dataSource, stopping), stopping).ConfigureAwait(false);

        // The watches run whether or not this process leads: a standby takes over with warm copies.
        var watches = Task.WhenAll(cluster.Informers.Select(informer => informer.RunAsync(stopping)));
        try
        {
            await lease.RunAsync(LeadAsync, stopping).ConfigureAwait(false);
        }
        catch (OperationCanceledException) when (stopping.IsCancellationRequested)
        {
        }

        if (!stopping.IsCancellationRequested)
        {
            // Leadership was lost. A process that goes on with half of its loops stopped is worse than one that starts again.
            Environment.ExitCode = 1;
            lifetime.StopApplication();
        }

        await watches.ConfigureAwait(false);
    }

    private async Task LeadAsync(CancellationToken term)
    {
        await WaitForSyncAsync(term).ConfigureAwait(false);
        var listens = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        var listening = listener.RunAsync(Hint, () =>
        {
            // What was decided before the hints came may have missed one.
            if (begun) everythingChanged = true;
            listens.TrySetResult();
        }, term);
        await Task.WhenAny(listens.Task, Task.Delay(ListenPatience, time, term)).ConfigureAwait(false);
        begun = true;
        var caughtUp = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        foreach (var account in cluster.BillingAccounts.All) accountQueue.Add(ObjectKey.Of(account));
        foreach (var book in cluster.PriceBooks.All) priceQueue.Add(ObjectKey.Of(book));
        EnqueueAll();
        var backlog = new ConcurrentDictionary<string, byte>(cluster.GpuDeployments.All.Select(deployment => KeyValuePair.Create(ObjectKey.Of(deployment), (byte)0)));
        LogReady(logger, cluster.GpuDeployments.Count);

        await Task.WhenAll(
            gpuQueue.RunAsync(options.Workers, Timed("GpuDeployment", CountDownAsync), (key, fault) => OnFault("GpuDeployment", key, fault), term),
            accountQueue.RunAsync(2, Timed("BillingAccount", billingAccounts.ReconcileAsync), (key, fault) => OnFault("BillingAccount", key, fault), term),
            priceQueue.RunAsync(1, Timed("PriceBook", (key, token) => priceBooks.ReconcileAsync(key, EnqueueAll, token)), (key, fault) => OnFault("PriceBook", key, fault), term),
            listening,
            FollowHintsAsync(term),
            events.RunAsync(term),
            WatchBacklogAsync(backlog, caughtUp, term),
            metering.RunAsync(caughtUp.Task, Hint, term)).ConfigureAwait(false);

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
        applier.Held += account => held.TryAdd(account, 0);
        cluster.GpuDeployments.Changed += (before, after) =>
        {
            if (before is not null && after is not null)
            {
                gpuQueue.AddUnless(ObjectKey.Of(after), () => own.IsEcho(before, after));
                return;
            }

            gpuQueue.Add(ObjectKey.Of((after ?? before)!));
            if (after is not null) return;
            cluster.Forget(before!.Metadata.Uid);
            drift.ForgetOwner(before.Metadata.Uid);
            reporter.Forget(before.Metadata.Uid);
        };
        cluster.Deployments.Changed += (before, after) =>
        {
            if (before is not null && after is not null && PodDrift.IsSame(before, after)) return;
            if (after is not null && ClusterView.OwnerKey(after) is { } key) gpuQueue.AddUnless(key, () => drift.IsAsApplied(after));
            if (after is not null) return;
            EnqueueOwner(before);
            drift.Forget(before!);
        };
        cluster.Pods.Changed += (before, after) => EnqueueOwner(after ?? before);
        cluster.BillingAccounts.Changed += (before, after) =>
        {
            // Our own status writes come back as changes; only the spec's generation calls for work.
            if (before?.Metadata.Generation != after?.Metadata.Generation) accountQueue.Add(ObjectKey.Of((after ?? before)!));
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
            if (Label(before) == Label(after)) return;
            foreach (var deployment in cluster.GpuDeployments.All.Where(deployment => deployment.Metadata.NamespaceProperty == name)) gpuQueue.Add(ObjectKey.Of(deployment));
        };
        cluster.Nodes.Changed += (before, after) =>
        {
            // Heartbeats change nothing that a decision looks at; a node that comes, goes or offers other GPUs does.
            if (Offer(before) != Offer(after)) EnqueueAll();
        };
    }

    private static string? Label(V1Namespace? value)
        => value?.Metadata.Labels is { } labels && labels.TryGetValue(WellKnown.AccountLabel, out var account) ? account : null;

    private static string Offer(V1Node? node) => node is null ? "" : GpuInventory.From([node]).Describe();

    private void EnqueueOwner(IMetadata<V1ObjectMeta>? value)
    {
        if (ClusterView.OwnerKey(value) is { } key) gpuQueue.Add(key);
    }

    private void EnqueueAll()
    {
        foreach (var deployment in cluster.GpuDeployments.All) gpuQueue.Add(ObjectKey.Of(deployment));
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
            foreach (var informer in cluster.Informers) metrics.InformerStaleness.WithLabels(informer.Kind).Set(informer.Staleness.TotalSeconds);
            metrics.InformerObjects.WithLabels("GpuDeployment").Set(cluster.GpuDeployments.Count);
            metrics.InformerObjects.WithLabels("V1Pod").Set(cluster.Pods.Count);
            foreach (var (product, gpus) in cluster.HeldGpus()) metrics.RunningGpus.WithLabels(product).Set(gpus);
            if (backlog.IsEmpty) caughtUp.TrySetResult();
        }
    }

    private void Gauge(string kind, WorkQueue queue)
    {
        metrics.QueueDepth.WithLabels(kind).Set(queue.Depth);
        metrics.ActiveWorkers.WithLabels(kind).Set(queue.Working);
    }

    private Func<string, CancellationToken, Task<DateTimeOffset?>> Timed(string kind, Func<string, CancellationToken, Task<DateTimeOffset?>> work) => async (key, cancellation) =>
    {
        var began = time.GetTimestamp();
        try
        {
            var next = await work(key, cancellation).ConfigureAwait(false);
            metrics.ReconcileTotal.WithLabels(kind, "done").Inc();
            return next;
        }
        finally
        {
            metrics.ReconcileSeconds.WithLabels(kind).Observe(time.GetElapsedTime(began).TotalSeconds);
        }
    };

    private void OnFault(string kind, string key, Exception fault)
    {
        metrics.ReconcileTotal.WithLabels(kind, "fault").Inc();
        if (LedgerAvailability.IsUnavailable(fault)) metrics.LedgerUp.Set(0);
        // A conflict is the ordinary answer to a write on an older version: the newer one is on its way here.
        if (fault is k8s.Autorest.HttpOperationException { Response.StatusCode: System.Net.HttpStatusCode.Conflict }) LogConflict(logger, kind, key);
        else if (fault is k8s.Autorest.HttpOperationException refused) LogRefused(logger, kind, key, (int)refused.Response.StatusCode, refused.Response.Content);
        else LogFault(logger, fault, kind, key);
    }

    private async Task WaitForSyncAsync(CancellationToken cancellation)
        => await Task.WhenAll(
            cluster.GpuDeployments.Synced, cluster.BillingAccounts.Synced, cluster.PriceBooks.Synced, cluster.Deployments.Synced,
            cluster.Pods.Synced, cluster.Nodes.Synced, cluster.Namespaces.Synced).WaitAsync(cancellation).ConfigureAwait(false);

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

    [LoggerMessage(Level = LogLevel.Debug, Message = "{Kind} {Key}: written on an older version; looked at again")]
    private static partial void LogConflict(ILogger logger, string kind, string key);

    [LoggerMessage(Level = LogLevel.Warning, Message = "{Kind} {Key}: the API server refused with {Status}: {Reason}")]
    private static partial void LogRefused(ILogger logger, string kind, string key, int status, string reason);

    [LoggerMessage(Level = LogLevel.Error, Message = "{Kind} {Key}: failed, and will be tried again")]
    private static partial void LogFault(ILogger logger, Exception fault, string kind, string key);
}
