using System.Text.Json;
using System.Text.Json.Nodes;

namespace Tensormesh.Integration.Tests.Web;

/// <summary>The OpenAPI document that a server serves, to hold its answers against.</summary>
internal sealed class ApiDocument(JsonNode document)
{
    private static readonly string[] Methods = ["get", "put", "post", "delete", "patch"];

    private readonly JsonNode document = document;

    public static async Task<ApiDocument> ReadAsync(WebServer server) => new(JsonNode.Parse((await server.WithToken(null).GetAsync("/openapi/v1.json")).Text)!);

    public IEnumerable<(string Method, string Path, JsonNode Operation)> Operations => document["paths"]!.AsObject()
        .SelectMany(path => path.Value!.AsObject().Where(each => Methods.Contains(each.Key)).Select(each => (each.Key.ToUpperInvariant(), path.Key, each.Value!)));

    /// <summary>Null where the document has no such route.</summary>
    public JsonNode? Find(string method, string pattern) => document["paths"]?[pattern]?[method.ToLowerInvariant()];

    public static IEnumerable<string> Parameters(JsonNode operation, string place) => (operation["parameters"]?.AsArray() ?? [])
        .Where(each => (string?)each!["in"] == place).Select(each => (string)each!["name"]!);

    /// <summary>Says what of an answer the document does not know; null when it knows all.</summary>
    public string? WhyUndocumented(string method, string pattern, int status, string mediaType, string text)
    {
        if (Find(method, pattern) is not { } operation) return "the route is not in the document";
        if (operation["responses"]?[status.ToString(System.Globalization.CultureInfo.InvariantCulture)] is not { } response) return $"the answer {status} is not in the document";
        if (response["content"]?[mediaType] is not { } content) return $"{status} in {mediaType} is not in the document";
        return mediaType.EndsWith("json", StringComparison.Ordinal) ? Compare(content["schema"]!, JsonNode.Parse(text), "$") : null;
    }

    private string? Compare(JsonNode schema, JsonNode? value, string at)
    {
        if ((string?)schema["$ref"] is { } reference)
        {
            return Compare(reference.Split('/').Skip(1).Aggregate(document, (node, name) => node[name]!), value, at);
        }

        if ((schema["oneOf"] ?? schema["anyOf"]) is JsonArray choices)
        {
            var all = choices.Select(choice => Compare(choice!, value, at)).ToArray();
            return all.Contains(null) ? null : all[^1];
        }

        var kind = value?.GetValueKind() switch
        {
            null => "null",
            JsonValueKind.Object => "object",
            JsonValueKind.Array => "array",
            JsonValueKind.String => "string",
            JsonValueKind.True or JsonValueKind.False => "boolean",
            _ => "number",
        };
        var types = schema["type"] is JsonArray several ? several.Select(each => (string)each!).ToArray() : schema["type"] is { } one ? [(string)one!] : [];
        if (types.Length > 0 && !types.Contains(kind) && !(kind == "number" && types.Contains("integer"))) return $"{at} is a {kind}, in the document {string.Join('|', types)}";
        if (value is JsonArray items && schema["items"] is { } item)
        {
            return items.Select((each, i) => Compare(item, each, $"{at}[{i}]")).FirstOrDefault(why => why is not null);
        }

        if (value is not JsonObject members || schema["properties"] is not JsonObject properties) return null;
        var missing = (schema["required"]?.AsArray() ?? []).FirstOrDefault(name => !members.ContainsKey((string)name!));
        if (missing is not null) return $"{at} has no '{missing}', which is required";
        return members.Select(member => properties[member.Key] is { } known ? Compare(known, member.Value, $"{at}.{member.Key}") : $"{at}.{member.Key} is not in the document")
            .FirstOrDefault(why => why is not null);
    }
}
