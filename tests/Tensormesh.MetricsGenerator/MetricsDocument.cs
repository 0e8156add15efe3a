using System.Reflection;
using System.Text;
using Prometheus;
using Tensormesh.Agent.Telemetry;
using Tensormesh.Operator.Telemetry;
using Tensormesh.Web;

namespace Tensormesh.MetricsGenerator;

/// <summary>One instrument, as its executable makes it.</summary>
/// <param name="Unit">Empty where it counts.</param>
public sealed record Instrument(string Name, string Kind, string Unit, IReadOnlyList<string> Labels, string Help);

/// <summary>docs/metrics.md: every instrument of every executable, read from the instruments themselves.</summary>
public static class MetricsDocument
{
    public const string File = "docs/metrics.md";

    /// <summary>The last word of a name that says in what it is measured, and the unit.</summary>
    private static readonly (string Word, string Unit)[] Units =
    [
        ("timestamp_seconds", "seconds since 1970"), ("seconds", "seconds"), ("dollars", "dollars"), ("bytes", "bytes"), ("ratio", "0 to 1"), ("watts", "watts"), ("celsius", "°C"),
    ];

    public static IReadOnlyList<(string Executable, string About, IReadOnlyList<Instrument> Instruments)> Executables()
    {
        var registry = Metrics.NewCustomRegistry();
        return
        [
            ("tensormesh-operator", "At `Tensormesh__MetricsUrl`, port 8080 (`metrics`). Of several operators only the one that leads counts what it does; its standby shows what it sees.",
                Of(new OperatorMetrics(registry))),
            ("tensormesh-web", "At `Tensormesh__MetricsUrl`, port 8081 (`metrics`); no metrics where that is not set. Beside these it shows .NET's own `dotnet_*` and `process_*`.",
                Of(new WebMetrics())),
            ("tensormesh-agent", "At `Tensormesh__Agent__MetricsUrl`, port 8081 (`http`), on every GPU node.",
                Of(new AgentMetrics(Metrics.NewCustomRegistry(), TimeProvider.System))),
        ];
    }

    public static string Render()
    {
        var text = new StringBuilder("""
            # Metrics

            Written by `make metrics` from the instruments themselves; change them, not this file. Metrics are for people and their alerts: nothing is billed
            from them. No label takes what a caller writes, and none grows with the number of accounts: money by account is in `GET /v1/billing/standing`, in
            the status of each BillingAccount and on the Billing page. Labels that name pods, deployments or GPUs are shown only while a GPU is held, so there
            are no more of them than GPUs.

            Alerts on them are in [manifests/monitoring](../manifests/monitoring), dashboards beside them, and what to do in the [runbook](runbook.md).

            """);
        foreach (var (executable, about, instruments) in Executables())
        {
            text.Append($"\n## {executable}\n\n{about}\n\n| Name | Kind | Unit | Labels | Meaning |\n|---|---|---|---|---|\n");
            foreach (var each in instruments)
            {
                text.Append($"| `{each.Name}` | {each.Kind} | {each.Unit} | {string.Join(", ", each.Labels.Select(label => $"`{label}`"))} | {each.Help} |\n");
            }
        }

        return text.ToString();
    }

    private static List<Instrument> Of(object metrics) =>
    [
        .. metrics.GetType().GetProperties(BindingFlags.Instance | BindingFlags.Public | BindingFlags.NonPublic)
            .Select(property => property.GetValue(metrics)).OfType<Collector>()
            .Select(each => new Instrument(each.Name, each.GetType().Name.ToLowerInvariant(), UnitOf(each.Name), each.LabelNames, each.Help))
            .OrderBy(each => each.Name, StringComparer.Ordinal),
    ];

    private static string UnitOf(string name)
    {
        var measured = name.EndsWith("_total", StringComparison.Ordinal) ? name[..^"_total".Length] : name;
        return Units.FirstOrDefault(each => measured.EndsWith("_" + each.Word, StringComparison.Ordinal)).Unit ?? "";
    }
}
