using YamlDotNet.Serialization;

namespace Tensormesh.TestKit;

/// <summary>One alert of manifests/monitoring, as its file has it.</summary>
/// <param name="File">Without its ending.</param>
public sealed record AlertRule(string File, string Name, string Expression, string Severity, IReadOnlyDictionary<string, string> Annotations)
{
    public static string Folder => Repository.Folder("manifests", "monitoring");

    /// <summary>The plain rule files, without their endings.</summary>
    public static IReadOnlyList<string> Files { get; } =
        [.. Directory.GetFiles(Folder, "*-alerts.yaml").Select(file => Path.GetFileNameWithoutExtension(file)).Order(StringComparer.Ordinal)];

    public static IReadOnlyList<AlertRule> All { get; } = [.. Files.SelectMany(Read)];

    private static IEnumerable<AlertRule> Read(string file)
    {
        var rules = new DeserializerBuilder().IgnoreUnmatchedProperties().Build().Deserialize<RuleFile>(System.IO.File.ReadAllText(Path.Combine(Folder, file + ".yaml")));
        return rules.groups.SelectMany(group => group.rules)
            .Select(rule => new AlertRule(file, rule.alert, rule.expr, rule.labels.GetValueOrDefault("severity", ""), rule.annotations));
    }

#pragma warning disable CS0649, IDE1006, CA1812 // Filled in by name.
    private sealed class RuleFile
    {
        public List<RuleGroup> groups { get; set; } = [];
    }

    private sealed class RuleGroup
    {
        public List<RuleText> rules { get; set; } = [];
    }

    private sealed class RuleText
    {
        public string alert { get; set; } = "";
        public string expr { get; set; } = "";
        public Dictionary<string, string> labels { get; set; } = [];
        public Dictionary<string, string> annotations { get; set; } = [];
    }
#pragma warning restore CS0649, IDE1006, CA1812
}
