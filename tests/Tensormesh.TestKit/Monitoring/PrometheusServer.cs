using System.Text.Json.Nodes;

namespace Tensormesh.TestKit;

/// <summary>A real Prometheus that scrapes each second, with the product's alerts as its rules.</summary>
public sealed class PrometheusServer : IAsyncDisposable
{
    private static readonly TimeSpan StartLimit = TimeSpan.FromMinutes(1);

    private readonly DevProcess process;
    private readonly HttpClient http;

    private PrometheusServer(DevProcess process, Uri url)
    {
        this.process = process;
        http = new HttpClient { BaseAddress = url, Timeout = TimeSpan.FromSeconds(20) };
    }

    /// <param name="targets">Where each job's metrics are.</param>
    public static async Task<PrometheusServer> StartAsync(
        DevCluster cluster, IReadOnlyDictionary<string, Uri> targets, Action<string> say, CancellationToken cancellation)
    {
        var program = await PrometheusPackage.PrometheusAsync(say, cancellation);
        var folder = Directory.CreateDirectory(Path.Combine(cluster.StateDirectory, "prometheus")).FullName;
        var configuration = new JsonObject
        {
            ["global"] = new JsonObject { ["scrape_interval"] = "1s", ["evaluation_interval"] = "1s" },
            ["rule_files"] = new JsonArray([.. AlertRule.Files.Select(file => JsonValue.Create(Path.Combine(AlertRule.Folder, file + ".yaml")))]),
            ["scrape_configs"] = new JsonArray([.. targets.Select(target => new JsonObject
            {
                ["job_name"] = target.Key,
                ["honor_labels"] = true,
                ["metrics_path"] = target.Value.AbsolutePath,
                ["static_configs"] = new JsonArray(new JsonObject { ["targets"] = new JsonArray(target.Value.Authority) }),
            })]),
        };
        // JSON is YAML.
        var file = Path.Combine(folder, "prometheus.yaml");
        await File.WriteAllTextAsync(file, configuration.ToJsonString(), cancellation);
        var url = new Uri($"http://127.0.0.1:{FreePorts.Take(1)[0]}");
        var process = await DevProcess.StartAsync(cluster.Record, "prometheus", program,
            [$"--config.file={file}", $"--storage.tsdb.path={Path.Combine(folder, "data")}", $"--web.listen-address={url.Authority}"]);
        var server = new PrometheusServer(process, url);
        try
        {
            await Installation.WaitForHttpAsync(process, new Uri(url, "/-/ready"), cancellation);
            return server;
        }
        catch
        {
            await server.DisposeAsync();
            throw;
        }
    }

    /// <summary>The values of an instant query, one for each series; none where there is no data.</summary>
    /// <exception cref="InvalidOperationException">Prometheus refused the expression.</exception>
    public async Task<IReadOnlyList<double>> QueryAsync(string expression, CancellationToken cancellation)
    {
        using var form = new FormUrlEncodedContent([KeyValuePair.Create("query", expression)]);
        using var response = await http.PostAsync(new Uri("/api/v1/query", UriKind.Relative), form, cancellation);
        var answer = JsonNode.Parse(await response.Content.ReadAsStringAsync(cancellation))!;
        if ((string?)answer["status"] != "success") throw new InvalidOperationException($"{expression}: {answer["error"]}");
        var result = answer["data"]!["result"]!.AsArray();
        // A scalar is a pair of an instant and a value itself; a vector has such a pair for each series.
        var pairs = (string?)answer["data"]!["resultType"] == "scalar" ? [result] : result.Select(series => series!["value"]!.AsArray());
        return [.. pairs.Select(pair => Value((string)pair[1]!))];
    }

    /// <summary>Each rule that is loaded, with its state (inactive, pending, firing) and what was wrong with it, if anything.</summary>
    public async Task<IReadOnlyList<(string Name, string State, string? Error)>> RulesAsync(CancellationToken cancellation)
    {
        var answer = JsonNode.Parse(await http.GetStringAsync(new Uri("/api/v1/rules", UriKind.Relative), cancellation))!;
        return
        [
            .. answer["data"]!["groups"]!.AsArray().SelectMany(group => group!["rules"]!.AsArray())
                .Select(rule => ((string)rule!["name"]!, (string)rule["state"]!, (string?)rule["health"] == "ok" ? null : $"{rule["health"]} {rule["lastError"]}")),
        ];
    }

    private static double Value(string text) => text switch
    {
        "+Inf" => double.PositiveInfinity,
        "-Inf" => double.NegativeInfinity,
        _ => double.Parse(text, System.Globalization.CultureInfo.InvariantCulture),
    };

    public async ValueTask DisposeAsync()
    {
        http.Dispose();
        await process.StopAsync(StartLimit);
        await process.DisposeAsync();
    }
}
