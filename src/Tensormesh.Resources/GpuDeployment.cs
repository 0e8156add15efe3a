using System.Text.Json.Serialization;
using k8s;
using k8s.Models;

namespace Tensormesh.Resources;

/// <summary>Pods on NVIDIA GPUs, paid for in advance by the account of their namespace.</summary>
[KubernetesEntity(Group = WellKnown.Group, ApiVersion = WellKnown.Version, Kind = KubeKind, PluralName = PluralName)]
public sealed class GpuDeployment : IKubernetesObject<V1ObjectMeta>, ISpec<GpuDeploymentSpec>, IStatus<GpuDeploymentStatus?>
{
    public const string KubeKind = "GpuDeployment";
    public const string PluralName = "gpudeployments";

    [JsonPropertyName("apiVersion")] public string ApiVersion { get; set; } = WellKnown.ApiVersion;
    [JsonPropertyName("kind")] public string Kind { get; set; } = KubeKind;
    [JsonPropertyName("metadata")] public V1ObjectMeta Metadata { get; set; } = new();
    [JsonPropertyName("spec")] public GpuDeploymentSpec Spec { get; set; } = new();
    [JsonPropertyName("status")] public GpuDeploymentStatus? Status { get; set; }
}

public sealed class GpuDeploymentSpec
{
    /// <summary>Pods to run; each holds gpu.count GPUs.</summary>
    [JsonPropertyName("replicas")] public int? Replicas { get; set; }
    [JsonPropertyName("gpu")] public GpuRequirement Gpu { get; set; } = new();
    [JsonPropertyName("template"), JsonConverter(typeof(PodTemplateConverter))] public V1PodTemplateSpec Template { get; set; } = new();
    [JsonPropertyName("budget")] public GpuBudget? Budget { get; set; }
    /// <summary>True stops all pods, and with them all charges, until it is false again.</summary>
    [JsonPropertyName("paused")] public bool? Paused { get; set; }
}

public sealed class GpuRequirement
{
    /// <summary>GPUs per pod, 1 to 16.</summary>
    [JsonPropertyName("count")] public int Count { get; set; } = Defaulting.GpuCount;
    /// <summary>Exact product label, such as NVIDIA-H100-80GB-HBM3; any product that satisfies the rest when absent. Immutable while set.</summary>
    [JsonPropertyName("product")] public string? Product { get; set; }
    /// <summary>Least memory per GPU, a quantity such as 40Gi.</summary>
    [JsonPropertyName("minMemory")] public string? MinMemory { get; set; }
    /// <summary>Least CUDA compute capability, major.minor, such as "8.9".</summary>
    [JsonPropertyName("minComputeCapability")] public string? MinComputeCapability { get; set; }
    /// <summary>Name of the container that gets the GPUs; the first when absent.</summary>
    [JsonPropertyName("container")] public string? Container { get; set; }
}

public sealed class GpuBudget
{
    /// <summary>Most dollars an hour, over all replicas: a decimal string such as "20.00".</summary>
    [JsonPropertyName("maxHourlyRate")] public string? MaxHourlyRate { get; set; }
    /// <summary>Most dollars in all; the deployment is suspended at the instant it has cost this much.</summary>
    [JsonPropertyName("maxTotalCost")] public string? MaxTotalCost { get; set; }
}

public sealed class GpuDeploymentStatus
{
    [JsonPropertyName("observedGeneration")] public long? ObservedGeneration { get; set; }
    /// <summary>Pods that exist and are not terminating.</summary>
    [JsonPropertyName("replicas")] public int? Replicas { get; set; }
    [JsonPropertyName("readyReplicas")] public int? ReadyReplicas { get; set; }
    /// <summary>Label selector of the pods, in string form, for the scale subresource.</summary>
    [JsonPropertyName("selector")] public string? Selector { get; set; }
    /// <summary>GPUs over all replicas that run.</summary>
    [JsonPropertyName("gpus")] public int? Gpus { get; set; }
    /// <summary>The product chosen.</summary>
    [JsonPropertyName("gpuProduct")] public string? GpuProduct { get; set; }
    /// <summary>Dollars an hour at full scale, a decimal string.</summary>
    [JsonPropertyName("hourlyRate")] public string? HourlyRate { get; set; }
    /// <summary>Dollars charged so far, a decimal string, as of the last settlement or change.</summary>
    [JsonPropertyName("costToDate")] public string? CostToDate { get; set; }
    [JsonPropertyName("conditions")] public IList<V1Condition>? Conditions { get; set; }
}
