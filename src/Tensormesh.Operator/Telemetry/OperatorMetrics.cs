using Prometheus;

namespace Tensormesh.Operator.Telemetry;

/// <summary>Every instrument of the operator in one place. Never the source of billing.</summary>
internal sealed class OperatorMetrics
{
    // Labels of WebhookReviews.
    public const string GateWebhook = "gate", OwnNodeWebhook = "own-node", ReviewAllowed = "allowed", ReviewDenied = "denied", ReviewFault = "fault";

    private readonly MetricFactory factory;

    public OperatorMetrics(CollectorRegistry registry)
    {
        Registry = registry;
        factory = Metrics.WithCustomRegistry(registry);

        ReconcileTotal = Counter("tensormesh_reconcile_total", "Reconciles, by kind and outcome (done, fault).", "kind", "outcome");
        ReconcileSeconds = Histogram("tensormesh_reconcile_seconds", "Time that one reconcile takes, by kind.", "kind");
        QueueDepth = Gauge("tensormesh_queue_depth", "Keys that wait for a worker, by kind.", "kind");
        ActiveWorkers = Gauge("tensormesh_active_workers", "Workers that reconcile now, by kind.", "kind");
        InformerStaleness = Gauge("tensormesh_informer_staleness_seconds", "Time since the API server last told anything, by kind.", "kind");
        InformerRelists = Counter("tensormesh_informer_relists_total", "Lists made again, by kind and cause (expired, silent, fault, periodic).", "kind", "cause");
        InformerUnreadable = Counter("tensormesh_informer_unreadable_total", "Objects that were listed or watched and could not be read, by kind.", "kind");
        InformerObjects = Gauge("tensormesh_informer_objects", "Objects in the local copy, by kind.", "kind");
        Leader = Gauge("tensormesh_leader", "1 while this process holds the lease.");
        Verdicts = Counter("tensormesh_gate_verdicts_total", "Answers of the billing gate, by where it was asked (webhook, reconciler) and answer.", "asked_by", "verdict");
        WebhookSeconds = Histogram("tensormesh_webhook_seconds", "Time that one admission review takes.");
        WebhookReviews = Counter("tensormesh_webhook_reviews_total", "Admission reviews, by webhook (gate, own-node) and outcome (allowed, denied, fault: the API server got no answer).", "webhook", "outcome");
        // Shown from zero on, so that the first one counts as a rise.
        foreach (var webhook in (string[])[GateWebhook, OwnNodeWebhook])
        {
            foreach (var outcome in (string[])[ReviewAllowed, ReviewDenied, ReviewFault]) WebhookReviews.WithLabels(webhook, outcome);
        }

        Suspensions = Counter("tensormesh_suspensions_total", "Suspensions of running work, by reason.", "reason");
        SuspendLateness = Histogram("tensormesh_suspend_lateness_seconds", "From the exact instant of exhaustion to the suspension.");
        Charged = Counter("tensormesh_gpu_charged_dollars_total", "Dollars of GPU time settled to the ledger by this process.");
        Windows = Counter("tensormesh_usage_windows_total", "Usage windows settled to the ledger by this process.");
        TokensCharged = Counter("tensormesh_tokens_charged_dollars_total", "Dollars of serverless tokens settled to the ledger by this process.");
        TokenPostingSeconds = factory.CreateHistogram(
            "tensormesh_token_posting_seconds", "From the use of tokens until the ledger has them: of the oldest of each settlement.",
            new HistogramConfiguration { Buckets = Prometheus.Histogram.ExponentialBuckets(1, 2, 16) });
        Uncollected = Counter("tensormesh_uncollected_dollars_total", "Dollars of GPU time that ran past a balance while no operator watched, and that nobody pays.");
        SettlementLag = Gauge("tensormesh_settlement_lag_seconds", "Time since every running account was last settled.");
        SettlementFaults = Counter("tensormesh_settlement_faults_total", "Settlements of one account that failed, and are tried again at the next.");
        HoldsExpired = Gauge("tensormesh_holds_expired", "Holds that are older than what they were placed for, and of whose deployments nothing runs: money that is set aside for nothing.");
        LedgerUp = Gauge("tensormesh_ledger_up", "1 while the ledger answers.");
        LedgerImbalance = Gauge("tensormesh_ledger_imbalance", "1 while the ledger's proof finds a difference: a balance, a sum or a sealed transaction is not what it must be.");
        LedgerSealedPosition = Gauge("tensormesh_ledger_sealed_position", "Position of the last ledger transaction that is sealed.");
        LedgerConnections = Gauge("tensormesh_ledger_connections", "Connections to the ledger's database, by state (busy, idle).", "state");
        registry.AddBeforeCollectCallback(CountConnections);
        RunningGpus = Gauge("tensormesh_running_gpus", "GPUs held by running pods, by product.", "product");
        DeploymentGpus = Gauge("tensormesh_deployment_gpus", "GPUs held by the running pods of a deployment. Those that hold none are not shown, so there are no more series than GPUs.", "namespace", "deployment", "product");
        GpuPrice = Gauge("tensormesh_gpu_hourly_price_dollars", "Dollars for one GPU for one hour, by product, at the price in force.", "product");
        GpuFaults = Counter("tensormesh_gpu_faults_total", "Pods whose charge ended because a GPU of theirs failed, by reason.", "reason");
        Credited = Counter("tensormesh_gpu_credited_dollars_total", "Dollars given back for GPU time after a GPU was last seen healthy.");
        AgentsSilent = Gauge("tensormesh_gpu_agents_silent", "Nodes whose agent missed three heartbeats: they are taken at its last word.");
        UnmeteredGpus = Gauge("tensormesh_unmetered_gpus", "GPUs that pods hold and nobody is charged for, for longer than Tensormesh:AuditPatience, by the pods' namespace.", "namespace");
        RunsWithoutPod = Gauge("tensormesh_runs_without_pod", "Run intervals that are open, and whose pod is not in the cluster, for longer than Tensormesh:AuditPatience.");
        AccountsLow = Gauge("tensormesh_accounts_below_alert", "Accounts whose balance is below their own alert.");
        AccountsByRunway = Gauge("tensormesh_accounts_by_runway", "Accounts by when their money ends at what runs now: UnderAnHour, UnderADay, UnderAWeek, Longer, or Idle where nothing runs.", "runway");
        AccountsByCard = Gauge("tensormesh_accounts_by_card", "Accounts by the state of their cards: Valid, the last valid one ExpiresInAMonth, ExpiresInAWeek or ExpiresInADay, Declined, Expired, Missing.", "state");
        EventsDropped = Counter("tensormesh_events_dropped_total", "Kubernetes Events that could not be written.");
    }

    public CollectorRegistry Registry { get; }
    public Counter ReconcileTotal { get; }
    public Histogram ReconcileSeconds { get; }
    public Gauge QueueDepth { get; }
    public Gauge ActiveWorkers { get; }
    public Gauge InformerStaleness { get; }
    public Counter InformerRelists { get; }
    public Counter InformerUnreadable { get; }
    public Gauge InformerObjects { get; }
    public Gauge Leader { get; }
    public Counter Verdicts { get; }
    public Histogram WebhookSeconds { get; }
    public Counter WebhookReviews { get; }
    public Counter Suspensions { get; }
    public Histogram SuspendLateness { get; }
    public Counter Charged { get; }
    public Counter Windows { get; }
    public Counter TokensCharged { get; }
    public Histogram TokenPostingSeconds { get; }
    public Counter Uncollected { get; }
    public Gauge SettlementLag { get; }
    public Counter SettlementFaults { get; }
    public Gauge HoldsExpired { get; }
    public Gauge LedgerUp { get; }
    public Gauge LedgerImbalance { get; }
    public Gauge LedgerSealedPosition { get; }
    public Gauge LedgerConnections { get; }
    public Gauge RunningGpus { get; }
    public Gauge DeploymentGpus { get; }
    public Gauge GpuPrice { get; }
    public Counter GpuFaults { get; }
    public Counter Credited { get; }
    public Gauge AgentsSilent { get; }
    public Gauge UnmeteredGpus { get; }
    public Gauge RunsWithoutPod { get; }
    public Gauge AccountsLow { get; }
    public Gauge AccountsByRunway { get; }
    public Gauge AccountsByCard { get; }
    public Counter EventsDropped { get; }

    /// <summary>What an informer counts, from zero on, so that the first one counts as a rise.</summary>
    public void ShowInformer(string kind)
    {
        InformerUnreadable.WithLabels(kind);
        foreach (var cause in (string[])["expired", "silent", "fault", "periodic"]) InformerRelists.WithLabels(kind, cause);
    }

    private void CountConnections()
    {
        var (busy, idle) = Tensormesh.Billing.LedgerConnections.Read();
        LedgerConnections.WithLabels("busy").Set(busy);
        LedgerConnections.WithLabels("idle").Set(idle);
    }

    private Counter Counter(string name, string help, params string[] labels) => factory.CreateCounter(name, help, labels);
    private Gauge Gauge(string name, string help, params string[] labels) => factory.CreateGauge(name, help, labels);

    // 1 ms to about 16 s.
    private Histogram Histogram(string name, string help, params string[] labels)
        => factory.CreateHistogram(name, help, labels, new HistogramConfiguration { Buckets = Prometheus.Histogram.ExponentialBuckets(0.001, 2, 15) });
}
