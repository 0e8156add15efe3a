using System.Text.Json.Serialization;
using k8s;
using k8s.Models;

namespace Tensormesh.Resources;

/// <summary>What GPUs and tokens cost. Each change becomes an immutable price version in the ledger.</summary>
[KubernetesEntity(Group = WellKnown.Group, ApiVersion = WellKnown.Version, Kind = KubeKind, PluralName = PluralName)]
public sealed class PriceBook : IKubernetesObject<V1ObjectMeta>, ISpec<PriceBookSpec>, IStatus<PriceBookStatus?>
{
    public const string KubeKind = "PriceBook";
    public const string PluralName = "pricebooks";

    [JsonPropertyName("apiVersion")] public string ApiVersion { get; set; } = WellKnown.ApiVersion;
    [JsonPropertyName("kind")] public string Kind { get; set; } = KubeKind;
    [JsonPropertyName("metadata")] public V1ObjectMeta Metadata { get; set; } = new();
    [JsonPropertyName("spec")] public PriceBookSpec Spec { get; set; } = new();
    [JsonPropertyName("status")] public PriceBookStatus? Status { get; set; }
}

public sealed class PriceBookSpec
{
    [JsonPropertyName("gpus")] public IList<GpuPriceEntry>? Gpus { get; set; }
    [JsonPropertyName("serverless")] public IList<ServerlessPriceEntry>? Serverless { get; set; }
}

public sealed class GpuPriceEntry
{
    /// <summary>Product label as GPU Feature Discovery writes it.</summary>
    [JsonPropertyName("product")] public string Product { get; set; } = "";
    /// <summary>Dollars for one GPU for one hour, a decimal string.</summary>
    [JsonPropertyName("perHour")] public string PerHour { get; set; } = "";
}

public sealed class ServerlessPriceEntry
{
    [JsonPropertyName("model")] public string Model { get; set; } = "";
    [JsonPropertyName("inputPerMillion")] public string InputPerMillion { get; set; } = "";
    [JsonPropertyName("outputPerMillion")] public string OutputPerMillion { get; set; } = "";
    [JsonPropertyName("cachedPerMillion")] public string CachedPerMillion { get; set; } = "";
}

public sealed class PriceBookStatus
{
    [JsonPropertyName("observedGeneration")] public long? ObservedGeneration { get; set; }
    [JsonPropertyName("conditions")] public IList<V1Condition>? Conditions { get; set; }
}
