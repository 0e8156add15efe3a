using System.Text.Json.Nodes;
using Tensormesh.Resources;

namespace Tensormesh.CrdGenerator;

/// <summary>Schemas of the Kubernetes types that our types contain.</summary>
internal static class KubernetesSchemas
{
    /// <summary>
    /// A pod template of which only what our rules touch is spelled out: the whole of it would be hundreds of kilobytes, and would
    /// cut off fields that a newer Kubernetes has. Each level keeps what it does not know.
    /// </summary>
    public static JsonObject PodTemplate() => Open("", ["spec"], new()
    {
        ["metadata"] = Open("Labels and annotations of the pods.", [], new()
        {
            ["labels"] = Strings("Labels of the pods."),
            ["annotations"] = Strings("Annotations of the pods."),
        }),
        ["spec"] = Open("The pods' spec, as in a Deployment.", ["containers"], new()
        {
            ["containers"] = Containers("The pods' containers, at least one.", minItems: 1),
            ["initContainers"] = Containers("Containers that run to their end before the others start. They get no GPUs.", minItems: 0),
            ["restartPolicy"] = new JsonObject
            {
                ["type"] = "string",
                ["description"] = "Always: a GpuDeployment keeps its pods running.",
                ["enum"] = new JsonArray("Always"),
            },
        }),
    });

    /// <summary>As meta/v1 has it.</summary>
    public static JsonObject Condition() => new()
    {
        ["type"] = "object",
        ["required"] = new JsonArray("type", "status", "lastTransitionTime", "reason", "message"),
        ["properties"] = new JsonObject
        {
            ["type"] = Text("What this is about, in CamelCase.", 316,
                @"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$"),
            ["status"] = new JsonObject
            {
                ["type"] = "string",
                ["description"] = "Whether it is so.",
                ["enum"] = new JsonArray("True", "False", "Unknown"),
            },
            ["reason"] = Text("Why, as one word in CamelCase for programs.", 1024, "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"),
            ["message"] = Text("Why, for people, and what to do.", 32768),
            ["observedGeneration"] = new JsonObject
            {
                ["type"] = "integer",
                ["format"] = "int64",
                ["description"] = "The metadata.generation that this condition is about.",
                ["minimum"] = 0,
            },
            ["lastTransitionTime"] = new JsonObject
            {
                ["type"] = "string",
                ["format"] = "date-time",
                ["description"] = "When the status last changed.",
            },
        },
    };

    private static JsonObject Containers(string description, int minItems)
    {
        var list = new JsonObject { ["type"] = "array", ["description"] = description };
        if (minItems > 0)
        {
            list["minItems"] = minItems;
        }

        list["maxItems"] = Formats.MaxContainers;
        list["x-kubernetes-list-type"] = "map";
        list["x-kubernetes-list-map-keys"] = new JsonArray("name");
        list["items"] = Open("A container, as in a Deployment.", ["name"], new()
        {
            ["name"] = Text("The container's name.", Formats.ContainerNameMaxLength, Formats.ContainerName),
            ["image"] = new JsonObject { ["type"] = "string", ["description"] = "The image to run." },
            ["resources"] = Open("CPU and memory. GPUs are asked for in spec.gpu.count only.", [], new()
            {
                ["limits"] = Amounts("The most that the container may use."),
                ["requests"] = Amounts("What the container is sure to get."),
            }),
        });
        return list;
    }

    private static JsonObject Amounts(string description) => new()
    {
        ["type"] = "object",
        ["description"] = description,
        ["maxProperties"] = Formats.MaxResourcesPerContainer,
        ["additionalProperties"] = new JsonObject
        {
            ["anyOf"] = new JsonArray(new JsonObject { ["type"] = "integer" }, new JsonObject { ["type"] = "string" }),
            ["x-kubernetes-int-or-string"] = true,
            ["pattern"] = Formats.Quantity,
        },
        ["x-kubernetes-validations"] = new JsonArray(new JsonObject
        {
            ["rule"] = $"self.all(name, !name.startsWith('{Formats.GpuResourcePrefix}'))",
            ["message"] = Messages.OwnGpus,
        }),
    };

    private static JsonObject Open(string description, string[] required, JsonObject properties)
    {
        var schema = new JsonObject { ["type"] = "object", ["description"] = description };
        if (required.Length > 0)
        {
            schema["required"] = new JsonArray([.. required.Select(name => JsonValue.Create(name))]);
        }

        schema["x-kubernetes-preserve-unknown-fields"] = true;
        schema["properties"] = properties;
        return schema;
    }

    private static JsonObject Strings(string description) => new()
    {
        ["type"] = "object",
        ["description"] = description,
        ["additionalProperties"] = new JsonObject { ["type"] = "string" },
    };

    private static JsonObject Text(string description, int maxLength, string? pattern = null)
    {
        var schema = new JsonObject { ["type"] = "string", ["description"] = description, ["maxLength"] = maxLength };
        if (pattern is not null)
        {
            schema["pattern"] = pattern;
        }

        return schema;
    }
}
