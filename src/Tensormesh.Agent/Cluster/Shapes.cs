using System.Globalization;
using System.Text.Json;
using System.Text.Json.Serialization;
using Tensormesh.Resources;

namespace Tensormesh.Agent.Cluster;

/// <summary>Of each kind, what the agent reads or writes. What else an object has is left alone.</summary>
internal sealed record GpuNodeObject(string ApiVersion, string Kind, ObjectMeta Metadata, GpuNodeStatus? Status)
{
    public static GpuNodeObject Of(ObjectMeta metadata, GpuNodeStatus? status) => new(WellKnown.ApiVersion, GpuNode.KubeKind, metadata, status);
}

internal sealed record NodeObject(string ApiVersion, string Kind, ObjectMeta Metadata);

internal sealed record PodObject(ObjectMeta Metadata, PodSpec Spec, PodStatus? Status);

internal sealed record PodSpec(string? NodeName);

internal sealed record PodStatus(string? Phase, DateTimeOffset? StartTime);

internal sealed record ObjectMeta
{
    public required string Name { get; init; }
    public string? Uid { get; init; }
    public IReadOnlyDictionary<string, string>? Labels { get; init; }
    public IReadOnlyList<OwnerReference>? OwnerReferences { get; init; }
    public IReadOnlyList<ManagedFields>? ManagedFields { get; init; }
}

internal sealed record OwnerReference(string ApiVersion, string Kind, string Name, string Uid);

internal sealed record ManagedFields(string? Manager, string? Operation, JsonElement FieldsV1);

[JsonSourceGenerationOptions(
    PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase, DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull,
    Converters = [typeof(InstantOffset), typeof(Instant)])]
[JsonSerializable(typeof(GpuNodeObject))]
[JsonSerializable(typeof(NodeObject))]
[JsonSerializable(typeof(PodObject))]
internal sealed partial class Shapes : JsonSerializerContext;

/// <summary>As Kubernetes writes instants of microseconds: in UTC, always with six places.</summary>
internal sealed class InstantOffset : JsonConverter<DateTimeOffset>
{
    internal const string Format = "yyyy-MM-dd'T'HH:mm:ss.ffffff'Z'";

    public override DateTimeOffset Read(ref Utf8JsonReader reader, Type typeToConvert, JsonSerializerOptions options) => reader.GetDateTimeOffset();

    public override void Write(Utf8JsonWriter writer, DateTimeOffset value, JsonSerializerOptions options) =>
        writer.WriteStringValue(value.UtcDateTime.ToString(Format, CultureInfo.InvariantCulture));
}

/// <inheritdoc cref="InstantOffset"/>
internal sealed class Instant : JsonConverter<DateTime>
{
    public override DateTime Read(ref Utf8JsonReader reader, Type typeToConvert, JsonSerializerOptions options) => reader.GetDateTimeOffset().UtcDateTime;

    public override void Write(Utf8JsonWriter writer, DateTime value, JsonSerializerOptions options) =>
        writer.WriteStringValue(value.ToUniversalTime().ToString(InstantOffset.Format, CultureInfo.InvariantCulture));
}
