namespace Tensormesh.Resources;

/// <summary>The defaults of each kind, pure; the CRDs' schemas state the same.</summary>
public static class Defaulting
{
    /// <summary>Fills what is absent, in place: replicas 1, gpu.count 1, paused false.</summary>
    public static void Apply(GpuDeployment deployment) => throw new NotImplementedException();

    /// <summary>Fills what is absent, in place: cardGracePeriod 24h, timeZone UTC, displayName the object's name.</summary>
    public static void Apply(BillingAccount account) => throw new NotImplementedException();
}
