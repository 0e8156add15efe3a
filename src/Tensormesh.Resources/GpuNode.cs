using System.ComponentModel;
using System.ComponentModel.DataAnnotations;
using System.Diagnostics.CodeAnalysis;
using System.Text.Json.Serialization;
using k8s;
using k8s.Models;

namespace Tensormesh.Resources;

/// <summary>
/// What a node's agent saw of the node's GPUs, and the evidence that money follows from. It has no spec: nobody asks for it.
/// There is nothing for <see cref="Validation"/> to add either, because every API server since 1.20 enforces the schema.
/// </summary>
[KubernetesEntity(Group = WellKnown.Group, ApiVersion = WellKnown.Version, Kind = KubeKind, PluralName = PluralName)]
[CustomResource("gpunode", "gpun")]
[Description("The GPUs of the node of the same name: which there are, how they are, and which pod holds them. " +
    "Written by the node's agent alone.")]
[Column("NODE", ".status.nodeName")]
[Column("GPUS", ".status.gpus", Type = "integer")]
[Column("MODEL", ".status.product")]
[Column("DRIVER", ".status.driverVersion")]
[Column("HEALTHY", ".status.healthyGpus", Type = "integer")]
[Column("FREE", ".status.freeGpus", Type = "integer")]
[Column("AGE", ".metadata.creationTimestamp", Type = "date")]
[Column("HEARD", ".status.heartbeatTime", Type = "date", Priority = 1)]
public sealed class GpuNode : IKubernetesObject<V1ObjectMeta>, IStatus<GpuNodeStatus?>
{
    public const string KubeKind = "GpuNode";
    public const string PluralName = "gpunodes";

    [JsonPropertyName("apiVersion")] public string ApiVersion { get; set; } = WellKnown.ApiVersion;
    [JsonPropertyName("kind")] public string Kind { get; set; } = KubeKind;
    [JsonPropertyName("metadata")] public V1ObjectMeta Metadata { get; set; } = new();

    [Description("What was seen last. All times are by the node's own clock.")]
    [JsonPropertyName("status")] public GpuNodeStatus? Status { get; set; }
}

[UnconditionalSuppressMessage("Trimming", "IL2026", Justification = SchemaOnly.Why)]
public sealed class GpuNodeStatus
{
    [Description("The node.")]
    [MaxLength(Formats.NodeNameMaxLength)]
    [JsonPropertyName("nodeName")] public string? NodeName { get; set; }

    [Description("When the agent last said that all of this was so. Nothing is known of any time after it.")]
    [JsonPropertyName("heartbeatTime")] public DateTimeOffset? HeartbeatTime { get; set; }

    [Description("Seconds after which the agent says so again when nothing changed. " +
        "An agent that is silent for several times as long is lost.")]
    [Range(1, Formats.MaxHeartbeatSeconds)]
    [JsonPropertyName("heartbeatSeconds")] public int? HeartbeatSeconds { get; set; }

    [Description("GPUs that the driver lists, with those that it listed before and lost.")]
    [JsonPropertyName("gpus")] public int? Gpus { get; set; }

    [Description("GPUs that were healthy when they were last looked at.")]
    [JsonPropertyName("healthyGpus")] public int? HealthyGpus { get; set; }

    [Description("Healthy GPUs that no pod holds. Absent while nobody can tell who holds what.")]
    [JsonPropertyName("freeGpus")] public int? FreeGpus { get; set; }

    [Description("The product of the GPUs, as PriceBooks name it; several are separated by commas.")]
    [MaxLength(Formats.MessageMaxLength)]
    [JsonPropertyName("product")] public string? Product { get; set; }

    [Description("Version of the NVIDIA driver, such as 550.54.15.")]
    [MaxLength(Formats.LabelValueMaxLength)]
    [JsonPropertyName("driverVersion")] public string? DriverVersion { get; set; }

    [Description("The newest CUDA that the driver runs, such as 12.4.")]
    [MaxLength(Formats.LabelValueMaxLength)]
    [JsonPropertyName("cudaVersion")] public string? CudaVersion { get; set; }

    [Description("Each GPU, in the order of their indexes.")]
    [MaxLength(Formats.MaxGpusPerNode)]
    [JsonPropertyName("devices")] public IList<GpuDevice>? Devices { get; set; }

    [Description("Which container holds which GPUs, as the kubelet says.")]
    [MaxLength(Formats.MaxAllocations)]
    [JsonPropertyName("allocations")] public IList<GpuAllocation>? Allocations { get; set; }

    [Description("Times in the past during which a GPU was not known to be healthy, oldest first. " +
        "A time that still goes on is not here but in devices.")]
    [MaxLength(Formats.MaxOutages)]
    [JsonPropertyName("outages")] public IList<GpuOutage>? Outages { get; set; }

    [Description("Outages that ended at or before this time may have been dropped from the list, which keeps the newest. " +
        "Whoever last read the list later than this has missed none.")]
    [JsonPropertyName("outagesDroppedUntil")] public DateTimeOffset? OutagesDroppedUntil { get; set; }

    [Description("Ready sums up; DevicesRead and AllocationsKnown say why.")]
    [ListKey("type")]
    [JsonPropertyName("conditions")] public IList<V1Condition>? Conditions { get; set; }
}

[Description("One GPU.")]
[UnconditionalSuppressMessage("Trimming", "IL2026", Justification = SchemaOnly.Why)]
public sealed class GpuDevice
{
    [Description("The GPU's own UUID, such as GPU-5a4fd7b2-6ff7-4b8e-9d5f-0d1b1f1f2c3a: its identity. " +
        "Absent for a GPU that was lost before it was read.")]
    [MaxLength(Formats.GpuUuidMaxLength), RegularExpression(Formats.GpuUuid)]
    [JsonPropertyName("uuid")] public string? Uuid { get; set; }

    [Description("The driver's index, which may change when the driver is loaded again.")]
    [Range(0, Formats.MaxGpusPerNode)]
    [JsonPropertyName("index")] public int? Index { get; set; }

    [Description("Product, in the form in which PriceBooks and the label nvidia.com/gpu.product name it, such as NVIDIA-H100-80GB-HBM3.")]
    [MaxLength(Formats.LabelValueMaxLength), RegularExpression(Formats.LabelValue)]
    [JsonPropertyName("product")] public string? Product { get; set; }

    [Description("Memory in MiB.")]
    [JsonPropertyName("memoryMiB")] public long? MemoryMiB { get; set; }

    [Description("CUDA compute capability, such as 9.0.")]
    [MaxLength(Formats.ComputeCapabilityMaxLength), RegularExpression(Formats.ComputeCapability)]
    [JsonPropertyName("computeCapability")] public string? ComputeCapability { get; set; }

    [Description("Domain, bus, device and function, such as 00000000:3B:00.0.")]
    [MaxLength(Formats.LabelValueMaxLength)]
    [JsonPropertyName("pciBusId")] public string? PciBusId { get; set; }

    [Description("Healthy; Unhealthy: there is evidence that work on it fails; Unknown: there is no evidence either way.")]
    [Required, AllowedValues(GpuHealth.Healthy, GpuHealth.Unhealthy, GpuHealth.Unknown)]
    [JsonPropertyName("health")] public string Health { get; set; } = GpuHealth.Unknown;

    [Description("Why it is not healthy, in one word such as Lost or UncorrectedEcc.")]
    [MaxLength(Formats.LabelValueMaxLength)]
    [JsonPropertyName("reason")] public string? Reason { get; set; }

    [Description("Why it is not healthy, for people.")]
    [MaxLength(Formats.MessageMaxLength)]
    [JsonPropertyName("message")] public string? Message { get; set; }

    [Description("When health and reason were first seen to be what they are.")]
    [JsonPropertyName("since")] public DateTimeOffset? Since { get; set; }

    [Description("When it was last seen healthy. While it is not, nothing is known of the time between this and since.")]
    [JsonPropertyName("lastHealthyTime")] public DateTimeOffset? LastHealthyTime { get; set; }

    [Description("Uids of the pods that held it, or a part of it, since it was last seen healthy: it is their evidence, " +
        "also once they are gone. Absent while it is healthy.")]
    [MaxLength(Formats.MaxHolders)]
    [JsonPropertyName("heldBy")] public IList<string>? HeldBy { get; set; }

    [Description("Its MIG instances; absent when MIG is off.")]
    [MaxLength(Formats.MaxGpusPerNode)]
    [JsonPropertyName("migInstances")] public IList<GpuMigInstance>? MigInstances { get; set; }
}

[Description("A part of a GPU that is handed out on its own.")]
[UnconditionalSuppressMessage("Trimming", "IL2026", Justification = SchemaOnly.Why)]
public sealed class GpuMigInstance
{
    [Description("The instance's UUID, such as MIG-8f3c5a5e-3f7d-5a3b-9d0e-1a2b3c4d5e6f.")]
    [Required, MaxLength(Formats.GpuUuidMaxLength), RegularExpression(Formats.GpuUuid)]
    [JsonPropertyName("uuid")] public string Uuid { get; set; } = "";

    [Description("What the driver calls it, such as NVIDIA H100 80GB HBM3 MIG 1g.10gb.")]
    [MaxLength(Formats.DisplayNameMaxLength)]
    [JsonPropertyName("name")] public string? Name { get; set; }

    [Description("Memory in MiB.")]
    [JsonPropertyName("memoryMiB")] public long? MemoryMiB { get; set; }
}

[Description("The GPUs that one container holds.")]
[UnconditionalSuppressMessage("Trimming", "IL2026", Justification = SchemaOnly.Why)]
public sealed class GpuAllocation
{
    [Description("The pod's uid. Absent while it is not certain which pod of the name it is; " +
        "such an entry is no evidence of who used the GPU.")]
    [MaxLength(Formats.LabelValueMaxLength)]
    [JsonPropertyName("podUid")] public string? PodUid { get; set; }

    [Description("The pod's namespace.")]
    [Required, MaxLength(Formats.LabelValueMaxLength)]
    [JsonPropertyName("podNamespace")] public string PodNamespace { get; set; } = "";

    [Description("The pod's name.")]
    [Required, MaxLength(Formats.NodeNameMaxLength)]
    [JsonPropertyName("podName")] public string PodName { get; set; } = "";

    [Description("The container's name.")]
    [Required, MaxLength(Formats.ContainerNameMaxLength)]
    [JsonPropertyName("container")] public string Container { get; set; } = "";

    [Description("UUIDs of GPUs, or of MIG instances.")]
    [Required, MaxLength(Formats.MaxGpusPerNode)]
    [JsonPropertyName("gpus")] public IList<string> Gpus { get; set; } = [];

    [Description("When the agent first saw that it holds them.")]
    [JsonPropertyName("since")] public DateTimeOffset? Since { get; set; }
}

[Description("A time during which a GPU was not known to be healthy.")]
[UnconditionalSuppressMessage("Trimming", "IL2026", Justification = SchemaOnly.Why)]
public sealed class GpuOutage
{
    [Description("The GPU's UUID.")]
    [Required, MaxLength(Formats.GpuUuidMaxLength), RegularExpression(Formats.GpuUuid)]
    [JsonPropertyName("uuid")] public string Uuid { get; set; } = "";

    [Description("Unhealthy or Unknown.")]
    [Required, AllowedValues(GpuHealth.Unhealthy, GpuHealth.Unknown)]
    [JsonPropertyName("health")] public string Health { get; set; } = GpuHealth.Unknown;

    [Description("Why, in one word.")]
    [MaxLength(Formats.LabelValueMaxLength)]
    [JsonPropertyName("reason")] public string? Reason { get; set; }

    [Description("Why, for people.")]
    [MaxLength(Formats.MessageMaxLength)]
    [JsonPropertyName("message")] public string? Message { get; set; }

    [Description("When it was last seen healthy before. Absent when it never was.")]
    [JsonPropertyName("lastHealthyTime")] public DateTimeOffset? LastHealthyTime { get; set; }

    [Description("When this was first seen.")]
    [JsonPropertyName("from")] public DateTimeOffset? From { get; set; }

    [Description("Uids of the pods that held it, or a part of it, from when it was last seen healthy to the end of this.")]
    [MaxLength(Formats.MaxHolders)]
    [JsonPropertyName("heldBy")] public IList<string>? HeldBy { get; set; }

    [Description("When something else was first seen. Absent when the GPU was never seen again.")]
    [JsonPropertyName("until")] public DateTimeOffset? Until { get; set; }
}

/// <summary>The values of a GPU's health. They are API.</summary>
public static class GpuHealth
{
    public const string Healthy = "Healthy";
    public const string Unhealthy = "Unhealthy";
    public const string Unknown = "Unknown";
}

/// <summary>An agent that was compiled ahead of time carries these types.</summary>
internal static class SchemaOnly
{
    public const string Why = "MaxLength says what the CRD's schema is. Nothing asks it to judge an object, which is what trimming would break.";
}
