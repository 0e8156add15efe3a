using System.Reflection;
using System.Text.Json.Nodes;
using k8s.Models;
using Tensormesh.Resources;

namespace Tensormesh.CrdGenerator;

/// <summary>The CRDs as the C# types state them.</summary>
public static class CustomResourceDefinitions
{
    public const string Command = "dotnet run --project tests/Tensormesh.CrdGenerator -- crds";

    private const string Heading = $"""
        # Written from the types of src/Tensormesh.Resources: change those, then run
        #   {Command}
        # API servers before 1.25 run no CEL: they drop x-kubernetes-validations, and kubectl needs `apply --validate=false` for them.
        # The webhook and the operator refuse the same there.

        """;

    public static IReadOnlyList<Type> Kinds { get; } = [typeof(GpuDeployment), typeof(BillingAccount), typeof(PriceBook), typeof(GpuNode)];

    /// <summary>File name and content of each kind, the same on every run and machine.</summary>
    public static IEnumerable<(string File, string Yaml)> Files() =>
        Kinds.Select(kind => ($"{Entity(kind).PluralName}.yaml", Heading + YamlText.Write(Definition(kind))));

    /// <summary>One kind's CustomResourceDefinition, keys in the order in which people read them.</summary>
    public static JsonObject Definition(Type kind)
    {
        var entity = Entity(kind);
        var resource = kind.GetCustomAttribute<CustomResourceAttribute>()
            ?? throw new InvalidOperationException($"{kind.Name} lacks [CustomResource]");
        return new()
        {
            ["apiVersion"] = "apiextensions.k8s.io/v1",
            ["kind"] = "CustomResourceDefinition",
            ["metadata"] = new JsonObject { ["name"] = $"{entity.PluralName}.{entity.Group}" },
            ["spec"] = new JsonObject
            {
                ["group"] = entity.Group,
                ["scope"] = resource.Namespaced ? "Namespaced" : "Cluster",
                ["names"] = new JsonObject
                {
                    ["kind"] = entity.Kind,
                    ["listKind"] = $"{entity.Kind}List",
                    ["plural"] = entity.PluralName,
                    ["singular"] = resource.Singular,
                    ["shortNames"] = new JsonArray(resource.ShortName),
                    ["categories"] = new JsonArray("tensormesh"),
                },
                ["versions"] = new JsonArray(new JsonObject
                {
                    ["name"] = entity.ApiVersion,
                    ["served"] = true,
                    ["storage"] = true,
                    ["subresources"] = Subresources(resource),
                    ["additionalPrinterColumns"] = new JsonArray([.. kind.GetCustomAttributes<ColumnAttribute>().Select(Column)]),
                    ["schema"] = new JsonObject { ["openAPIV3Schema"] = TypeSchema.OfKind(kind) },
                }),
            },
        };
    }

    private static KubernetesEntityAttribute Entity(Type kind) =>
        kind.GetCustomAttribute<KubernetesEntityAttribute>() ?? throw new InvalidOperationException($"{kind.Name} is no kind");

    private static JsonObject Subresources(CustomResourceAttribute resource)
    {
        var subresources = new JsonObject { ["status"] = new JsonObject() };
        if (resource.Scales)
        {
            subresources["scale"] = new JsonObject
            {
                ["specReplicasPath"] = ".spec.replicas",
                ["statusReplicasPath"] = ".status.replicas",
                ["labelSelectorPath"] = ".status.selector",
            };
        }

        return subresources;
    }

    private static JsonObject Column(ColumnAttribute column)
    {
        var node = new JsonObject { ["name"] = column.Name, ["type"] = column.Type, ["jsonPath"] = column.JsonPath };
        if (column.Priority != 0)
        {
            node["priority"] = column.Priority;
        }

        return node;
    }
}
