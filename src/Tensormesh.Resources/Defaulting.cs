namespace Tensormesh.Resources;

/// <summary>The defaults of each kind, pure; the CRDs' schemas state the same.</summary>
public static class Defaulting
{
    public const int Replicas = 1;
    public const int GpuCount = 1;
    public const bool Paused = false;
    public const string CardGracePeriod = "24h";
    public const string TimeZone = "UTC";

    /// <summary>Fills what is absent, in place: replicas 1, gpu.count 1, paused false.</summary>
    /// <remarks>
    /// An absent gpu.count is 1 already when it comes out of JSON, because that is what <see cref="GpuRequirement.Count"/> starts as; a 0
    /// that someone wrote stays 0, for <see cref="Validation"/> to refuse.
    /// </remarks>
    public static void Apply(GpuDeployment deployment)
    {
        deployment.Metadata ??= new();
        deployment.Spec ??= new();
        deployment.Spec.Gpu ??= new();
        deployment.Spec.Template ??= new();
        deployment.Spec.Replicas ??= Replicas;
        deployment.Spec.Paused ??= Paused;
    }

    /// <summary>Fills what is absent, in place: cardGracePeriod 24h, timeZone UTC, displayName the object's name.</summary>
    public static void Apply(BillingAccount account)
    {
        account.Metadata ??= new();
        account.Spec ??= new();
        account.Spec.CardGracePeriod ??= CardGracePeriod;
        account.Spec.TimeZone ??= TimeZone;
        account.Spec.DisplayName ??= account.Metadata.Name;
    }
}
