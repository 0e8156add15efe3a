using System.Net.Http.Headers;
using System.Text;
using System.Text.RegularExpressions;
using k8s;
using k8s.Models;
using Tensormesh.Billing;
using Tensormesh.Integration.Tests.Agents;
using Tensormesh.Integration.Tests.Operators;
using Tensormesh.Resources;
using Tensormesh.TestKit;

namespace Tensormesh.Integration.Tests.Monitoring;

/// <summary>A real Prometheus scrapes operator, Web API and agent while there is something to see.</summary>
public sealed partial class ScrapedTests(OperatorFixture product) : OperatorTest(product)
{
    private const string Model = "tests/scraped-model";
    private const int Gpus = 8;

    /// <summary>Here seconds pass where in a cluster minutes do: what looks back is cut accordingly.</summary>
    private const string RateInterval = "1m";

    private static readonly HttpClient Http = new();

    private readonly string node = $"watched-{Guid.NewGuid().ToString("N")[..6]}";
    private readonly MockGpus gpus = MockGpus.OfNode("watched", Gpus);
    private string devices = "";

    [Fact]
    public async Task Promtool_finds_nothing_wrong_with_the_metrics_and_every_panel_and_every_alert_has_data()
    {
        try
        {
            await WatchAsync();
        }
        finally
        {
            // Nobody tells of its GPUs any more, and others count who is silent.
            await IgnoreMissing(Client.CustomObjects.DeleteClusterCustomObjectAsync(WellKnown.Group, WellKnown.Version, GpuNode.PluralName, node, cancellationToken: Ended));
        }
    }

    private async Task WatchAsync()
    {
        await PublishModelAsync();
        await using var kubelet = await FakeKubelet.StartAsync(Path.Combine(Cluster.StateDirectory, "watched.sock"));
        await using var agent = await StartAgentAsync();
        await using var prometheus = await PrometheusServer.StartAsync(
            Cluster,
            new Dictionary<string, Uri>
            {
                ["tensormesh-operator"] = Installation.MetricsUrl,
                ["tensormesh-web"] = Installation.WebMetricsUrl,
                ["tensormesh-agent"] = new Uri(agent.Url, "/metrics"),
            },
            Console.WriteLine, Ended);
        var team = await TellStoryAsync(kubelet);
        await SeeDataAsync(prometheus, team);
        foreach (var url in (Uri[])[Installation.MetricsUrl, Installation.WebMetricsUrl, new Uri(agent.Url, "/metrics")]) await AssertCleanAsync(url);

        // The alerts are loaded as they are, and what the story left behind makes some of them true.
        var rules = await Eventually.SeeAsync(() => prometheus.RulesAsync(Ended), all => all.All(rule => rule.Error is null), all => string.Join("\n", all));
        Assert.Equal(AlertRule.All.Select(alert => alert.Name).Order(StringComparer.Ordinal), rules.Select(rule => rule.Name).Order(StringComparer.Ordinal));
        foreach (var alert in (string[])["TensormeshUnmeteredGpus", "TensormeshGpuUnhealthy", "TensormeshRunwayUnderADay"])
        {
            Assert.NotEqual("inactive", Assert.Single(rules, rule => rule.Name == alert).State);
        }

        Assert.Equal("inactive", Assert.Single(rules, rule => rule.Name == "TensormeshLedgerImbalance").State);
    }

    /// <summary>One deployment runs, one is refused, one loses a GPU, one runs out of money, and a pod of nobody's holds a GPU.</summary>
    private async Task<Team> TellStoryAsync(FakeKubelet kubelet)
    {
        var team = await OpenTeamAsync("15000.00");
        await StartHereAsync(team, "train", gpus: 2);
        Assert.Contains("balance", await RefusalOfAsync(Deployment(team, "huge", replicas: 900)), StringComparison.Ordinal);
        var stray = await Client.CoreV1.CreateNamespacedPodAsync(
            new V1Pod
            {
                Metadata = new V1ObjectMeta { Name = "stray" },
                Spec = new V1PodSpec { NodeName = node, AutomountServiceAccountToken = false, Containers = [new V1Container { Name = "main", Image = DevCluster.WorkloadImage }] },
            }, team.Namespace, cancellationToken: Ended);
        await StartHereAsync(team, "unlucky", gpus: 1);
        var (train, unlucky) = (Assert.Single(await PodsAsync(team, "train")), Assert.Single(await PodsAsync(team, "unlucky")));
        kubelet.Say((team.Namespace, train.Name(), [Uuid(0), Uuid(1)]), (team.Namespace, unlucky.Name(), [Uuid(5)]), (team.Namespace, stray.Name(), [Uuid(7)]));
        await SeeAsync(team, "unlucky", seen => Condition(seen, ConditionTypes.GpuVerified)?.Status == "True");

        gpus.Faults.Add(MockFault.Lost(5));
        gpus.Save(devices);
        await Eventually.SeeAsync(() => RunAsync(unlucky), run => run.ChargeUntil is not null, run => run.ToString());
        await IgnoreMissing(DeleteAsync(team, "unlucky"));

        var poor = await OpenTeamAsync("22.00");
        await StartAsync(poor, "brief");
        await SeeStoppedAsync(poor, "brief", "InsufficientBalance");
        return team;
    }

    /// <summary>Until each expression has given a number once, while the product goes on being used.</summary>
    private async Task SeeDataAsync(PrometheusServer prometheus, Team team)
    {
        var variables = new Dictionary<string, string> { ["__rate_interval"] = RateInterval, ["__range"] = "3m", ["namespace"] = team.Namespace, ["deployment"] = "train" };
        var left = Dashboard.All.SelectMany(dashboard => dashboard.Targets).Select(target => (Of: $"{target.Dashboard}: {target.Panel}", Expression: target.With(variables)))
            .Concat(AlertRule.All.SelectMany(alert => PromQl.Operands(alert.Expression).Concat(PromQl.Selectors(alert.Expression)).Select(part => (Of: alert.Name, Expression: Hurried(part)))))
            .Distinct().ToList();
        var asked = left.Count;
        await Eventually.SeeAsync(
            async () =>
            {
                await UseAsync(team);
                for (var i = left.Count - 1; i >= 0; i--)
                {
                    if ((await prometheus.QueryAsync(left[i].Expression, Ended)).Any(double.IsFinite)) left.RemoveAt(i);
                }

                return left;
            },
            waiting => waiting.Count == 0, waiting => "no data for\n" + string.Join("\n", waiting.Select(each => $"{each.Of}: {each.Expression}")));
        Console.WriteLine($"{asked} expressions of {Dashboard.All.Count} dashboards and {AlertRule.All.Count} alerts have data");
    }

    /// <summary>Tokens, a request of a customer's, a review: what is counted only when it happens.</summary>
    private async Task UseAsync(Team team)
    {
        var id = Guid.NewGuid().ToString();
        var now = TimeProvider.System.GetUtcNow().ToString("yyyy-MM-ddTHH:mm:ss.fffZ", System.Globalization.CultureInfo.InvariantCulture);
        await SendAsync(HttpMethod.Post, "/v1/usage/events", Installation.AdminToken, $$$"""
            {"specversion":"1.0","id":"{{{id}}}","source":"/tests","type":"{{{Tensormesh.Web.CloudEventReader.EventType}}}","time":"{{{now}}}","datacontenttype":"application/json",
            "data":{"account":"{{{team.Account}}}","model":"{{{Model}}}","inputTokens":1000,"cachedTokens":400,"outputTokens":100}}
            """);
        await SendAsync(HttpMethod.Get, "/v1/billing/balance", Installation.Token(team.Account.Value), null);
        Assert.Null(await RefusalOfAsync(Deployment(team, "asked"), dryRun: true));
    }

    private async Task SendAsync(HttpMethod method, string path, string token, string? body)
    {
        using var request = new HttpRequestMessage(method, new Uri(Installation.WebUrl, path));
        request.Headers.Authorization = new AuthenticationHeaderValue("Bearer", token);
        if (body is not null) request.Content = new StringContent(body, Encoding.UTF8, Tensormesh.Web.UsageApi.One);
        using var response = await Http.SendAsync(request, Ended);
        Assert.True(response.IsSuccessStatusCode, await response.Content.ReadAsStringAsync(Ended));
    }

    private static async Task AssertCleanAsync(Uri url)
    {
        var promtool = await PrometheusPackage.PromtoolAsync(Console.WriteLine, Ended);
        var file = Path.GetTempFileName();
        await File.WriteAllTextAsync(file, await Http.GetStringAsync(url, Ended), Ended);
        var (code, output) = await Command.TryRunAsync("/bin/sh", ["-c", "exec \"$0\" check metrics <\"$1\"", promtool, file], line: null, Ended);
        File.Delete(file);
        Assert.True((code, output) == (0, ""), $"{url}: {output}");
    }

    private async Task<AgentProcess> StartAgentAsync()
    {
        // The driver's word goes before labels, so it shows this class's product.
        for (var i = 0; i < Gpus; i++) gpus.Devices[i] = gpus.Devices[i] with { Name = Gpu.Replace('-', ' ') };
        devices = Path.Combine(Cluster.StateDirectory, "watched.json");
        gpus.Save(devices);
        await Cluster.AddHollowNodeAsync(HollowNodeOptions.H100(node) with { GpuProduct = Gpu, GpuCount = Gpus, StartLatency = TimeSpan.FromMilliseconds(100) });
        await AgentRights.GrantAsync(Cluster, Ended);
        var driver = await MockDriver.BuildAsync(Console.WriteLine, Ended);
        return await AgentProcess.StartAsync(
            Cluster, Path.ChangeExtension(Repository.Executable("Tensormesh.Agent", "tensormesh-agent"), null),
            new Dictionary<string, string>
            {
                ["Tensormesh__Agent__NodeName"] = node,
                ["Tensormesh__Agent__Kubeconfig"] = await AgentRights.WriteKubeconfigAsync(Cluster, await AgentRights.CreatePodAsync(Cluster, node, Ended), Ended),
                ["Tensormesh__Agent__PodResourcesSocket"] = Path.Combine(Cluster.StateDirectory, "watched.sock"),
                ["Tensormesh__Agent__ProbeInterval"] = "00:00:01",
                ["Tensormesh__Agent__HeartbeatInterval"] = "00:00:02",
                ["Tensormesh__Agent__LabelNode"] = "false",
                ["Tensormesh__Agent__Probe__CudaLibrary"] = driver.CudaLibrary,
                ["Tensormesh__Agent__Probe__NvmlLibrary"] = driver.NvmlLibrary,
                [MockDriver.EnvironmentVariable] = devices,
            },
            Ended);
    }

    private Task<GpuDeployment> StartHereAsync(Team team, string name, int gpus) => StartAsync(team, name, gpus: gpus, change: deployment =>
        deployment.Spec.Template.Spec.NodeSelector = new Dictionary<string, string> { ["kubernetes.io/hostname"] = node });

    private async Task PublishModelAsync()
    {
        const string Book = "scraped-tests";
        var spec = new PriceBookSpec { Serverless = [new() { Model = Model, InputPerMillion = "1.00", OutputPerMillion = "2.00", CachedPerMillion = "0.10" }] };
        var book = new { apiVersion = WellKnown.ApiVersion, kind = PriceBook.KubeKind, metadata = new { name = Book }, spec };
        await Client.CustomObjects.PatchClusterCustomObjectAsync(
            new V1Patch(KubernetesJson.Serialize(book), V1Patch.PatchType.ApplyPatch), WellKnown.Group, WellKnown.Version, PriceBook.PluralName, Book,
            fieldManager: "tests", force: true, cancellationToken: Ended);
        await Eventually.SeeAsync(() => new Prices(Product.Database).CurrentTokensAsync(Ended), prices => prices.Any(price => price.Model == Model));
    }

    private string Uuid(int gpu) => gpus.Devices[gpu].Uuid;

    private static string Hurried(string expression) => Minutes().Replace(Hours().Replace(expression, "60s"), "$1s");

    [GeneratedRegex(@"\b(\d+)m\b")]
    private static partial Regex Minutes();

    [GeneratedRegex(@"\b1h\b")]
    private static partial Regex Hours();
}
