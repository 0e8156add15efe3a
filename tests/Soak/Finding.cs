namespace Tensormesh.Soak;

internal enum FindingKind
{
    /// <summary>Somebody was told that it is done, or it happened in the world, and the books do not have it.</summary>
    Lost,
    /// <summary>The books have it more often than it happened.</summary>
    Doubled,
    /// <summary>The books contradict themselves or what is known otherwise.</summary>
    Wrong,
    /// <summary>It did not happen within any patience.</summary>
    Stuck,
    /// <summary>More of something is used than was at first, though no more is done.</summary>
    Grown,
}

/// <summary>Something that must not be.</summary>
internal sealed record Finding(FindingKind Kind, string What)
{
    public override string ToString() => $"{Kind}: {What}";
}
