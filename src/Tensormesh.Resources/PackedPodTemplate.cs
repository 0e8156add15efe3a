using System.Text;
using System.Text.Json;
using k8s;
using k8s.Models;

namespace Tensormesh.Resources;

/// <summary>
/// A pod template as the JSON that it is written in, which takes far less than its objects. For copies of which there are many and few are looked at.
/// Its own properties are empty; it is written to JSON as what it stands for.
/// </summary>
public sealed record PackedPodTemplate : V1PodTemplateSpec
{
    private readonly byte[] json;

    private PackedPodTemplate(byte[] json) => this.json = json;

    /// <summary>The template in its packed form; one that is packed already, or cannot be read, is given back as it is.</summary>
    public static V1PodTemplateSpec Pack(V1PodTemplateSpec template)
        => template is PackedPodTemplate or UnreadablePodTemplate ? template : new PackedPodTemplate(Encoding.UTF8.GetBytes(KubernetesJson.Serialize(template)));

    /// <summary>The template itself: a copy of its own where it was packed.</summary>
    public static V1PodTemplateSpec Unpack(V1PodTemplateSpec template)
        => template is PackedPodTemplate packed ? KubernetesJson.Deserialize<V1PodTemplateSpec>(new MemoryStream(packed.json, writable: false)) : template;

    internal void WriteTo(Utf8JsonWriter writer) => writer.WriteRawValue(json, skipInputValidation: true);
}
