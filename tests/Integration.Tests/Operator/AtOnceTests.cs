using Tensormesh.Resources;

namespace Tensormesh.Integration.Tests.Operators;

/// <summary>
/// Nobody waits between two lines of a script. The operator hears of each kind by a watch of its own, and must not take what it has not heard of for missing.
/// </summary>
public sealed class AtOnceTests(OperatorFixture product) : OperatorTest(product)
{
    private const int Times = 10;

    [Fact]
    public async Task A_namespace_its_label_and_a_deployment_in_one_breath_are_accepted_every_time()
    {
        var account = await OpenAccountAsync("1000.00");
        var refusals = await Task.WhenAll(Enumerable.Range(0, Times).Select(async i =>
        {
            var name = NewNamespace();
            if (i % 2 == 0) return await ApplyAsync(name, NamespaceOf(name, account.Value) + "---\n" + DeploymentIn(name));
            var file = await FileAsync(name, DeploymentIn(name));
            return await ScriptAsync($"kubectl create namespace {name} && kubectl label namespace {name} {WellKnown.AccountLabel}={account} && kubectl apply -f {file}");
        }));
        Assert.All(refusals, refusal => Assert.Equal("", refusal));
    }

    [Fact]
    public async Task An_account_that_was_made_a_moment_ago_is_asked_for_its_card_and_never_called_missing()
    {
        var refusals = await Task.WhenAll(Enumerable.Range(0, Times).Select(async _ =>
        {
            var name = NewNamespace();
            var account = $$"""
                apiVersion: {{WellKnown.ApiVersion}}
                kind: BillingAccount
                metadata: {name: {{name}}}
                spec: {displayName: At once}

                """;
            return await ApplyAsync(name, account + "---\n" + NamespaceOf(name, name) + "---\n" + DeploymentIn(name));
        }));
        Assert.All(refusals, refusal => Assert.Contains("has no valid card on file: add one under Billing > Payment Methods", refusal, StringComparison.Ordinal));
    }

    /// <summary>A name that no other test has; the namespace goes with this class's others.</summary>
    private string NewNamespace()
    {
        var name = $"op-{Guid.NewGuid().ToString("N")[..8]}";
        DeleteAtTheEnd(name);
        return name;
    }

    private static string NamespaceOf(string name, string account) => $$"""
        apiVersion: v1
        kind: Namespace
        metadata: {name: {{name}}, labels: {{{WellKnown.AccountLabel}}: {{account}}} }

        """;

    /// <summary>One GPU.</summary>
    private string DeploymentIn(string name) => $$"""
        apiVersion: {{WellKnown.ApiVersion}}
        kind: GpuDeployment
        metadata: {name: train, namespace: {{name}}}
        spec:
          gpu: {count: 1, product: {{Gpu}}}
          template: {spec: {containers: [{name: main, image: "{{TestKit.DevCluster.WorkloadImage}}"}] } }

        """;

    private async Task<string> ApplyAsync(string name, string yaml) => await ScriptAsync($"kubectl apply -f {await FileAsync(name, yaml)}");

    private async Task<string> FileAsync(string name, string yaml)
    {
        var file = Path.Combine(Cluster.StateDirectory, name + ".yaml");
        await File.WriteAllTextAsync(file, yaml, Ended);
        return file;
    }

    /// <summary>What it complained of; nothing when it succeeded.</summary>
    private async Task<string> ScriptAsync(string script)
    {
        var start = new System.Diagnostics.ProcessStartInfo("/bin/sh", ["-c", script]) { RedirectStandardError = true, RedirectStandardOutput = true };
        start.Environment["KUBECONFIG"] = Cluster.KubeconfigPath;
        using var process = System.Diagnostics.Process.Start(start)!;
        var (output, errors) = (process.StandardOutput.ReadToEndAsync(Ended), process.StandardError.ReadToEndAsync(Ended));
        await process.WaitForExitAsync(Ended);
        await output;
        return process.ExitCode == 0 ? "" : await errors;
    }
}
