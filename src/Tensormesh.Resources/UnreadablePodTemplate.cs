using System.Runtime.CompilerServices;
using System.Text;
using System.Text.Json;
using System.Text.Json.Serialization;
using k8s.Models;

namespace Tensormesh.Resources;

/// <summary>A template that the API server stored and that is no pod template, such as one with <c>nodeSelector: 5</c>.</summary>
/// <remarks>
/// The CRD keeps what it does not know inside the template, so a tenant can store anything there. If reading that threw, one such
/// object would fail every list of GpuDeployments, and the operator would be blind for all tenants.
/// </remarks>
/// <param name="Reason">What could not be read, for the object's owner.</param>
/// <param name="Original">What was stored, so that writing the object back does not change it.</param>
public sealed record UnreadablePodTemplate(string Reason, JsonElement Original) : V1PodTemplateSpec;

/// <summary>Reads any JSON without throwing and within bounds, and writes back what it read.</summary>
internal sealed class PodTemplateConverter : JsonConverter<V1PodTemplateSpec>
{
    private static readonly ConditionalWeakTable<JsonSerializerOptions, JsonSerializerOptions> Bounded = [];

    public override V1PodTemplateSpec? Read(ref Utf8JsonReader reader, Type typeToConvert, JsonSerializerOptions options)
    {
        var stored = JsonElement.ParseValue(ref reader);
        try
        {
            return stored.Deserialize<V1PodTemplateSpec>(Bounded.GetValue(options, WithBoundedQuantities));
        }
        catch (Exception fault) when (fault is JsonException or FormatException or NotSupportedException or InvalidOperationException)
        {
            return new UnreadablePodTemplate(fault.Message, stored);
        }
    }

    public override void Write(Utf8JsonWriter writer, V1PodTemplateSpec value, JsonSerializerOptions options)
    {
        switch (value)
        {
            case UnreadablePodTemplate unreadable:
                unreadable.Original.WriteTo(writer);
                break;
            case PackedPodTemplate packed:
                packed.WriteTo(writer);
                break;
            default:
                JsonSerializer.Serialize(writer, value, options);
                break;
        }
    }

    private static JsonSerializerOptions WithBoundedQuantities(JsonSerializerOptions options)
    {
        var bounded = new JsonSerializerOptions(options);
        bounded.Converters.Insert(0, new BoundedQuantityConverter());
        return bounded;
    }
}

/// <summary>Reads a quantity only if its digits and exponent are few.</summary>
/// <remarks>The client computes quantities exactly: a tenant's <c>cpu: 1e999999</c> would keep the operator busy for hours.</remarks>
internal sealed class BoundedQuantityConverter : JsonConverter<ResourceQuantity>
{
    public override ResourceQuantity Read(ref Utf8JsonReader reader, Type typeToConvert, JsonSerializerOptions options)
    {
        var text = reader.TokenType switch
        {
            JsonTokenType.String => reader.GetString(),
            JsonTokenType.Number => Encoding.UTF8.GetString(reader.ValueSpan),
            _ => null,
        };
        return Formats.Matches(text, Formats.Quantity, Formats.QuantityMaxLength)
            ? new ResourceQuantity(text)
            : throw new JsonException("an amount is not a quantity: write it like 2, 500m or 4Gi");
    }

    public override void Write(Utf8JsonWriter writer, ResourceQuantity value, JsonSerializerOptions options) =>
        writer.WriteStringValue(value.ToString());
}
