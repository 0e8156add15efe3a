using System.ComponentModel;
using System.ComponentModel.DataAnnotations;
using System.Text.Json.Serialization;
using k8s;
using k8s.Models;

namespace Tensormesh.Resources;

[KubernetesEntity(Group = WellKnown.Group, ApiVersion = WellKnown.Version, Kind = KubeKind, PluralName = PluralName)]
[CustomResource("pricebook", "pb")]
[Description("What GPUs and tokens cost. Each change becomes an immutable price version in the ledger: it never changes what was charged.")]
[Column("READY", """.status.conditions[?(@.type=="Ready")].status""")]
[Column("REASON", """.status.conditions[?(@.type=="Ready")].reason""")]
[Column("AGE", ".metadata.creationTimestamp", Type = "date")]
public sealed class PriceBook : IKubernetesObject<V1ObjectMeta>, ISpec<PriceBookSpec>, IStatus<PriceBookStatus?>
{
    public const string KubeKind = "PriceBook";
    public const string PluralName = "pricebooks";

    [JsonPropertyName("apiVersion")] public string ApiVersion { get; set; } = WellKnown.ApiVersion;
    [JsonPropertyName("kind")] public string Kind { get; set; } = KubeKind;
    [JsonPropertyName("metadata")] public V1ObjectMeta Metadata { get; set; } = new();

    [Description("The prices.")]
    [JsonPropertyName("spec")] public PriceBookSpec Spec { get; set; } = new();

    [Description("Whether the prices are in force. Written by the operator.")]
    [JsonPropertyName("status")] public PriceBookStatus? Status { get; set; }
}

public sealed class PriceBookSpec
{
    [Description("Prices of GPUs by product. A GPU whose product has no price is not handed out.")]
    [ListKey("product"), MaxLength(Formats.MaxGpuPrices)]
    [JsonPropertyName("gpus")] public IList<GpuPriceEntry>? Gpus { get; set; }

    [Description("Prices of serverless tokens by model.")]
    [ListKey("model"), MaxLength(Formats.MaxServerlessPrices)]
    [JsonPropertyName("serverless")] public IList<ServerlessPriceEntry>? Serverless { get; set; }
}

[Description("The price of one GPU product.")]
public sealed class GpuPriceEntry
{
    [Description("Product, as the node's label nvidia.com/gpu.product states it, such as NVIDIA-H100-80GB-HBM3.")]
    [Required, MaxLength(Formats.LabelValueMaxLength), RegularExpression(Formats.LabelValue)]
    [JsonPropertyName("product")] public string Product { get; set; } = "";

    [Description("Dollars for one GPU for one hour: a decimal in quotes, such as \"2.50\".")]
    [Required, MaxLength(Formats.DollarsMaxLength), RegularExpression(Formats.Dollars)]
    [JsonPropertyName("perHour")] public string PerHour { get; set; } = "";
}

[Description("The prices of one model's tokens.")]
public sealed class ServerlessPriceEntry
{
    [Description("The model's id, such as openai/gpt-oss-20b.")]
    [Required, MaxLength(Formats.ModelMaxLength), RegularExpression(Formats.Model)]
    [JsonPropertyName("model")] public string Model { get; set; } = "";

    [Description("Dollars for a million input tokens that were not cached: a decimal in quotes, such as \"0.07\".")]
    [Required, MaxLength(Formats.DollarsMaxLength), RegularExpression(Formats.Dollars)]
    [JsonPropertyName("inputPerMillion")] public string InputPerMillion { get; set; } = "";

    [Description("Dollars for a million output tokens: a decimal in quotes.")]
    [Required, MaxLength(Formats.DollarsMaxLength), RegularExpression(Formats.Dollars)]
    [JsonPropertyName("outputPerMillion")] public string OutputPerMillion { get; set; } = "";

    [Description("Dollars for a million input tokens that were cached: a decimal in quotes, often \"0\".")]
    [Required, MaxLength(Formats.DollarsMaxLength), RegularExpression(Formats.Dollars)]
    [JsonPropertyName("cachedPerMillion")] public string CachedPerMillion { get; set; } = "";
}

public sealed class PriceBookStatus
{
    [Description("The metadata.generation that this status is about.")]
    [JsonPropertyName("observedGeneration")] public long? ObservedGeneration { get; set; }

    [Description("Ready is True when the prices are in force.")]
    [ListKey("type")]
    [JsonPropertyName("conditions")] public IList<V1Condition>? Conditions { get; set; }
}
