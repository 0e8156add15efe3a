using System.Text;

namespace Tensormesh.MetricsGenerator;

/// <summary>The alerts once more, as the prometheus-operator reads them: the groups of all plain rule files in one object.</summary>
public static class PrometheusRules
{
    public const string Folder = "manifests/monitoring";
    public const string File = Folder + "/prometheus-rules.yaml";
    public const string Alerts = "*-alerts.yaml";
    private const string Groups = "groups:";

    public static string Render(string root)
    {
        var text = new StringBuilder("""
            # Written by `make metrics` from the *-alerts.yaml beside it, which Prometheus itself reads (rule_files).
            apiVersion: monitoring.coreos.com/v1
            kind: PrometheusRule
            metadata:
              name: tensormesh
              namespace: tensormesh-system
              labels: {app.kubernetes.io/part-of: tensormesh}
            spec:
              groups:

            """);
        foreach (var file in Directory.GetFiles(Path.Combine(root, Folder), Alerts).Order(StringComparer.Ordinal))
        {
            foreach (var line in System.IO.File.ReadLines(file).SkipWhile(line => line != Groups).Skip(1)) text.Append(line.Length > 0 ? $"  {line}\n" : "\n");
        }

        return text.ToString();
    }
}
