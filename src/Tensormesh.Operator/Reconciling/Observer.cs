using k8s.Models;
using Tensormesh.Billing;
using Tensormesh.Operator.Watching;
using Tensormesh.Resources;

namespace Tensormesh.Operator.Reconciling;

/// <summary>All reads of the loop: the local copies of the cluster, and the ledger.</summary>
internal sealed class Observer(ClusterView cluster, Accounts accounts, PriceList prices, PodDrift drift, TimeProvider time)
{
    /// <summary>Null when there is no such GpuDeployment any more.</summary>
    public async Task<Observation?> ObserveAsync(string key, CancellationToken cancellation)
        => cluster.GpuDeployments.Find(key) is { } deployment ? await ObserveAsync(deployment, cancellation).ConfigureAwait(false) : null;

    /// <param name="withRuns">False leaves the open runs unread, which only stopping and charging look at.</param>
    public async Task<Observation> ObserveAsync(GpuDeployment deployment, CancellationToken cancellation, bool withRuns = true)
    {
        // A copy with its defaults: an object stored before a default existed is decided on like any other.
        var whole = new GpuDeployment { Metadata = deployment.Metadata, Spec = Copy(deployment.Spec), Status = deployment.Status };
        Defaulting.Apply(whole);

        var account = cluster.AccountOf(deployment.Metadata.NamespaceProperty);
        var id = new DeploymentId(Guid.TryParse(deployment.Metadata.Uid, out var uid) ? uid : Guid.Empty);
        var ledger = await ReadLedgerAsync(account, id, withRuns, cancellation).ConfigureAwait(false);

        // The clock is read after the ledger: an instant before the reading would price what the reading does not hold.
        var now = Micros(time.GetUtcNow());
        var child = cluster.Deployments.Find(ObjectKey.Of(deployment));
        var ours = child?.Metadata.OwnerReferences?.Any(owner => owner.Uid == deployment.Metadata.Uid) == true;
        return new Observation
        {
            Deployment = whole,
            Account = account,
            Child = child,
            Applied = drift.Find(child),
            Refused = drift.FindRefusal(deployment.Metadata.Uid),
            NameTaken = child is not null && !ours,
            Pods = [.. cluster.PodsOf(deployment.Metadata.Uid).Select(pod => PodRun.From(pod, cluster.HasNode(pod.Spec?.NodeName), now)).OrderBy(pod => pod.Pod.Metadata.Name, StringComparer.Ordinal)],
            Gpus = cluster.Inventory,
            Ledger = ledger,
            Now = now,
        };
    }

    private async Task<LedgerView> ReadLedgerAsync(AccountId? account, DeploymentId id, bool withRuns, CancellationToken cancellation)
    {
        try
        {
            if (withRuns && id.Value != Guid.Empty)
            {
                var (read, open) = await accounts.ReadWithRunsAsync(account, id, cancellation).ConfigureAwait(false);
                return new LedgerView.Known(read, open, await prices.CurrentAsync(cancellation).ConfigureAwait(false));
            }

            var standing = account is { } payer ? await accounts.ReadStandingAsync(payer, id, cancellation).ConfigureAwait(false) : null;
            return new LedgerView.Known(standing, [], await prices.CurrentAsync(cancellation).ConfigureAwait(false));
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
        Template = spec.Template,
        Budget = spec.Budget,
        Paused = spec.Paused,
    };

    /// <summary>Whole microseconds: what the ledger keeps.</summary>
    private static DateTimeOffset Micros(DateTimeOffset instant) => new(instant.UtcTicks / TimeSpan.TicksPerMicrosecond * TimeSpan.TicksPerMicrosecond, TimeSpan.Zero);
}
