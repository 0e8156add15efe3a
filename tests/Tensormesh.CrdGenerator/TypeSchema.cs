using System.ComponentModel;
using System.ComponentModel.DataAnnotations;
using System.Reflection;
using System.Text.Json.Nodes;
using System.Text.Json.Serialization;
using k8s.Models;
using Tensormesh.Resources;

namespace Tensormesh.CrdGenerator;

/// <summary>A structural OpenAPI v3 schema from a C# type and the attributes on it.</summary>
/// <remarks>It throws on whatever it does not know: a field never gets into a CRD half described.</remarks>
internal static class TypeSchema
{
    private static readonly NullabilityInfoContext Nullability = new();

    public static JsonObject OfKind(Type kind)
    {
        var schema = OfObject(kind);
        var properties = schema["properties"]!.AsObject();
        // The API server owns these three: it allows no more than their types here.
        properties["apiVersion"] = Described("string", "Version of the schema, as in every Kubernetes object.");
        properties["kind"] = Described("string", "The kind, as in every Kubernetes object.");
        properties["metadata"] = new JsonObject { ["type"] = "object" };
        return schema;
    }

    private static JsonObject OfObject(Type type)
    {
        var schema = new JsonObject { ["type"] = "object" };
        if (type.GetCustomAttribute<DescriptionAttribute>() is { } description)
        {
            schema["description"] = description.Description;
        }

        var properties = Fields(type);
        AddIfAny(schema, "required",
            properties
                .Where(property => property.GetCustomAttribute<RequiredAttribute>() is not null)
                .Select(property => (JsonNode)JsonName(property)));
        schema["properties"] = new JsonObject(properties.Select(p => KeyValuePair.Create(JsonName(p), (JsonNode?)OfField(p))));
        AddRules(schema, type);
        return schema;
    }

    private static JsonObject OfField(PropertyInfo property)
    {
        if (property.DeclaringType!.GetCustomAttribute<KubernetesEntityAttribute>() is not null
            && JsonName(property) is "apiVersion" or "kind" or "metadata")
        {
            return [];
        }

        var type = Nullable.GetUnderlyingType(property.PropertyType) ?? property.PropertyType;
        var schema = OfType(type);
        schema["description"] = property.GetCustomAttribute<DescriptionAttribute>()?.Description
            ?? throw new InvalidOperationException(
                $"{property.DeclaringType!.Name}.{property.Name} lacks [Description]: kubectl explain shows it");
        AddDefault(schema, property);
        AddBounds(schema, property);
        AddRules(schema, property);
        return InReadingOrder(schema);
    }

    /// <summary>What a field is and means first, what it contains and its rules last.</summary>
    private static JsonObject InReadingOrder(JsonObject schema)
    {
        string[] first = ["type", "format", "description", "default"];
        string[] last = ["required", "properties", "items", "x-kubernetes-validations"];
        var fields = schema.ToArray();
        schema.Clear();
        return new(fields.OrderBy(field =>
            Array.IndexOf(first, field.Key) is >= 0 and var early ? early - first.Length
            : Array.IndexOf(last, field.Key) is >= 0 and var late ? late + 1
            : 0));
    }

    private static JsonObject OfType(Type type) => type switch
    {
        _ when type == typeof(string) => Typed("string"),
        _ when type == typeof(bool) => Typed("boolean"),
        _ when type == typeof(int) => Typed("integer", "int32"),
        _ when type == typeof(long) => Typed("integer", "int64"),
        _ when type == typeof(DateTimeOffset) => Typed("string", "date-time"),
        _ when type == typeof(V1PodTemplateSpec) => KubernetesSchemas.PodTemplate(),
        _ when type == typeof(V1Condition) => KubernetesSchemas.Condition(),
        { IsGenericType: true } when type.GetGenericTypeDefinition() == typeof(IList<>) =>
            new() { ["type"] = "array", ["items"] = OfType(type.GenericTypeArguments[0]) },
        _ when type.Assembly == typeof(WellKnown).Assembly => OfObject(type),
        _ => throw new InvalidOperationException($"no schema is known for {type}"),
    };

    private static void AddDefault(JsonObject schema, PropertyInfo property)
    {
        var isRequired = property.GetCustomAttribute<RequiredAttribute>() is not null;
        if (property.GetCustomAttribute<DefaultValueAttribute>() is { } given)
        {
            schema["default"] = JsonValue.Create(given.Value);
        }
        else if (!isRequired && Nullability.Create(property).ReadState == NullabilityState.NotNull)
        {
            // What C# never sees as null is an object that may be left out: absent means empty, with its own fields' defaults.
            schema["default"] = schema.ContainsKey("properties")
                ? new JsonObject()
                : throw new InvalidOperationException($"{property.DeclaringType!.Name}.{property.Name} is neither nullable nor [Required]");
        }
    }

    private static void AddBounds(JsonObject schema, PropertyInfo property)
    {
        if (property.GetCustomAttribute<RangeAttribute>() is { } range)
        {
            schema["minimum"] = JsonValue.Create(range.Minimum);
            schema["maximum"] = JsonValue.Create(range.Maximum);
        }

        if (property.GetCustomAttribute<MaxLengthAttribute>() is { } length)
        {
            schema[(string?)schema["type"] == "array" ? "maxItems" : "maxLength"] = length.Length;
        }

        if (property.GetCustomAttribute<RegularExpressionAttribute>() is { } expression)
        {
            schema["pattern"] = expression.Pattern;
        }

        if (property.GetCustomAttribute<AllowedValuesAttribute>() is { } allowed)
        {
            schema["enum"] = new JsonArray([.. allowed.Values.Select(value => JsonValue.Create((string)value!))]);
        }

        if (property.GetCustomAttribute<ListKeyAttribute>() is { } list)
        {
            schema["x-kubernetes-list-type"] = "map";
            schema["x-kubernetes-list-map-keys"] = new JsonArray(list.Key);
        }
    }

    private static void AddRules(JsonObject schema, MemberInfo member) =>
        AddIfAny(schema, "x-kubernetes-validations", member.GetCustomAttributes<RuleAttribute>()
            .Select(rule => (JsonNode)new JsonObject { ["rule"] = rule.Expression, ["message"] = rule.Message }));

    private static PropertyInfo[] Fields(Type type) =>
    [
        .. type.GetProperties(BindingFlags.Public | BindingFlags.Instance)
            .Where(property => property.GetCustomAttribute<JsonIgnoreAttribute>() is null)
            .OrderBy(property => property.MetadataToken), // the order in which they are declared
    ];

    private static string JsonName(PropertyInfo property) =>
        property.GetCustomAttribute<JsonPropertyNameAttribute>()?.Name
        ?? throw new InvalidOperationException($"{property.DeclaringType!.Name}.{property.Name} lacks [JsonPropertyName]");

    private static void AddIfAny(JsonObject schema, string key, IEnumerable<JsonNode> values)
    {
        if (values.ToArray() is { Length: > 0 } list)
        {
            schema[key] = new JsonArray(list);
        }
    }

    private static JsonObject Typed(string type, string? format = null)
    {
        var schema = new JsonObject { ["type"] = type };
        if (format is not null)
        {
            schema["format"] = format;
        }

        return schema;
    }

    private static JsonObject Described(string type, string description) => new() { ["type"] = type, ["description"] = description };
}
