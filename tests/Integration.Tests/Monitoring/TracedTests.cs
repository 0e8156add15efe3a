using System.Text.Json.Nodes;
using k8s.Models;
using Tensormesh.Integration.Tests.Operators;
using Tensormesh.Operator.Telemetry;
using Tensormesh.Resources;
using Tensormesh.TestKit;

namespace Tensormesh.Integration.Tests.Monitoring;

/// <summary>What one kubectl apply leads to, followed through spans and through log lines.</summary>
public sealed class TracedTests(OperatorFixture product) : OperatorTest(product)
{
    [Fact]
    public async Task From_kubectl_apply_to_the_first_posting_is_one_trace()
    {
        await using var collector = await FakeTraceCollector.StartAsync();
        var team = await OpenTeamAsync("50000.00");
        await Product.RestartOperatorAsync(collector.Environment);
        try
        {
            await ApplyAsync(Deployment(team, "train"));
            var deployment = await UntilRunningAsync(team, "train");
            var trace = OperatorTrace.ChangeOf(deployment)!.Value.ToHexString();
            var spans = await Eventually.SeeAsync(
                () => Task.FromResult(collector.Spans.Where(span => span.Trace == trace).ToList()), all => all.Any(span => span.Name == "post usage"),
                all => string.Join("\n", all.Concat(collector.Spans.Where(span => span.Scope == OperatorTrace.SourceName)).Take(40)));
            AssertStory(spans, team);

            // The posting is a part of the settlement of the account, whose SQL is in its own trace.
            var posting = Assert.Single(spans, span => span.Name == "post usage");
            var settlement = await Eventually.SeeAsync(
                () => Task.FromResult(collector.Spans.SingleOrDefault(span => span.Id == Assert.Single(posting.Links))), found => found is not null);
            Assert.Equal(("settle", team.Account.Value), (settlement!.Name, settlement.Attributes["tensormesh.account"]));
            Assert.Contains(collector.Spans, span => span.Scope == "Npgsql" && span.Parent == settlement.Id);

            // It runs: what is looked at later is no part of the change any more, and names it.
            await UntilSettledAsync(deployment, times: 2);
            await Eventually.SeeAsync(
                () => Task.FromResult(collector.Spans), all => all.Any(span => span.Name == "reconcile" && span.Trace != trace && span.Attributes.GetValueOrDefault("tensormesh.change") == trace));
            Assert.Single(collector.Spans, span => span.Trace == trace && span.Name == "post usage");
            await AssertAnotherChangeIsAnotherTraceAsync(collector, team, trace);
        }
        finally
        {
            await Product.RestartOperatorAsync(new Dictionary<string, string>());
        }
    }

    [Fact]
    public async Task A_refusal_is_a_trace_of_one_review()
    {
        await using var collector = await FakeTraceCollector.StartAsync();
        var team = await OpenTeamAsync("1.00");
        await Product.RestartOperatorAsync(collector.Environment);
        try
        {
            Assert.NotNull(await RefusalOfAsync(Deployment(team, "huge", replicas: 9)));
            var review = await Eventually.SeeAsync(
                () => Task.FromResult(collector.Spans.FirstOrDefault(span => span.Name == "admit" && span.Attributes["tensormesh.deployment"] == $"{team.Namespace}/huge")), span => span is not null);
            Assert.Equal(("InsufficientBalance", team.Account.Value), (review!.Attributes["tensormesh.verdict"], review.Attributes["tensormesh.account"]));
        }
        finally
        {
            await Product.RestartOperatorAsync(new Dictionary<string, string>());
        }
    }

    [Fact]
    public async Task Log_lines_are_objects_that_name_deployment_account_and_trace_where_that_is_asked_for()
    {
        var team = await OpenTeamAsync("50000.00");
        await Product.RestartOperatorAsync(new Dictionary<string, string> { ["Tensormesh__Logs"] = "json" });
        try
        {
            var deployment = await StartAsync(team, "logged");
            var trace = OperatorTrace.ChangeOf(deployment)!.Value.ToHexString();
            // In words of the loop, and of what it calls.
            var lines = await Eventually.SeeAsync(
                async () => (await OperatorLogAsync()).Where(line => line.Contains(team.Namespace, StringComparison.Ordinal)).ToList(),
                all => all.Any(line => line.Contains("held since", StringComparison.Ordinal)), all => string.Join("\n", all));
            var mine = lines.Select(line => JsonNode.Parse(line)!).ToList();
            Assert.All(mine, line => Assert.NotEmpty((string)line["Timestamp"]!));
            var applied = Assert.Single(mine, line => ((string)line["Message"]!).Contains("child Deployment applied", StringComparison.Ordinal));
            Assert.Equal((team.Namespace, "logged"), ((string?)applied["State"]!["Namespace"], (string?)applied["State"]!["Name"]));
            Assert.All(mine, line =>
            {
                var scope = Assert.Single(line["Scopes"]!.AsArray(), scope => scope!["Deployment"] is not null)!;
                Assert.Equal(($"{team.Namespace}/logged", team.Account.Value, trace), ((string?)scope["Deployment"], (string?)scope["Account"], (string?)scope["Trace"]));
            });
        }
        finally
        {
            await Product.RestartOperatorAsync(new Dictionary<string, string>());
        }

        await StartAsync(team, "told");
        var last = await Eventually.SeeAsync(OperatorLogAsync, all => all.Any(line => line.Contains("/told: child", StringComparison.Ordinal)));
        Assert.DoesNotContain(last, line => line.StartsWith('{') && line.Contains("told", StringComparison.Ordinal));
    }

    private static void AssertStory(List<SentSpan> spans, Team team)
    {
        // The operator's finalizer is reviewed as well, and asks the gate nothing.
        var review = Assert.Single(spans, span => span.Name == "admit" && span.Attributes.ContainsKey("tensormesh.verdict"));
        var rounds = spans.Where(span => span.Name == "reconcile").ToList();
        Assert.NotEmpty(rounds);
        Assert.All([review, .. rounds], span =>
        {
            Assert.Equal(("tensormesh-operator", "Tensormesh.Operator", ""), (span.Service, span.Scope, span.Parent));
            Assert.Equal(($"{team.Namespace}/train", team.Account.Value, "Admit"),
                (span.Attributes["tensormesh.deployment"], span.Attributes["tensormesh.account"], span.Attributes["tensormesh.verdict"]));
        });

        // The gate reads, and a round reads and writes: each in SQL of its own.
        Assert.Contains(spans, span => span.Scope == "Npgsql" && rounds.Any(round => round.Id == span.Parent));
        string[] parents = [review.Id, .. rounds.Select(round => round.Id)];
        Assert.All(spans.Where(span => span.Scope == "Npgsql"), span => Assert.Contains(span.Parent, parents));
        Assert.Equal($"{team.Namespace}/train", Assert.Single(spans, span => span.Name == "post usage").Attributes["tensormesh.deployment"]);
    }

    private async Task AssertAnotherChangeIsAnotherTraceAsync(FakeTraceCollector collector, Team team, string first)
    {
        await PatchAsync(team, "train", new { spec = new { replicas = 2 } });
        var second = OperatorTrace.ChangeOf(await UntilRunningAsync(team, "train", replicas: 2))!.Value.ToHexString();
        Assert.NotEqual(first, second);
        await Eventually.SeeAsync(
            () => Task.FromResult(collector.Spans.Where(span => span.Trace == second).Select(span => span.Name).ToHashSet()),
            names => names.IsSupersetOf(["admit", "reconcile", "post usage"]), names => string.Join(", ", names));
    }

    private async Task ApplyAsync(GpuDeployment deployment)
    {
        var file = Path.Combine(Cluster.StateDirectory, "traced.json");
        deployment.ApiVersion = WellKnown.ApiVersion;
        deployment.Kind = GpuDeployment.KubeKind;
        await File.WriteAllTextAsync(file, k8s.KubernetesJson.Serialize(deployment), Ended);
        await KubectlAsync("apply", "--validate=false", "-f", file);
    }
}
