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

/// <summary>Reads any JSON without throwing, and writes back what it read.</summary>
internal sealed class PodTemplateConverter : JsonConverter<V1PodTemplateSpec>
{
    public override V1PodTemplateSpec? Read(ref Utf8JsonReader reader, Type typeToConvert, JsonSerializerOptions options)
    {
        var stored = JsonElement.ParseValue(ref reader);
        try
        {
            return stored.Deserialize<V1PodTemplateSpec>(options);
        }
        catch (Exception fault) when (fault is JsonException or FormatException or NotSupportedException or InvalidOperationException)
        {
            return new UnreadablePodTemplate(fault.Message, stored);
        }
    }

    public override void Write(Utf8JsonWriter writer, V1PodTemplateSpec value, JsonSerializerOptions options)
    {
        if (value is UnreadablePodTemplate unreadable)
        {
            unreadable.Original.WriteTo(writer);
        }
        else
        {
            JsonSerializer.Serialize(writer, value, options);
        }
    }
}
