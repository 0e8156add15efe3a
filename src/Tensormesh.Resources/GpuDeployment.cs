using System.ComponentModel;
using System.ComponentModel.DataAnnotations;
using System.Text.Json.Serialization;
using k8s;
using k8s.Models;

namespace Tensormesh.Resources;

[KubernetesEntity(Group = WellKnown.Group, ApiVersion = WellKnown.Version, Kind = KubeKind, PluralName = PluralName)]
[CustomResource("gpudeployment", "gpud", Namespaced = true, Scales = true)]
[Description("Pods on NVIDIA GPUs, paid for in advance by the account of their namespace (its label tensormesh.ai/account).")]
[Column("READY", """.status.conditions[?(@.type=="Ready")].status""")]
[Column("GPUS", ".status.gpus", Type = "integer")]
[Column("GPU", ".status.gpuProduct")]
[Column("RATE/H", ".status.hourlyRate")]
[Column("COST", ".status.costToDate")]
[Column("REASON", """.status.conditions[?(@.type=="Ready")].reason""")]
[Column("AGE", ".metadata.creationTimestamp", Type = "date")]
[Rule("size(self.metadata.name) <= 63", Messages.DeploymentNameIsLong)]
public sealed class GpuDeployment : IKubernetesObject<V1ObjectMeta>, ISpec<GpuDeploymentSpec>, IStatus<GpuDeploymentStatus?>
{
    public const string KubeKind = "GpuDeployment";
    public const string PluralName = "gpudeployments";

    [JsonPropertyName("apiVersion")] public string ApiVersion { get; set; } = WellKnown.ApiVersion;
    [JsonPropertyName("kind")] public string Kind { get; set; } = KubeKind;
    [JsonPropertyName("metadata")] public V1ObjectMeta Metadata { get; set; } = new();

    [Description("What to run, on which GPUs, and for how much money.")]
    [Required]
    [JsonPropertyName("spec")] public GpuDeploymentSpec Spec { get; set; } = new();

    [Description("What was seen last. Written by the operator.")]
    [JsonPropertyName("status")] public GpuDeploymentStatus? Status { get; set; }
}

[Rule("self.replicas * self.gpu.count <= 1000", Messages.TooManyGpus)]
[Rule("!has(self.gpu.container) || self.template.spec.containers.exists(c, c.name == self.gpu.container)", Messages.NoSuchContainer)]
public sealed class GpuDeploymentSpec
{
    [Description("Pods to run; each holds gpu.count GPUs. 0 runs none and costs nothing.")]
    [DefaultValue(Defaulting.Replicas), Range(0, Formats.MaxReplicas)]
    [JsonPropertyName("replicas")] public int? Replicas { get; set; }

    [Description("The GPUs of each pod. Any product that satisfies all of it and has a price may be chosen.")]
    [JsonPropertyName("gpu")] public GpuRequirement Gpu { get; set; } = new();

    [Description("The pods, as in a Deployment's template. One container gets the GPUs: the one named in gpu.container, or the first. " +
        "No container asks for nvidia.com/gpu itself.")]
    [Required]
    [JsonPropertyName("template"), JsonConverter(typeof(PodTemplateConverter))] public V1PodTemplateSpec Template { get; set; } = new();

    [Description("Limits beyond the account's balance.")]
    [JsonPropertyName("budget")] public GpuBudget? Budget { get; set; }

    [Description("True stops all pods, and with them all charges, until it is false again.")]
    [DefaultValue(Defaulting.Paused)]
    [JsonPropertyName("paused")] public bool? Paused { get; set; }
}

[Rule("!has(oldSelf.product) || (has(self.product) && self.product == oldSelf.product)", "product " + Messages.ProductIsImmutable)]
public sealed class GpuRequirement
{
    [Description("GPUs per pod, 1 to 16. All GPUs of a pod are on one node.")]
    [DefaultValue(Defaulting.GpuCount), Range(1, Formats.MaxGpusPerPod)]
    [JsonPropertyName("count")] public int Count { get; set; } = Defaulting.GpuCount;

    [Description("Exact product, as the node's label nvidia.com/gpu.product states it, such as NVIDIA-H100-80GB-HBM3. " +
        "Any product that satisfies the rest when absent. Cannot change while it is set.")]
    [MaxLength(Formats.LabelValueMaxLength), RegularExpression(Formats.LabelValue)]
    [JsonPropertyName("product")] public string? Product { get; set; }

    [Description("Least memory of each GPU: a quantity such as 40Gi.")]
    [MaxLength(Formats.MemoryMaxLength), RegularExpression(Formats.Memory)]
    [Rule("self.matches('[1-9]')", Messages.NoMemory)]
    [JsonPropertyName("minMemory")] public string? MinMemory { get; set; }

    [Description("Least CUDA compute capability: major.minor in quotes, such as \"8.9\".")]
    [MaxLength(Formats.ComputeCapabilityMaxLength), RegularExpression(Formats.ComputeCapability)]
    [JsonPropertyName("minComputeCapability")] public string? MinComputeCapability { get; set; }

    [Description("Name of the container in the template that gets the GPUs; the first when absent.")]
    [MaxLength(Formats.ContainerNameMaxLength), RegularExpression(Formats.ContainerName)]
    [JsonPropertyName("container")] public string? Container { get; set; }
}

public sealed class GpuBudget
{
    [Description("Most dollars an hour over all replicas: a decimal in quotes, such as \"20.00\". What would cost more does not start.")]
    [MaxLength(Formats.DollarsMaxLength), RegularExpression(Formats.Dollars)]
    [Rule("self.matches('[1-9]')", Messages.NoBudget)]
    [JsonPropertyName("maxHourlyRate")] public string? MaxHourlyRate { get; set; }

    [Description("Most dollars in all: a decimal in quotes, such as \"500.00\". " +
        "The pods are stopped at the instant they have cost this much.")]
    [MaxLength(Formats.DollarsMaxLength), RegularExpression(Formats.Dollars)]
    [Rule("self.matches('[1-9]')", Messages.NoBudget)]
    [JsonPropertyName("maxTotalCost")] public string? MaxTotalCost { get; set; }
}

public sealed class GpuDeploymentStatus
{
    [Description("The metadata.generation that this status is about.")]
    [JsonPropertyName("observedGeneration")] public long? ObservedGeneration { get; set; }

    [Description("Pods that exist and are not terminating.")]
    [JsonPropertyName("replicas")] public int? Replicas { get; set; }

    [Description("Pods that are ready.")]
    [JsonPropertyName("readyReplicas")] public int? ReadyReplicas { get; set; }

    [Description("Label selector of the pods, in string form, for the scale subresource.")]
    [JsonPropertyName("selector")] public string? Selector { get; set; }

    [Description("GPUs held by all pods that run.")]
    [JsonPropertyName("gpus")] public int? Gpus { get; set; }

    [Description("The product that was chosen.")]
    [JsonPropertyName("gpuProduct")] public string? GpuProduct { get; set; }

    [Description("Dollars an hour with all replicas running: a decimal.")]
    [JsonPropertyName("hourlyRate")] public string? HourlyRate { get; set; }

    [Description("Dollars charged so far: a decimal, as of the last settlement or change.")]
    [JsonPropertyName("costToDate")] public string? CostToDate { get; set; }

    [Description("Ready sums up; BillingAuthorized, Suspended, Reconciling and Stalled say why.")]
    [ListKey("type")]
    [JsonPropertyName("conditions")] public IList<V1Condition>? Conditions { get; set; }
}
