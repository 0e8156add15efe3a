using System.ComponentModel;
using System.ComponentModel.DataAnnotations;
using System.Text.Json.Serialization;
using k8s;
using k8s.Models;

namespace Tensormesh.Resources;

[KubernetesEntity(Group = WellKnown.Group, ApiVersion = WellKnown.Version, Kind = KubeKind, PluralName = PluralName)]
[CustomResource("billingaccount", "ba")]
[Description("An account that pays in advance: its policy, and its standing for people to read. " +
    "A namespace names the account that pays for it in its label tensormesh.ai/account. Money itself lives in the ledger only.")]
[Column("BALANCE", ".status.balance")]
[Column("HELD", ".status.held")]
[Column("BURN/H", ".status.burnPerHour")]
[Column("RUNWAY", ".status.runway")]
[Column("CARD", ".status.card")]
[Column("AGE", ".metadata.creationTimestamp", Type = "date")]
[Rule("size(self.metadata.name) <= 63", Messages.AccountNameIsLong)]
public sealed class BillingAccount : IKubernetesObject<V1ObjectMeta>, ISpec<BillingAccountSpec>, IStatus<BillingAccountStatus?>
{
    public const string KubeKind = "BillingAccount";
    public const string PluralName = "billingaccounts";

    [JsonPropertyName("apiVersion")] public string ApiVersion { get; set; } = WellKnown.ApiVersion;
    [JsonPropertyName("kind")] public string Kind { get; set; } = KubeKind;
    [JsonPropertyName("metadata")] public V1ObjectMeta Metadata { get; set; } = new();

    [Description("The account's policy.")]
    [JsonPropertyName("spec")] public BillingAccountSpec Spec { get; set; } = new();

    [Description("The account's standing, as of the last settlement or change. Written by the operator.")]
    [JsonPropertyName("status")] public BillingAccountStatus? Status { get; set; }
}

public sealed class BillingAccountSpec
{
    [Description("What people call the account; its name when absent.")]
    [MaxLength(Formats.DisplayNameMaxLength)]
    [JsonPropertyName("displayName")] public string? DisplayName { get; set; }

    [Description("Dollars, a decimal in quotes such as \"50.00\": an Event and a metric tell when the balance falls below.")]
    [MaxLength(Formats.DollarsMaxLength), RegularExpression(Formats.Dollars)]
    [JsonPropertyName("lowBalanceAlert")] public string? LowBalanceAlert { get; set; }

    [Description("How long running work goes on after the last valid card is gone: a duration such as 24h, 90m or 1h30m.")]
    [DefaultValue(Defaulting.CardGracePeriod), MaxLength(Formats.DurationMaxLength), RegularExpression(Formats.Duration)]
    [JsonPropertyName("cardGracePeriod")] public string? CardGracePeriod { get; set; }

    [Description("IANA time zone of the account's calendar days and months, such as Europe/Berlin.")]
    [DefaultValue(Defaulting.TimeZone), MaxLength(Formats.TimeZoneMaxLength), RegularExpression(Formats.TimeZone)]
    [JsonPropertyName("timeZone")] public string? TimeZone { get; set; }
}

public sealed class BillingAccountStatus
{
    [Description("The metadata.generation that this status is about.")]
    [JsonPropertyName("observedGeneration")] public long? ObservedGeneration { get; set; }

    [Description("Dollars left after everything accrued: a decimal.")]
    [JsonPropertyName("balance")] public string? Balance { get; set; }

    [Description("Dollars set aside for admitted deployments: a decimal.")]
    [JsonPropertyName("held")] public string? Held { get; set; }

    [Description("Dollars an hour that everything running costs: a decimal.")]
    [JsonPropertyName("burnPerHour")] public string? BurnPerHour { get; set; }

    [Description("Time until the balance is used up at the present burn, such as 3d4h.")]
    [JsonPropertyName("runway")] public string? Runway { get; set; }

    [Description("Whether a card that can be charged is on file: Valid, Expired, Declined or Missing.")]
    [AllowedValues("Valid", "Expired", "Declined", "Missing")]
    [JsonPropertyName("card")] public string? Card { get; set; }

    [Description("Ready is True when the account is known to the ledger.")]
    [ListKey("type")]
    [JsonPropertyName("conditions")] public IList<V1Condition>? Conditions { get; set; }
}
