using k8s;
using k8s.Models;
using Tensormesh.Billing;
using Tensormesh.Resources;

namespace Tensormesh.Integration.Tests.Operators;

/// <summary>What a person types wrong, through the kubectl that they have: each gets an answer that says what to do, and nothing is lost.</summary>
public sealed class BadInputTests(OperatorFixture product) : OperatorTest(product)
{
    [Fact]
    public async Task A_deployment_that_cannot_be_is_refused_with_what_to_do()
    {
        var team = await OpenTeamAsync("1000.00");
        var unpaid = await CreateNamespaceAsync();
        var image = $"image: \"{TestKit.DevCluster.WorkloadImage}\"";
        var container = $"{{name: main, {image}}}";
        (string Spec, string[] Words)[] cases =
        [
            ($"gpu: {{count: 1, kind: H100}}, template: {{spec: {{containers: [{container}]}} }}", ["unknown field", "kind"]),
            ($"gpus: 4, template: {{spec: {{containers: [{container}]}} }}", ["unknown field", "gpus"]),
            ($"gpu: {{count: -1}}, template: {{spec: {{containers: [{container}]}} }}", ["spec.gpu.count", "greater than or equal to 1"]),
            ($"gpu: {{count: 0}}, template: {{spec: {{containers: [{container}]}} }}", ["spec.gpu.count", "greater than or equal to 1"]),
            ("gpu: {count: 1}, template: {spec: {containers: []}}", ["spec.template.spec.containers", "at least 1"]),
            ("gpu: {count: 1}, template: {spec: {}}", ["containers"]),
            ($"gpu: {{count: 1}}, template: {{spec: {{containers: [{{name: main, {image}, resources: {{limits: {{nvidia.com/gpu: 1}} }} }}]}} }}",
                ["nvidia.com", "set spec.gpu.count instead"]),
            ($"gpu: {{count: 1, product: NVIDIA-NONE}}, template: {{spec: {{containers: [{container}]}} }}", ["product NVIDIA-NONE", "change spec.gpu to what there is"]),
            ($"gpu: {{count: 1, product: {Gpu}}}, budget: {{maxHourlyRate: \"abc\"}}, template: {{spec: {{containers: [{container}]}} }}", ["spec.budget.maxHourlyRate", "should match"]),
            ($"gpu: {{count: 1, product: {Gpu}}}, replicas: -2, template: {{spec: {{containers: [{container}]}} }}", ["spec.replicas", "greater than or equal to 0"]),
        ];
        await Task.WhenAll(cases.Select((one, i) => AssertRefusedAsync(
            $"bad-{i}", $"{{apiVersion: {WellKnown.ApiVersion}, kind: GpuDeployment, metadata: {{name: bad-{i}, namespace: {team.Namespace}}}, spec: {{{one.Spec}}}}}", one.Words)));

        var sound = $"spec: {{gpu: {{count: 1, product: {Gpu}}}, template: {{spec: {{containers: [{container}]}} }} }}";
        await AssertRefusedAsync(
            "long", $"{{apiVersion: {WellKnown.ApiVersion}, kind: GpuDeployment, metadata: {{name: {new string('a', 253)}, namespace: {team.Namespace}}}, {sound}}}",
            "use at most 63");
        await AssertRefusedAsync(
            "unpaid", $"{{apiVersion: {WellKnown.ApiVersion}, kind: GpuDeployment, metadata: {{name: train, namespace: {unpaid}}}, {sound}}}",
            "AccountMissing", $"namespace {unpaid} has no label tensormesh.ai/account", "ask your platform team to name the paying account");

        Assert.Empty(await ListAsync(team));
        Assert.Empty(await PodsAsync(team));
        Assert.Equal((0, Money.Parse("1000.00")), (await HoldsAsync(team.Account), await PostedAsync(team.Account)));
    }

    [Fact]
    public async Task A_price_that_is_none_is_refused_and_the_book_stays_as_it_was()
    {
        var book = OperatorFixture.BookOf(Gpu);
        (string Price, string Words)[] prices =
            [("abc", "should match"), ("0.00000000000000000001", "at most 19"), ("0.0000000001", "should match"), ("-1", "should match"), ("1e3", "should match"), ("", "should match")];
        foreach (var (price, words) in prices)
        {
            await AssertRefusedAsync(
                "price", $"{{apiVersion: {WellKnown.ApiVersion}, kind: PriceBook, metadata: {{name: {book}}}, spec: {{gpus: [{{product: {Gpu}, perHour: \"{price}\"}}]}} }}",
                "spec.gpus", "perHour", words);
        }

        await AssertRefusedAsync(
            "number", $"{{apiVersion: {WellKnown.ApiVersion}, kind: PriceBook, metadata: {{name: {book}}}, spec: {{gpus: [{{product: {Gpu}, perHour: 2.5}}]}} }}", "perHour", "string");
        Assert.Equal(1L, await ScalarAsync<long>($"select count(*) from price_version where item = '{Gpu}'"));
        Assert.Equal(OperatorFixture.PerHour, (await Product.Books.ReadAsync<PriceBook>(book, Ended)).Spec.Gpus!.Single().PerHour);
    }

    [Fact]
    public async Task Another_product_cannot_be_asked_for_while_one_runs_and_what_runs_goes_on()
    {
        var team = await OpenTeamAsync("1000.00");
        var deployment = await StartAsync(team, "train");
        var pod = Assert.Single(await PodsAsync(team, "train"));

        var (exitCode, _, errors) = await Kubectl.TryRunAsync(
            Cluster.KubeconfigPath, "-n", team.Namespace, "patch", "gpud/train", "--type=merge", "-p", """{"spec":{"gpu":{"product":"NVIDIA-L40S"}}}""");
        Assert.NotEqual(0, exitCode);
        Assert.Contains("cannot change while it is set: delete this GpuDeployment and apply it again", errors, StringComparison.Ordinal);

        await UntilSettledAsync(deployment, times: 1);
        Assert.True(Assert.Single(await RunsAsync(deployment)).Accrues);
        Assert.Equal(pod.Uid(), Assert.Single(await PodsAsync(team, "train")).Uid());
        Assert.True(IsReady(await ReadAsync(team, "train")));
    }

    private async Task AssertRefusedAsync(string name, string yaml, params string[] words)
    {
        var file = Path.Combine(Cluster.StateDirectory, $"{GetType().Name}-{name}.yaml");
        // The mark of YAML: what begins with a brace kubectl would read as JSON.
        await File.WriteAllTextAsync(file, "---\n" + yaml, Ended);
        var (exitCode, output, errors) = await Kubectl.TryRunAsync(Cluster.KubeconfigPath, "apply", "-f", file);
        Assert.True(exitCode != 0, $"accepted: {yaml}: {output}");
        Assert.All(words, word => Assert.True(errors.Contains(word, StringComparison.Ordinal), $"'{word}' is not in: {errors}\n{yaml}"));
    }
}
