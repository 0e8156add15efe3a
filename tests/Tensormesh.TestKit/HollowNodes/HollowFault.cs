using System.Globalization;
using k8s.Models;

namespace Tensormesh.TestKit;

/// <summary>
/// What goes wrong with a pod on a hollow node. Set by annotations on the pod (or its template), or by
/// <see cref="HollowNodes.Inject"/>; both are read again whenever they change, so a fault can be put on and taken off a pod that lives.
/// All containers of a pod start, crash and stop together.
/// </summary>
public sealed record HollowFault
{
    /// <summary>Comma-separated names of faults, such as <c>slow-start,ignore-sigterm</c>. An unknown name is an error of the test.</summary>
    public const string Annotation = "hollow.tensormesh.ai/fault";

    /// <summary>Milliseconds from the container's start to its end, for <see cref="CrashName"/> and <see cref="ExitZeroName"/>; default 200.</summary>
    public const string AfterAnnotation = "hollow.tensormesh.ai/after-ms";

    /// <summary>Milliseconds from bound to Running, for <see cref="SlowStartName"/>; default 3000.</summary>
    public const string StartAnnotation = "hollow.tensormesh.ai/start-ms";

    /// <summary>The pod stays ContainerCreating until the fault is taken off.</summary>
    public const string HangImagePullName = "hang-image-pull";

    /// <summary>The containers end with exit code 1 some time after each start.</summary>
    public const string CrashName = "crash";

    /// <summary>The containers end with exit code 0 some time after each start.</summary>
    public const string ExitZeroName = "exit-zero";

    /// <summary>The containers run on after SIGTERM, until the grace period ends; then exit code 137.</summary>
    public const string IgnoreSigtermName = "ignore-sigterm";

    public const string SlowStartName = "slow-start";

    private const int DefaultAfterMilliseconds = 200;
    private const int DefaultStartMilliseconds = 3000;

    public static HollowFault None { get; } = new();

    public static HollowFault HangImagePull { get; } = new() { PullHangs = true };

    public static HollowFault IgnoreSigterm { get; } = new() { IgnoresSigterm = true };

    public bool PullHangs { get; init; }

    public bool IgnoresSigterm { get; init; }

    /// <summary>From the container's start to its own end; null means that it runs until it is stopped.</summary>
    public TimeSpan? ExitAfter { get; init; }

    public int ExitCode { get; init; }

    /// <summary>In place of the node's own start latency.</summary>
    public TimeSpan? StartLatency { get; init; }

    public static HollowFault Crash(TimeSpan after) => new() { ExitAfter = after, ExitCode = 1 };

    public static HollowFault ExitZero(TimeSpan after) => new() { ExitAfter = after };

    public static HollowFault SlowStart(TimeSpan latency) => new() { StartLatency = latency };

    /// <summary>The fault that the pod's annotations name. Throws <see cref="FormatException"/> for a name or number that means nothing.</summary>
    public static HollowFault Of(V1Pod pod)
    {
        if (pod.GetAnnotation(Annotation) is not { Length: > 0 } names)
        {
            return None;
        }

        var after = Milliseconds(pod, AfterAnnotation, DefaultAfterMilliseconds);
        var start = Milliseconds(pod, StartAnnotation, DefaultStartMilliseconds);
        return names.Split(',', StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries).Aggregate(None, (fault, name) => fault.And(name switch
        {
            HangImagePullName => HangImagePull,
            CrashName => Crash(after),
            ExitZeroName => ExitZero(after),
            IgnoreSigtermName => IgnoreSigterm,
            SlowStartName => SlowStart(start),
            _ => throw new FormatException($"Pod {pod.Name()} names the hollow fault {name}, which does not exist."),
        }));
    }

    /// <summary>Both faults at once; where both name a time, the other's counts.</summary>
    public HollowFault And(HollowFault other) => new()
    {
        PullHangs = PullHangs || other.PullHangs,
        IgnoresSigterm = IgnoresSigterm || other.IgnoresSigterm,
        ExitAfter = other.ExitAfter ?? ExitAfter,
        ExitCode = other.ExitAfter is null ? ExitCode : other.ExitCode,
        StartLatency = other.StartLatency ?? StartLatency,
    };

    private static TimeSpan Milliseconds(V1Pod pod, string annotation, int fallback) =>
        TimeSpan.FromMilliseconds(pod.GetAnnotation(annotation) is { } value ? int.Parse(value, CultureInfo.InvariantCulture) : fallback);
}
