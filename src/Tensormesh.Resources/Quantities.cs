namespace Tensormesh.Resources;

/// <summary>The small formats in which specs state amounts: memory quantities, compute capabilities, Go durations.</summary>
public static class Quantities
{
    /// <summary>A memory quantity such as 40Gi, in whole MiB rounded up; false when it is not one.</summary>
    public static bool TryMemoryMiB(string? text, out long mebibytes) => throw new NotImplementedException();

    /// <summary>A compute capability such as "8.9" as (8, 9).</summary>
    public static bool TryComputeCapability(string? text, out (int Major, int Minor) capability) => throw new NotImplementedException();

    /// <summary>A Go duration such as 24h, 90m or 1h30m.</summary>
    public static bool TryDuration(string? text, out TimeSpan duration) => throw new NotImplementedException();

    /// <summary>A runway as people read it: 3d4h, 5h12m, 42s; the two largest units.</summary>
    public static string Runway(TimeSpan runway) => throw new NotImplementedException();
}
