using Tensormesh.Operator.Watching;

namespace Tensormesh.Operator.Telemetry;

/// <summary>Whether this process may be relied on: its local copies are complete and fresh, and it is not in doubt about the lease.</summary>
internal sealed class Readiness(ClusterView cluster, LeaderLease lease, OperatorOptions options)
{
    /// <summary>Null when ready; otherwise what is wrong.</summary>
    public string? Problem()
    {
        foreach (var informer in cluster.Informers)
        {
            if (!informer.HasSynced) return $"the local copy of {informer.Kind} is not complete yet";
            if (informer.Staleness > options.StaleAfter) return $"nothing was heard of {informer.Kind} for {informer.Staleness.TotalSeconds:0} s";
        }

        return lease.InDoubt ? "the leader lease could not be renewed" : null;
    }
}
