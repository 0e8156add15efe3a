using k8s.Models;
using Tensormesh.Billing;
using Tensormesh.Operator.Watching;
using Tensormesh.Resources;

namespace Tensormesh.Operator.Reconciling;

/// <summary>All reads of the loop: the local copies of the cluster, and the ledger.</summary>
internal sealed class Observer(ClusterView cluster, Payers payers, Accounts accounts, PriceList prices, PodDrift drift, TimeProvider time)
{
    /// <summary>Null when there is no such GpuDeployment any more.</summary>
    public async Task<Observation?> ObserveAsync(string key, CancellationToken cancellation)
        => cluster.GpuDeployments.Find(key) is { } deployment ? await ObserveAsync(deployment, cancellation).ConfigureAwait(false) : null;

    /// <param name="withRuns">False leaves the open runs unread, which only stopping and charging look at: one round trip less.</param>
    /// <param name="remembered">Its account's standing, in which a deployment that is being created has no part yet: then nothing is read.</param>
    public async Task<Observation> ObserveAsync(GpuDeployment deployment, CancellationToken cancellation, bool withRuns = true, Standing? remembered = null)
    {
        // A copy with its defaults: an object stored before a default existed is decided on like any other.
        var whole = new GpuDeployment { Metadata = deployment.Metadata, Spec = Copy(deployment.Spec), Status = deployment.Status };
        Defaulting.Apply(whole);

        var ns = deployment.Metadata.NamespaceProperty;
        var ending = cluster.IsEnding(ns);
        // What is going away is charged to the account that holds money for it: who would pay for more of it does not matter.
        var account = ending || deployment.Metadata.DeletionTimestamp is not null ? cluster.AccountOf(ns) : await payers.OfAsync(ns, cancellation).ConfigureAwait(false);
        var id = new DeploymentId(Guid.TryParse(deployment.Metadata.Uid, out var uid) ? uid : Guid.Empty);
        var ledger = remembered is null
            ? await ReadLedgerAsync(account, id, withRuns, cancellation).ConfigureAwait(false)
            : new LedgerView.Known(
                new DeploymentStanding(remembered, id, null, Money.Zero), [], await prices.CurrentAsync(cancellation).ConfigureAwait(false));

        // The clock is read after the ledger: an instant before the reading would price what the reading does not hold.
        var now = Micros(time.GetUtcNow());
        var child = cluster.Deployments.Find(ObjectKey.Of(deployment));
        var ours = child?.Metadata.OwnerReferences?.Any(owner => owner.Uid == deployment.Metadata.Uid) == true;
        var pods = cluster.PodsOf(deployment.Metadata.Uid).OrderBy(pod => pod.Metadata.Name, StringComparer.Ordinal).ToList();
        return new Observation
        {
            Deployment = whole,
            Account = account,
            AccountIsShown = account is { } payer && cluster.BillingAccounts.Find(payer.Value) is not null,
            NamespaceIsEnding = ending,
            Child = child,
            Applied = drift.Find(child),
            Refused = drift.FindRefusal(deployment.Metadata.Uid),
            NameTaken = child is not null && !ours,
            Pods = [.. pods.Select(pod => PodRun.From(pod, cluster.HasNode(pod.Spec?.NodeName), now, cluster.SilentSince(pod.Spec?.NodeName)))],
            Devices = pods.Select(pod => (pod.Metadata.Uid, Held: cluster.DevicesOf(pod))).Where(pod => pod.Held is not null)
                .ToDictionary(pod => new PodId(Guid.Parse(pod.Uid)), pod => pod.Held!),
            MostFree = deployment.Status?.GpuProduct is { Length: > 0 } product && pods.Exists(pod => string.IsNullOrEmpty(pod.Spec?.NodeName)) ? cluster.MostFree(new GpuProduct(product)) : null,
            HasAgents = cluster.GpuNodes.Count > 0,
            Gpus = cluster.Inventory,
            Ledger = ledger,
            Now = now,
        };
    }

    private async Task<LedgerView> ReadLedgerAsync(AccountId? account, DeploymentId id, bool withRuns, CancellationToken cancellation)
    {
        try
        {
            var (read, open) = withRuns && id.Value != Guid.Empty
                ? await accounts.ReadWithRunsAsync(account, id, cancellation).ConfigureAwait(false)
                : (account is { } known ? await accounts.ReadStandingAsync(known, id, cancellation).ConfigureAwait(false) : null, []);
            var standing = read ?? (account is { } payer && await payers.IsToBeOpenedAsync(payer, cancellation).ConfigureAwait(false)
                ? DeploymentStanding.Unopened(payer, id)
                : null);
            return new LedgerView.Known(standing, open, await prices.CurrentAsync(cancellation).ConfigureAwait(false));
        }
        catch (Exception fault) when (LedgerAvailability.IsUnavailable(fault))
        {
            return new LedgerView.Unavailable("The ledger cannot be read right now.");
        }
    }

    private static GpuDeploymentSpec Copy(GpuDeploymentSpec spec) => new()
    {
        Replicas = spec.Replicas,
        Gpu = new GpuRequirement
        {
            Count = spec.Gpu.Count,
            Product = spec.Gpu.Product,
            MinMemory = spec.Gpu.MinMemory,
            MinComputeCapability = spec.Gpu.MinComputeCapability,
            Container = spec.Gpu.Container,
        },
        Template = PackedPodTemplate.Unpack(spec.Template),
        Budget = spec.Budget,
        Paused = spec.Paused,
    };

    /// <summary>Whole microseconds: what the ledger keeps.</summary>
    private static DateTimeOffset Micros(DateTimeOffset instant) => new(instant.UtcTicks / TimeSpan.TicksPerMicrosecond * TimeSpan.TicksPerMicrosecond, TimeSpan.Zero);
}
