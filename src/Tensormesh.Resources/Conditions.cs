namespace Tensormesh.Resources;

/// <summary>Condition types. They are API: names never change within a version.</summary>
public static class ConditionTypes
{
    /// <summary>The one summary: True when every replica that was asked for runs and is paid for.</summary>
    public const string Ready = "Ready";
    /// <summary>The billing gate's verdict: True admitted, False refused, Unknown while the ledger cannot be read.</summary>
    public const string BillingAuthorized = "BillingAuthorized";
    /// <summary>True when work that was asked for is stopped: for want of money, of a card, or because it is paused.</summary>
    public const string Suspended = "Suspended";
    /// <summary>True while the drivers of the nodes say that every GPU that is held works; False on evidence that one does not; Unknown without evidence.</summary>
    public const string GpuVerified = "GpuVerified";
    /// <summary>kstatus: the controller is working towards the spec.</summary>
    public const string Reconciling = "Reconciling";
    /// <summary>kstatus: nothing further will happen until someone acts.</summary>
    public const string Stalled = "Stalled";
    /// <summary>Of a GpuNode: the node's driver answered as a whole. False is evidence that no GPU of the node works; Unknown is no evidence.</summary>
    public const string DevicesRead = "DevicesRead";
    /// <summary>Of a GpuNode: the kubelet said which pod holds which GPU. While it is not True the allocations are the last that were known.</summary>
    public const string AllocationsKnown = "AllocationsKnown";
}

/// <summary>Condition reasons beside the refusal reasons of the billing gate (which appear under their own names). They are API.</summary>
public static class ConditionReasons
{
    public const string Running = "Running";
    public const string Starting = "Starting";
    public const string Stopping = "Stopping";
    public const string Admitted = "Admitted";
    public const string Paused = "Paused";
    public const string ScaledToZero = "ScaledToZero";
    public const string InvalidSpec = "InvalidSpec";
    public const string LedgerUnavailable = "LedgerUnavailable";
    public const string NotSuspended = "NotSuspended";
    public const string NotStalled = "NotStalled";
    public const string NameTaken = "NameTaken";
    public const string Idle = "Idle";
    public const string Uninstalled = "Uninstalled";
    public const string Declared = "Declared";
    public const string Published = "Published";
    public const string InvalidPrice = "InvalidPrice";
    public const string PriceConflict = "PriceConflict";
    /// <summary>A GPU that is held failed; also the reason of the Event that says what was credited.</summary>
    public const string GpuUnhealthy = "GpuUnhealthy";
    /// <summary>No agent says how the GPUs are.</summary>
    public const string NotObserved = "NotObserved";
    /// <summary>Every GPU is healthy.</summary>
    public const string AllHealthy = "AllHealthy";
    /// <summary>Of a GpuNode: at least one GPU is not, or is not known to be.</summary>
    public const string SomeNotHealthy = "SomeNotHealthy";
    public const string KubeletAnswered = "KubeletAnswered";
    public const string KubeletSilent = "KubeletSilent";
}
