using k8s.Models;

namespace Tensormesh.Operator.Reconciling;

/// <summary>Conditions as the API conventions want them: keyed by type, with the time of the last change of status.</summary>
internal static class ConditionList
{
    public static V1Condition? Find(IEnumerable<V1Condition>? conditions, string type) => conditions?.FirstOrDefault(condition => condition.Type == type);

    /// <summary>The reported conditions, and those reported before that this report does not mention. Ordered by type, so that equal lists are equal text.</summary>
    public static IList<V1Condition> Merge(IEnumerable<V1Condition>? before, IReadOnlyList<ConditionReport> reports, long? generation, DateTimeOffset now)
    {
        // Whole seconds: what other writers of conditions store.
        var at = new DateTime(now.UtcTicks / TimeSpan.TicksPerSecond * TimeSpan.TicksPerSecond, DateTimeKind.Utc);
        var merged = reports.Select(report =>
        {
            var status = report.Status switch { true => "True", false => "False", null => "Unknown" };
            var was = Find(before, report.Type);
            return new V1Condition
            {
                Type = report.Type,
                Status = status,
                Reason = report.Reason,
                Message = report.Message,
                ObservedGeneration = generation,
                LastTransitionTime = was?.Status == status ? was.LastTransitionTime : at,
            };
        });
        var kept = (before ?? []).Where(condition => reports.All(report => report.Type != condition.Type));
        return [.. merged.Concat(kept).OrderBy(condition => condition.Type, StringComparer.Ordinal)];
    }
}
