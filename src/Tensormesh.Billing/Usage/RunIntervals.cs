using Npgsql;

namespace Tensormesh.Billing;

/// <summary>The beginning of one pod's hold on its GPUs, in the times that the kubelet reported.</summary>
public sealed record RunStart
{
    public required PodId Pod { get; init; }
    public required string PodName { get; init; }
    public required DeploymentId Deployment { get; init; }
    public required string DeploymentName { get; init; }
    public required string Namespace { get; init; }
    public required AccountId Account { get; init; }
    public required string Node { get; init; }
    public required GpuProduct Product { get; init; }
    public required int Gpus { get; init; }
    public required DateTimeOffset StartedAt { get; init; }
}

/// <summary>An interval that is not ended, whether or not it still accrues.</summary>
/// <param name="ChargeUntil">Set when charging was stopped before the pod's end (a suspension).</param>
public sealed record OpenRun(PodId Pod, DeploymentId Deployment, AccountId Account, DateTimeOffset StartedAt, DateTimeOffset? ChargeUntil);

/// <summary>Run intervals: one pod's hold on its GPUs, from the container's startedAt to its termination.</summary>
public sealed class RunIntervals(NpgsqlDataSource dataSource)
{
    private readonly NpgsqlDataSource dataSource = dataSource;

    /// <summary>Records the start at the price in force at <see cref="RunStart.StartedAt"/>. Idempotent by pod: the first start recorded stays.</summary>
    /// <returns>False when the interval was already recorded.</returns>
    public Task<bool> OpenAsync(RunStart start, CancellationToken cancellation) => throw new NotImplementedException();

    /// <summary>
    /// Records the end and settles the interval to it, in one SQL transaction; when settlement had run past it, the difference goes back
    /// as a correction. Idempotent: the first end recorded stays. Unknown pods are ignored.
    /// </summary>
    /// <returns>True when this call ended the interval.</returns>
    public Task<bool> CloseAsync(PodId pod, DateTimeOffset endedAt, CancellationToken cancellation) => throw new NotImplementedException();

    public Task<IReadOnlyList<OpenRun>> ListOpenAsync(DeploymentId deployment, CancellationToken cancellation) => throw new NotImplementedException();

    /// <summary>All open runs of all deployments: for the sweep that compares them with the cluster's truth.</summary>
    public Task<IReadOnlyList<OpenRun>> ListOpenAsync(CancellationToken cancellation) => throw new NotImplementedException();
}
