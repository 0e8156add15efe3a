namespace Tensormesh.TestKit;

/// <summary>
/// How kube-controller-manager runs. Few workers and a low rate would make it a slow peer to measure against, so a dev cluster's has many and a high
/// one; <see cref="AsShipped"/> has its own defaults.
/// </summary>
public sealed record ControllerManagerOptions
{
    /// <summary>As <c>--controllers</c> takes them: names with commas between, or <c>*</c>.</summary>
    public string Controllers { get; init; } = "*";

    /// <summary>Requests a second that each controller's client lets through, after a burst.</summary>
    public int QueriesPerSecond { get; init; } = 1000;

    public int Burst { get; init; } = 1000;

    /// <summary>Deployments worked on at once.</summary>
    public int DeploymentSyncs { get; init; } = 16;

    /// <summary>The rate and the workers that it has when nobody says otherwise.</summary>
    public static ControllerManagerOptions AsShipped { get; } = new() { QueriesPerSecond = 20, Burst = 30, DeploymentSyncs = 5 };
}
