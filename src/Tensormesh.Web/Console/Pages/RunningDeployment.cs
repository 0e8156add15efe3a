using Tensormesh.Billing;

namespace Tensormesh.Web;

/// <summary>The pods of one deployment that run now, as one.</summary>
internal sealed record RunningDeployment(DeploymentId Deployment, string Name, string Namespace, string Product, int Gpus, DateTimeOffset Since, IReadOnlyList<RunRecord> Runs)
{
    public Money Burn => Runs.Aggregate(Money.Zero, (sum, run) => sum + run.BurnPerHour);

    /// <summary>Of the pods that run now.</summary>
    public Money Cost(DateTimeOffset t) => Runs.Aggregate(Money.Zero, (sum, run) => sum + run.Cost(t));

    public static IReadOnlyList<RunningDeployment> From(IReadOnlyList<RunRecord> runs) =>
    [
        .. runs.GroupBy(run => run.Deployment).Select(pods => new RunningDeployment(
            pods.Key, pods.First().DeploymentName, pods.First().Namespace, pods.First().Product.Name, pods.Sum(run => run.Gpus), pods.Min(run => run.StartedAt),
            [.. pods])),
    ];
}
