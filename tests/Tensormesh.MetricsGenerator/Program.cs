using Tensormesh.MetricsGenerator;

// dotnet run --project tests/Tensormesh.MetricsGenerator -- .
if (args is not [var root])
{
    Console.Error.WriteLine("usage: Tensormesh.MetricsGenerator ROOT: writes docs/metrics.md from the instruments, and manifests/monitoring/prometheus-rules.yaml from the alerts");
    return 2;
}

foreach (var (file, text) in (ReadOnlySpan<(string, string)>)[(MetricsDocument.File, MetricsDocument.Render()), (PrometheusRules.File, PrometheusRules.Render(root))])
{
    File.WriteAllText(Path.Combine(root, file), text);
    Console.WriteLine(file);
}

return 0;
