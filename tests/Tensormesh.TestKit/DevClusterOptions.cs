namespace Tensormesh.TestKit;

/// <summary>What a dev cluster should be made of.</summary>
public sealed record DevClusterOptions
{
    /// <summary>Node gpu-a with a real kubelet and containers. Where that cannot be had, gpu-a is hollow and the output says so.</summary>
    public bool RealNode { get; init; } = true;

    /// <summary>A hollow node gpu-b with 4 x NVIDIA-L40S.</summary>
    public bool HollowGpuB { get; init; }

    /// <summary>
    /// Null: no controller manager until <see cref="DevCluster.StartControllerManagerAsync"/>. Until then Deployments stay without ReplicaSets, and
    /// namespaces without the service account that pods need.
    /// </summary>
    public ControllerManagerOptions? ControllerManager { get; init; } = new();

    /// <summary>
    /// Where logs, keys and data go, deleted at the end; a short path that is empty or does not exist. Null: one is
    /// chosen.
    /// </summary>
    public string? StateDirectory { get; init; }
}
