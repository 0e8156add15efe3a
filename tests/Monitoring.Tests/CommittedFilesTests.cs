using Tensormesh.MetricsGenerator;
using Tensormesh.TestKit;
using YamlDotNet.Serialization;

namespace Tensormesh.Monitoring.Tests;

/// <summary>What is committed is what the code and its neighbours say.</summary>
public sealed class CommittedFilesTests
{
    [Fact]
    public void The_document_of_metrics_is_what_the_instruments_say() => AssertWritten(MetricsDocument.File, MetricsDocument.Render());

    [Fact]
    public void The_PrometheusRule_holds_the_alerts_of_the_plain_files() => AssertWritten(PrometheusRules.File, PrometheusRules.Render(Repository.Root));

    [Fact]
    public void Every_instrument_has_help_and_a_name_that_says_how_it_counts() => Assert.All(
        MetricsDocument.Executables().SelectMany(each => each.Instruments), each =>
        {
            Assert.StartsWith("tensormesh_", each.Name, StringComparison.Ordinal);
            Assert.EndsWith(".", each.Help, StringComparison.Ordinal);
            Assert.Equal(each.Kind == "counter", each.Name.EndsWith("_total", StringComparison.Ordinal));
            Assert.False(each.Kind == "histogram" && each.Unit.Length == 0);
        });

    [Fact]
    public void The_kustomization_names_files_that_are_there_and_every_dashboard()
    {
        var component = Read("kustomization.yaml").Single();
        Assert.Equal("Component", component["kind"]);
        var generator = (Dictionary<object, object>)((List<object>)component["configMapGenerator"]).Single();
        List<string> dashboards = [.. ((List<object>)generator["files"]).Cast<string>()];
        Assert.All([.. ((List<object>)component["resources"]).Cast<string>(), .. dashboards], file => Assert.True(File.Exists(Path.Combine(AlertRule.Folder, file)), file));
        Assert.Equal(Dashboard.All.Select(each => $"dashboards/{each.File}.json"), dashboards.Order(StringComparer.Ordinal));
    }

    [Fact]
    public void Each_executable_is_scraped_where_it_serves_metrics_and_its_own_labels_stay()
    {
        var monitors = Read("pod-monitors.yaml").ToDictionary(each => (string)At(each, "metadata", "name"), each => each);
        Assert.Equal(MetricsDocument.Executables().Select(each => each.Executable), monitors.Keys);
        foreach (var (name, port) in ((string, string)[])[("tensormesh-operator", "metrics"), ("tensormesh-web", "metrics"), ("tensormesh-agent", "http")])
        {
            Assert.Equal("tensormesh-system", At(monitors[name], "metadata", "namespace"));
            Assert.Equal(name, At(monitors[name], "spec", "selector", "matchLabels", "app.kubernetes.io/name"));
            var endpoint = (Dictionary<object, object>)((List<object>)At(monitors[name], "spec", "podMetricsEndpoints")).Single();
            Assert.Equal((port, "/metrics", "true"), (endpoint["port"], endpoint["path"], endpoint["honorLabels"]));
        }
    }

    private static void AssertWritten(string file, string text) => Assert.True(
        File.ReadAllText(Repository.Folder(file)) == text, $"{file} is not what the code says: run `make metrics` and commit it");

    private static List<Dictionary<object, object>> Read(string file) =>
    [
        .. File.ReadAllText(Path.Combine(AlertRule.Folder, file)).Split("\n---\n").Select(new DeserializerBuilder().Build().Deserialize<Dictionary<object, object>>),
    ];

    private static object At(Dictionary<object, object> document, params string[] path) => path.Aggregate((object)document, (node, key) => ((Dictionary<object, object>)node)[key]);
}
