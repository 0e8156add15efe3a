namespace Tensormesh.Resources;

/// <summary>One thing wrong with a spec: where, and what to do.</summary>
/// <param name="Field">Path such as <c>spec.gpu.count</c>.</param>
public sealed record FieldError(string Field, string Message)
{
    public override string ToString() => $"{Field}: {Message}";
}

/// <summary>The rules of each kind, pure; used by the webhook and by the reconciler. The CRDs state the same rules as schema and CEL.</summary>
public static class Validation
{
    public static IReadOnlyList<FieldError> Validate(GpuDeployment deployment) => throw new NotImplementedException();

    /// <summary>Rules about a change: what may not change, and all of <see cref="Validate(GpuDeployment)"/>.</summary>
    public static IReadOnlyList<FieldError> ValidateUpdate(GpuDeployment before, GpuDeployment after) => throw new NotImplementedException();

    public static IReadOnlyList<FieldError> Validate(BillingAccount account) => throw new NotImplementedException();

    public static IReadOnlyList<FieldError> Validate(PriceBook book) => throw new NotImplementedException();
}
