namespace Tensormesh.Resources;

/// <summary>What both <see cref="Validation"/> and the CRDs' CEL rules say, in the same words.</summary>
internal static class Messages
{
    public const string ProductIsImmutable =
        "cannot change while it is set: delete this GpuDeployment and apply it again, or create another with the other product";
}
