using Tensormesh.Billing;

namespace Tensormesh.Simulation.Tests;

/// <summary>What was just asked of the ledger: it says which changes of its rows are in order.</summary>
internal abstract record Effect
{
    private Effect() { }

    /// <param name="EndedAt">Where the end was known as the start was told.</param>
    public sealed record Start(PodId Pod, DateTimeOffset? EndedAt) : Effect;

    public sealed record End(PodId Pod) : Effect;

    public sealed record SuspendAccount(AccountId Account) : Effect;

    public sealed record SuspendDeployment(DeploymentId Deployment, DateTimeOffset At) : Effect;

    /// <param name="PerGpuHour">Null when it was withdrawn.</param>
    public sealed record Publish(GpuProduct Product, long? PerGpuHour, DateTimeOffset At) : Effect;

    public sealed record Settle(AccountId Account, DateTimeOffset Until) : Effect;

    public sealed record Hold(DeploymentId Deployment, bool Admitted) : Effect;

    public sealed record Release(DeploymentId Deployment) : Effect;

    public sealed record GpuFault(PodId Pod, DateTimeOffset WellUntil) : Effect;

    /// <summary>A grant, a top-up, a card or tokens: no run and no hold changes.</summary>
    public sealed record Customer : Effect;

    /// <summary>Nothing may change at all.</summary>
    public sealed record Nothing(string Because) : Effect;
}
