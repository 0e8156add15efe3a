using Tensormesh.Billing;

namespace Tensormesh.Operator.Reconciling;

/// <summary>What to do, what to tell, and when to look again.</summary>
/// <param name="Verdict">Null when the gate was not asked: an invalid spec, or a deployment that is going away.</param>
internal sealed record Decision(Verdict? Verdict, IReadOnlyList<ClusterChange> Changes, StatusReport? Report, DateTimeOffset? LookAgainAt);

/// <summary>One condition to report; the reporter adds times and the generation.</summary>
internal sealed record ConditionReport(string Type, bool? Status, string Reason, string Message);

/// <summary>The status to report.</summary>
/// <param name="CostToDate">Null leaves what was reported before: the ledger could not be read.</param>
internal sealed record StatusReport(
    int Replicas, int ReadyReplicas, int Gpus, GpuProduct? Product, Money? HourlyRate, Money? CostToDate, IReadOnlyList<ConditionReport> Conditions);
