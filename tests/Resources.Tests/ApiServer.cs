using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.RegularExpressions;

namespace Resources.Tests;

/// <summary>What an API server does with an object of a committed CRD: fill defaults, check the schema, run the CEL rules.</summary>
/// <remarks>It knows the keywords that our CRDs use and throws on any other, so that no rule goes unchecked.</remarks>
internal sealed class ApiServer(string plural)
{
    private readonly JsonObject _schema = Repository.Schema(plural);

    /// <summary>What it would refuse the object for; <paramref name="before"/> is the stored object of an update.</summary>
    public IReadOnlyList<string> Refusals(JsonObject value, JsonObject? before = null)
    {
        var (now, old) = (Defaulted(value), before is null ? null : Defaulted(before));
        var errors = Check(_schema, now, old, "").ToList();
        // CEL runs on what the schema has found sound.
        return errors.Count > 0 ? errors : [.. Rules(_schema, now, old, "")];
    }

    public JsonObject Defaulted(JsonObject value)
    {
        var copy = value.DeepClone().AsObject();
        FillDefaults(_schema, copy);
        return copy;
    }

    private static void FillDefaults(JsonObject schema, JsonNode? value)
    {
        if (value is JsonArray list && schema["items"] is JsonObject items)
        {
            foreach (var item in list)
            {
                FillDefaults(items, item);
            }
        }

        if (value is not JsonObject fields || schema["properties"] is not JsonObject properties)
        {
            return;
        }

        foreach (var (name, property) in properties)
        {
            if (fields[name] is null && property!["default"] is { } given)
            {
                fields[name] = given.DeepClone();
            }

            FillDefaults(property!.AsObject(), fields[name]);
        }
    }

    private static IEnumerable<string> Check(JsonObject schema, JsonNode? value, JsonNode? old, string path)
    {
        foreach (var (keyword, rule) in schema)
        {
            var error = keyword switch
            {
                "description" or "format" or "default" or "properties" or "items" or "additionalProperties" or "anyOf"
                    or "x-kubernetes-preserve-unknown-fields" or "x-kubernetes-validations" or "x-kubernetes-list-type" => null,
                "x-kubernetes-int-or-string" => IsType("integer", value) || IsType("string", value) ? null : "is no integer or string",
                "type" => IsType((string)rule!, value) ? null : $"is no {rule}",
                "pattern" when value!.GetValueKind() is not JsonValueKind.String => null,
                "pattern" => Regex.IsMatch((string)value!, (string)rule!) ? null : $"does not match {rule}",
                "maxLength" => ((string)value!).Length <= (int)rule! ? null : $"is longer than {rule}",
                "minimum" => (long)value! >= (long)rule! ? null : $"is less than {rule}",
                "maximum" => (long)value! <= (long)rule! ? null : $"is more than {rule}",
                "minItems" => value!.AsArray().Count >= (int)rule! ? null : $"has fewer than {rule} items",
                "maxItems" => value!.AsArray().Count <= (int)rule! ? null : $"has more than {rule} items",
                "maxProperties" => value!.AsObject().Count <= (int)rule! ? null : $"has more than {rule} fields",
                "enum" => rule!.AsArray().Any(allowed => JsonNode.DeepEquals(allowed, value)) ? null : "is not among the allowed",
                "required" => rule!.AsArray().FirstOrDefault(name => value!.AsObject()[(string)name!] is null) is { } missing
                    ? $"lacks {missing}"
                    : null,
                "x-kubernetes-list-map-keys" =>
                    HasDuplicates(value!.AsArray(), (string)rule![0]!) ? $"has two items of one {rule[0]}" : null,
                _ => throw new NotSupportedException($"{path} has the keyword {keyword}, which these tests do not know"),
            };
            if (error is not null)
            {
                yield return $"{path}: {error}";
                if (keyword is "type")
                {
                    yield break;
                }
            }
        }

        foreach (var (child, inner, _, where) in Children(schema, value, old, path))
        {
            foreach (var error in inner is null ? [$"{where}: is unknown"] : Check(inner, child, null, where))
            {
                yield return error;
            }
        }
    }

    private static IEnumerable<string> Rules(JsonObject schema, JsonNode value, JsonNode? old, string path)
    {
        foreach (var rule in schema["x-kubernetes-validations"]?.AsArray() ?? [])
        {
            var expression = (string)rule!["rule"]!;
            if ((old is not null || !expression.Contains("oldSelf")) && !Cel.IsTrue(expression, value, old))
            {
                yield return $"{path}: {rule["message"]}";
            }
        }

        foreach (var (child, inner, before, where) in Children(schema, value, old, path))
        {
            foreach (var error in inner is null ? [] : Rules(inner, child, before, where))
            {
                yield return error;
            }
        }
    }

    /// <summary>Each child with its schema; none where the schema does not know the child and may not keep it.</summary>
    private static IEnumerable<(JsonNode Child, JsonObject? Schema, JsonNode? Old, string Path)> Children(
        JsonObject schema, JsonNode? value, JsonNode? old, string path)
    {
        if (value is JsonArray list)
        {
            return list.Select((item, i) => (item!, schema["items"]?.AsObject(), (JsonNode?)null, $"{path}[{i}]"));
        }

        // metadata is the API server's own: a CRD says no more about it than that it is an object.
        return value is not JsonObject fields || path == ".metadata"
            ? []
            : fields
                .Where(field => field.Value is not null && (!KeepsUnknown(schema) || schema["properties"]?[field.Key] is not null))
                .Select(field => (
                    field.Value!,
                    (schema["properties"]?[field.Key] ?? schema["additionalProperties"])?.AsObject(),
                    (old as JsonObject)?[field.Key],
                    $"{path}.{field.Key}"));
    }

    private static bool KeepsUnknown(JsonObject schema) => (bool?)schema["x-kubernetes-preserve-unknown-fields"] is true;

    private static bool HasDuplicates(JsonArray list, string key) =>
        list.Select(item => (string?)item![key]).Distinct().Count() < list.Count;

    private static bool IsType(string type, JsonNode? value) => (type, value?.GetValueKind()) switch
    {
        ("object", JsonValueKind.Object) or ("array", JsonValueKind.Array) or ("string", JsonValueKind.String) => true,
        ("boolean", JsonValueKind.True or JsonValueKind.False) => true,
        ("integer", JsonValueKind.Number) => long.TryParse(value.ToJsonString(), out _),
        _ => false,
    };
}
