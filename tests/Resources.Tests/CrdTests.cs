using System.Text.Json.Nodes;
using Tensormesh.CrdGenerator;

namespace Resources.Tests;

public sealed class CrdTests
{
    public static TheoryData<string> Kinds => [.. CustomResourceDefinitions.Kinds.Select(kind => kind.Name)];

    [Fact]
    public void The_committed_CRDs_are_what_the_types_say()
    {
        var expected = CustomResourceDefinitions.Files().ToList();

        Assert.Equal(
            expected.Select(file => file.File).Order(),
            Directory.GetFiles(Path.Combine(Repository.Root, "crds")).Select(Path.GetFileName).Where(file => file != "kustomization.yaml").Order());
        Assert.All(expected, file => Assert.True(
            file.Yaml == Repository.Text($"crds/{file.File}"),
            $"crds/{file.File} is not what the types of src/Tensormesh.Resources say: run `{CustomResourceDefinitions.Command}` and commit"));
    }

    [Theory]
    [MemberData(nameof(Kinds))]
    public void The_yaml_says_what_was_generated(string kind)
    {
        var definition = CustomResourceDefinitions.Definition(CustomResourceDefinitions.Kinds.Single(type => type.Name == kind));
        var file = $"crds/{definition["spec"]!["names"]!["plural"]}.yaml";

        Assert.True(JsonNode.DeepEquals(Normal(definition), Yaml.Documents(Repository.Text(file)).Single()), file);
    }

    [Theory]
    [MemberData(nameof(Kinds))]
    public void Every_field_has_a_description(string kind)
    {
        var definition = CustomResourceDefinitions.Definition(CustomResourceDefinitions.Kinds.Single(type => type.Name == kind));
        var schema = definition["spec"]!["versions"]![0]!["schema"]!["openAPIV3Schema"]!;

        Assert.Empty(Undescribed(schema.AsObject(), ""));
    }

    // Numbers made in code and numbers read from text are equal only after a trip through text.
    private static JsonNode Normal(JsonNode node) => JsonNode.Parse(node.ToJsonString())!;

    private static IEnumerable<string> Undescribed(JsonObject schema, string path)
    {
        var children = (schema["properties"]?.AsObject() ?? [])
            .Select(field => (Schema: field.Value!.AsObject(), Path: $"{path}.{field.Key}"));
        foreach (var child in children.Where(child => child.Path != ".metadata"))
        {
            var described = child.Schema["description"] is JsonValue text && ((string)text!).EndsWith('.');
            foreach (var missing in Undescribed(child.Schema, child.Path).Concat(described ? [] : [child.Path]))
            {
                yield return missing;
            }
        }

        foreach (var missing in schema["items"] is JsonObject items ? Undescribed(items, $"{path}[]") : [])
        {
            yield return missing;
        }
    }
}
