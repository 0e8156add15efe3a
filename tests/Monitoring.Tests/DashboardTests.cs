using System.Text.Json.Nodes;
using Tensormesh.MetricsGenerator;
using Tensormesh.TestKit;

namespace Tensormesh.Monitoring.Tests;

public sealed class DashboardTests
{
    private static readonly Dictionary<string, string> Variables = new()
    {
        ["__rate_interval"] = "1m",
        ["__range"] = "1h",
        ["namespace"] = "team-a",
        ["deployment"] = ".+",
    };

    [Fact]
    public void Each_dashboard_has_an_identity_and_each_panel_says_what_it_shows_in_which_unit_and_from_where()
    {
        Assert.Equal(["customer", "platform"], Dashboard.All.Select(dashboard => dashboard.File));
        Assert.Equal(Dashboard.All.Count, Dashboard.All.Select(dashboard => (string?)dashboard.Json["uid"]).Where(uid => uid is { Length: > 0 and <= 40 }).Distinct().Count());
        Assert.All(Dashboard.All, dashboard =>
        {
            Assert.NotEmpty((string)dashboard.Json["title"]!);
            Assert.InRange((int)dashboard.Json["schemaVersion"]!, 36, 100);
            Assert.Equal("prometheus", (string?)Variable(dashboard, "datasource")["query"]);
            var ids = dashboard.Panels.Select(panel => (int)panel["id"]!).ToList();
            Assert.Equal(ids.Count, ids.Distinct().Count());
            Assert.All(dashboard.Shown, panel =>
            {
                Assert.NotEmpty((string)panel["title"]!);
                Assert.NotEmpty((string)panel["fieldConfig"]!["defaults"]!["unit"]!);
                Assert.Equal("${datasource}", (string?)panel["datasource"]!["uid"]);
                Assert.NotEmpty(panel["targets"]!.AsArray());
                var references = panel["targets"]!.AsArray().Select(target => (string)target!["refId"]!).ToList();
                Assert.Equal(references.Count, references.Distinct().Count());
            });
            var titles = dashboard.Shown.Select(panel => (string)panel["title"]!).ToList();
            Assert.Equal(titles.Count, titles.Distinct().Count());
        });
    }

    [Fact]
    public void The_customers_dashboard_shows_one_namespace_and_deployments_of_it()
    {
        var customer = Dashboard.All.Single(dashboard => dashboard.File == "customer");
        Assert.Contains("label_values", (string?)Variable(customer, "namespace")["query"], StringComparison.Ordinal);
        Assert.Contains("$namespace", (string?)Variable(customer, "deployment")["query"], StringComparison.Ordinal);
        Assert.All(customer.Targets, target => Assert.Contains("namespace=\"$namespace\"", target.Expression, StringComparison.Ordinal));
        Assert.All(customer.Targets, target => Assert.Contains("$deployment", target.Expression, StringComparison.Ordinal));
    }

    [Fact]
    public void Dashboards_and_alerts_ask_for_nothing_that_no_executable_shows()
    {
        var names = MetricsDocument.Executables().SelectMany(each => each.Instruments).SelectMany(Series).ToHashSet(StringComparer.Ordinal);
        Assert.All(Dashboard.All.SelectMany(dashboard => dashboard.Targets).Select(target => target.Expression).Concat(AlertRule.All.Select(alert => alert.Expression)), expression =>
            Assert.All(PromQl.Selectors(expression), selector => Assert.Contains(selector.Split('{')[0], names)));
    }

    [Fact]
    public async Task Prometheus_can_read_every_expression()
    {
        var expressions = Dashboard.All.SelectMany(dashboard => dashboard.Targets).Select(target => target.With(Variables))
            .Concat(AlertRule.All.SelectMany(alert => PromQl.Operands(alert.Expression).Concat(PromQl.Selectors(alert.Expression)))).ToList();
        Assert.DoesNotContain(expressions, expression => expression.Contains('$', StringComparison.Ordinal));
        var rules = new JsonObject
        {
            ["groups"] = new JsonArray(new JsonObject
            {
                ["name"] = "all",
                // JSON is YAML, and a rule that records an expression is checked like one that alerts.
                ["rules"] = new JsonArray([.. expressions.Select((expression, i) => new JsonObject { ["record"] = $"expression:{i}", ["expr"] = expression })]),
            }),
        };
        using var folder = new ScratchFolder();
        var file = Path.Combine(folder.Path, "expressions.yaml");
        await File.WriteAllTextAsync(file, rules.ToJsonString(), TestContext.Current.CancellationToken);
        var promtool = await PrometheusPackage.PromtoolAsync(Console.WriteLine, TestContext.Current.CancellationToken);
        var (code, output) = await Command.TryRunAsync(promtool, ["check", "rules", file], line: null, TestContext.Current.CancellationToken);
        Assert.True(code == 0, output);
        Assert.Contains($"{expressions.Count} rules found", output, StringComparison.Ordinal);
    }

    private static IEnumerable<string> Series(Instrument instrument) =>
        instrument.Kind == "histogram" ? [$"{instrument.Name}_bucket", $"{instrument.Name}_sum", $"{instrument.Name}_count"] : [instrument.Name];

    private static JsonNode Variable(Dashboard dashboard, string name) =>
        dashboard.Json["templating"]!["list"]!.AsArray().Single(variable => (string?)variable!["name"] == name)!;
}
