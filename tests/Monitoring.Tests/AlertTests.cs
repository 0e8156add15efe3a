using Tensormesh.TestKit;
using YamlDotNet.Serialization;

namespace Tensormesh.Monitoring.Tests;

public sealed class AlertTests
{
    private static readonly string[] Severities = ["critical", "warning", "info"];

    public static TheoryData<string> Files => [.. AlertRule.Files];

    [Theory]
    [MemberData(nameof(Files))]
    public async Task Each_alert_fires_when_it_should_and_only_then(string file)
    {
        var promtool = await PrometheusPackage.PromtoolAsync(Console.WriteLine, TestContext.Current.CancellationToken);
        var rules = Path.Combine(AlertRule.Folder, $"{file}.yaml");
        using var folder = new ScratchFolder();
        File.Copy(rules, Path.Combine(folder.Path, $"{file}.yaml"));
        File.Copy(TestsOf(file), Path.Combine(folder.Path, "test.yaml"));

        var (checkedCode, report) = await Command.TryRunAsync(promtool, ["check", "rules", rules], line: null, TestContext.Current.CancellationToken);
        Assert.True(checkedCode == 0, report);
        var (code, output) = await Command.TryRunAsync(promtool, ["test", "rules", Path.Combine(folder.Path, "test.yaml")], line: null, TestContext.Current.CancellationToken);
        Assert.True(code == 0, output);
    }

    [Fact]
    public void Each_alert_is_tested_while_it_fires_and_while_it_is_silent()
    {
        var cases = AlertRule.Files.SelectMany(file => new DeserializerBuilder().IgnoreUnmatchedProperties().Build().Deserialize<RuleTests>(File.ReadAllText(TestsOf(file))).tests)
            .SelectMany(test => test.alert_rule_test).ToLookup(test => test.alertname, test => test.exp_alerts.Count > 0);
        Assert.All(AlertRule.All, alert => Assert.Equal([false, true], cases[alert.Name].Distinct().Order()));
    }

    [Fact]
    public void Each_alert_says_how_bad_it_is_and_what_it_is_and_leads_to_a_section_of_the_runbook()
    {
        var sections = File.ReadLines(Repository.Folder("docs", "runbook.md")).Where(line => line.StartsWith("## ", StringComparison.Ordinal))
            .Select(Anchor).ToHashSet(StringComparer.Ordinal);
        Assert.All(AlertRule.All, alert =>
        {
            Assert.Contains(alert.Severity, Severities);
            Assert.NotEmpty(alert.Annotations["summary"]);
            var link = alert.Annotations["runbook"].Split('#');
            Assert.Equal("docs/runbook.md", link[0]);
            Assert.Contains(link[1], sections);
        });
        Assert.Equal(AlertRule.All.Count, AlertRule.All.DistinctBy(alert => alert.Name).Count());
    }

    [Theory]
    [InlineData("max(a) > 0", "max(a)")]
    [InlineData("(max(a) or vector(0)) < 1", "(max(a) or vector(0))")]
    [InlineData("sum by (x) (rate(a{b=\"1 > 0\",c=~\"d|e\"}[5m])) > 0.9", "sum by (x) (rate(a{b=\"1 > 0\",c=~\"d|e\"}[5m]))")]
    [InlineData("increase(a[15m]) > 0 and on() (max(b) - max(b offset 15m)) == 0", "increase(a[15m])", "(max(b) - max(b offset 15m))")]
    [InlineData("a / b >= c", "a / b", "c")]
    [InlineData("sum(operand)", "sum(operand)")]
    public void What_an_alert_compares_is_found(string expression, params string[] operands) => Assert.Equal(operands, PromQl.Operands(expression));

    private static string TestsOf(string file) => Repository.Folder("tests", "Monitoring.Tests", "alerts", $"{file}.test.yaml");

    /// <summary>As GitHub makes them: letters, digits, dashes and underscores, in lower case, blanks as dashes.</summary>
    private static string Anchor(string heading) => string.Concat(
        heading[3..].ToLowerInvariant().Select(letter => letter == ' ' ? '-' : letter).Where(letter => char.IsLetterOrDigit(letter) || letter is '-' or '_'));

#pragma warning disable IDE1006 // Filled in by name.
    private sealed class RuleTests
    {
        public List<RuleTest> tests { get; set; } = [];
    }

    private sealed class RuleTest
    {
        public List<AlertCase> alert_rule_test { get; set; } = [];
    }

    private sealed class AlertCase
    {
        public string alertname { get; set; } = "";
        public List<object> exp_alerts { get; set; } = [];
    }
#pragma warning restore IDE1006
}
