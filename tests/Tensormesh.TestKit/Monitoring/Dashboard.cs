using System.Text.Json.Nodes;

namespace Tensormesh.TestKit;

/// <summary>One panel's question to Prometheus, in Grafana's words.</summary>
public sealed record PanelTarget(string Dashboard, string Panel, string Expression)
{
    /// <summary>As Grafana sends it, with a value for each of the dashboard's variables (without their dollar).</summary>
    public string With(IReadOnlyDictionary<string, string> variables)
        // The longest first: one name may begin another.
        => variables.OrderByDescending(each => each.Key.Length).Aggregate(Expression, (text, each) => text.Replace("$" + each.Key, each.Value, StringComparison.Ordinal));
}

/// <summary>A Grafana dashboard of manifests/monitoring/dashboards.</summary>
public sealed record Dashboard(string File, JsonNode Json)
{
    public static IReadOnlyList<Dashboard> All { get; } =
    [
        .. Directory.GetFiles(Repository.Folder("manifests", "monitoring", "dashboards"), "*.json").Order(StringComparer.Ordinal)
            .Select(file => new Dashboard(Path.GetFileNameWithoutExtension(file), JsonNode.Parse(System.IO.File.ReadAllText(file))!)),
    ];

    public IEnumerable<JsonNode> Panels => Json["panels"]!.AsArray().Select(panel => panel!);

    /// <summary>Those that show something, rather than begin a row.</summary>
    public IEnumerable<JsonNode> Shown => Panels.Where(panel => (string?)panel["type"] != "row");

    public IEnumerable<PanelTarget> Targets => Shown.SelectMany(panel => panel["targets"]!.AsArray()
        .Select(target => new PanelTarget(File, (string)panel["title"]!, (string)target!["expr"]!)));
}
