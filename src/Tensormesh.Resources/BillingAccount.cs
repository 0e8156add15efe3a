using System.Text.Json.Serialization;
using k8s;
using k8s.Models;

namespace Tensormesh.Resources;

/// <summary>An account that pays in advance: its policy, and its standing for people to read. Money itself lives in the ledger only.</summary>
[KubernetesEntity(Group = WellKnown.Group, ApiVersion = WellKnown.Version, Kind = KubeKind, PluralName = PluralName)]
public sealed class BillingAccount : IKubernetesObject<V1ObjectMeta>, ISpec<BillingAccountSpec>, IStatus<BillingAccountStatus?>
{
    public const string KubeKind = "BillingAccount";
    public const string PluralName = "billingaccounts";

    [JsonPropertyName("apiVersion")] public string ApiVersion { get; set; } = WellKnown.ApiVersion;
    [JsonPropertyName("kind")] public string Kind { get; set; } = KubeKind;
    [JsonPropertyName("metadata")] public V1ObjectMeta Metadata { get; set; } = new();
    [JsonPropertyName("spec")] public BillingAccountSpec Spec { get; set; } = new();
    [JsonPropertyName("status")] public BillingAccountStatus? Status { get; set; }
}

public sealed class BillingAccountSpec
{
    [JsonPropertyName("displayName")] public string? DisplayName { get; set; }
    /// <summary>Dollars, a decimal string: an Event and a metric tell when the balance falls below.</summary>
    [JsonPropertyName("lowBalanceAlert")] public string? LowBalanceAlert { get; set; }
    /// <summary>How long running work goes on after the last valid card is gone: a Go duration such as 24h or 90m.</summary>
    [JsonPropertyName("cardGracePeriod")] public string? CardGracePeriod { get; set; }
    /// <summary>IANA time zone of its calendar days and months.</summary>
    [JsonPropertyName("timeZone")] public string? TimeZone { get; set; }
}

public sealed class BillingAccountStatus
{
    [JsonPropertyName("observedGeneration")] public long? ObservedGeneration { get; set; }
    /// <summary>Dollars left after everything accrued.</summary>
    [JsonPropertyName("balance")] public string? Balance { get; set; }
    /// <summary>Dollars set aside for admitted deployments.</summary>
    [JsonPropertyName("held")] public string? Held { get; set; }
    [JsonPropertyName("burnPerHour")] public string? BurnPerHour { get; set; }
    /// <summary>Time until the balance is used up at the present burn, such as 3d4h.</summary>
    [JsonPropertyName("runway")] public string? Runway { get; set; }
    /// <summary>Valid, Expired or Missing.</summary>
    [JsonPropertyName("card")] public string? Card { get; set; }
    [JsonPropertyName("conditions")] public IList<V1Condition>? Conditions { get; set; }
}
