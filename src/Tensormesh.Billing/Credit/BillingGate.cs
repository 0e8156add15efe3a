namespace Tensormesh.Billing;

/// <summary>What a deployment asks to run.</summary>
public sealed record LaunchRequest
{
    public required DeploymentId Deployment { get; init; }
    /// <summary>Null when the namespace carries no account label.</summary>
    public required AccountId? Account { get; init; }
    /// <summary>For messages: the namespace whose label names the account.</summary>
    public required string Namespace { get; init; }
    /// <summary>GPUs over all replicas.</summary>
    public required int Gpus { get; init; }
    /// <summary>The product chosen for it; null when no node of the cluster satisfies the constraints.</summary>
    public required GpuProduct? Product { get; init; }
    /// <summary>For the message of NoMatchingGpu: what was asked ("2 GPUs of product X on one node") and what there is.</summary>
    public required string GpuConstraint { get; init; }
    public required string GpusInCluster { get; init; }
    /// <summary>Price in force for the product; null when the PriceBooks name none.</summary>
    public required Money? PerGpuHour { get; init; }
    public Money? MaxHourlyRate { get; init; }
    public Money? MaxTotalCost { get; init; }

    public Money? HourlyRate => PerGpuHour * Gpus;
}

/// <summary>
/// The gate: an ordered list of pure rules; the first with an opinion wins. Used by the webhook (advice) and by
/// the reconciler (law), and once more under the account's lock when the hold is placed.
/// </summary>
public static class BillingGate
{
    /// <summary>The start rule: may this deployment start, scale up or resume at <paramref name="now"/>?</summary>
    /// <param name="standing">Null when the ledger knows no such account.</param>
    public static Verdict EvaluateStart(LaunchRequest request, DeploymentStanding? standing, CreditPolicy policy, DateTimeOffset now)
        => throw new NotImplementedException();

    /// <summary>The stop rule, for a deployment that has a hold: may it go on, and until when?</summary>
    public static Verdict EvaluateRunning(LaunchRequest request, DeploymentStanding standing, CreditPolicy policy, DateTimeOffset now)
        => throw new NotImplementedException();
}
