using System.Globalization;
using System.Text.Json.Nodes;
using YamlDotNet.Core;
using YamlDotNet.RepresentationModel;

namespace Resources.Tests;

/// <summary>YAML as the API server reads it: into JSON, with quotes deciding what is text.</summary>
internal static class Yaml
{
    public static IEnumerable<JsonObject> Documents(string text)
    {
        var stream = new YamlStream();
        stream.Load(new StringReader(text));
        // A trip through text, because only numbers that were read from text convert to every number type.
        return stream.Documents.Select(document => JsonNode.Parse(ToJson(document.RootNode)!.ToJsonString())!.AsObject());
    }

    private static JsonNode? ToJson(YamlNode node) => node switch
    {
        YamlMappingNode map => new JsonObject(
            map.Select(pair => KeyValuePair.Create(((YamlScalarNode)pair.Key).Value!, ToJson(pair.Value)))),
        YamlSequenceNode list => new JsonArray([.. list.Select(ToJson)]),
        YamlScalarNode { Style: not ScalarStyle.Plain } text => JsonValue.Create(text.Value),
        YamlScalarNode { Value: "true" or "false" } flag => JsonValue.Create(flag.Value == "true"),
        YamlScalarNode { Value: "" or "null" or "~" } => null,
        YamlScalarNode plain when long.TryParse(plain.Value, CultureInfo.InvariantCulture, out var whole) => JsonValue.Create(whole),
        YamlScalarNode plain when double.TryParse(plain.Value, CultureInfo.InvariantCulture, out var number) => JsonValue.Create(number),
        YamlScalarNode plain => JsonValue.Create(plain.Value),
        _ => throw new InvalidDataException($"no JSON for {node}"),
    };
}
