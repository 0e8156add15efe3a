namespace Tensormesh.TestKit;

/// <summary>What a hollow node says of itself, and how fast its imaginary kubelet is.</summary>
public sealed record HollowNodeOptions
{
    public required string Name { get; init; }

    /// <summary>As GPU Feature Discovery writes it, such as <c>NVIDIA-L40S</c>.</summary>
    public required string GpuProduct { get; init; }

    /// <summary>As GPU Feature Discovery writes it, such as <c>hopper</c>.</summary>
    public required string GpuFamily { get; init; }

    public required int GpuCount { get; init; }

    public required int GpuMemoryMiB { get; init; }

    public required int ComputeMajor { get; init; }

    public required int ComputeMinor { get; init; }

    /// <summary>How many pods fit.</summary>
    public int Pods { get; init; } = 500;

    public int CpuCores { get; init; } = 128;

    public int MemoryGiB { get; init; } = 1024;

    /// <summary>From bound to Running: image pull and start together.</summary>
    public TimeSpan StartLatency { get; init; } = TimeSpan.FromMilliseconds(300);

    /// <summary>From SIGTERM to the end of a container that heeds it.</summary>
    public TimeSpan StopLatency { get; init; } = TimeSpan.FromMilliseconds(100);

    /// <summary>Of a container that heeds SIGTERM.</summary>
    public int StopExitCode { get; init; }

    /// <summary>
    /// Wait before the second restart of a container; doubles up to <see cref="CrashBackOffMax"/>. The first is at once, as a
    /// kubelet's. Shorter than a kubelet's 10 s, because tests wait for it.
    /// </summary>
    public TimeSpan CrashBackOff { get; init; } = TimeSpan.FromSeconds(1);

    public TimeSpan CrashBackOffMax { get; init; } = TimeSpan.FromSeconds(30);

    /// <summary>
    /// Whether a deleted pod ends in phase Succeeded or Failed, as kubelets write since 1.27, before it goes. Older kubelets
    /// leave the phase as it was, so that a pod kept by a finalizer still holds its GPUs in the scheduler's books.
    /// </summary>
    public bool TerminalPhaseOnDeletion { get; init; } = true;

    public TimeSpan LeaseRenewEvery { get; init; } = TimeSpan.FromSeconds(4);

    /// <summary>The Ready condition's heartbeat.</summary>
    public TimeSpan StatusEvery { get; init; } = TimeSpan.FromSeconds(20);

    /// <summary>More labels, or other values for those that the node would write.</summary>
    public IReadOnlyDictionary<string, string> Labels { get; init; } = new Dictionary<string, string>();

    /// <summary>4 x NVIDIA-L40S.</summary>
    public static HollowNodeOptions L40S(string name) => new()
    {
        Name = name,
        GpuProduct = "NVIDIA-L40S",
        GpuFamily = "ada-lovelace",
        GpuCount = 4,
        GpuMemoryMiB = 46068,
        ComputeMajor = 8,
        ComputeMinor = 9,
    };

    /// <summary>8 x NVIDIA-H100-80GB-HBM3.</summary>
    public static HollowNodeOptions H100(string name) => new()
    {
        Name = name,
        GpuProduct = "NVIDIA-H100-80GB-HBM3",
        GpuFamily = "hopper",
        GpuCount = 8,
        GpuMemoryMiB = 81559,
        ComputeMajor = 9,
        ComputeMinor = 0,
    };
}
