using System.Diagnostics;
using k8s;
using k8s.Models;
using Tensormesh.Billing;
using Tensormesh.Resources;
using Tensormesh.TestKit;

namespace Tensormesh.Integration.Tests.Operators;

/// <summary>The product on a cluster of its own, from which it may be taken away.</summary>
public sealed class UninstalledProduct : IAsyncLifetime
{
    private readonly ClusterFixture cluster = new() { Options = new DevClusterOptions { RealNode = false } };

    public OperatorFixture Product { get; private set; } = null!;

    public async ValueTask InitializeAsync()
    {
        await cluster.InitializeAsync();
        Product = new OperatorFixture(cluster) { Settings = OperatorFixture.Options with { OperatorDeployment = "tensormesh-operator" } };
        await Product.InitializeAsync();
    }

    public async ValueTask DisposeAsync()
    {
        if (Product is not null) await Product.DisposeAsync();
        await cluster.DisposeAsync();
    }
}

/// <summary>Taken away in any order, it leaves nothing that waits for an operator: pods end, charging ends with the uninstall, kinds and namespaces go.</summary>
public sealed class UninstallTests(UninstalledProduct own) : OperatorTest(own.Product), IClassFixture<UninstalledProduct>
{
    /// <summary>Nothing may hang for longer than this with the operator gone.</summary>
    private static readonly TimeSpan Patience = TimeSpan.FromMinutes(1);
    private const string Rights = "tensormesh-operator";
    private OperatorProcess? standby;

    [Theory]
    [InlineData("namespace, kinds, webhook")]
    [InlineData("operator, kinds, team, namespace")]
    [InlineData("webhook, kinds, operator, namespace")]
    [InlineData("rights, kinds, namespace, webhook")]
    [InlineData("standby, namespace, rights, kinds")]
    [InlineData("kinds, rights, operator, namespace")]
    [InlineData("kill, kinds, team, namespace, command")]
    public async Task Nothing_is_left_waiting_in_whatever_order_it_is_taken_away(string order)
    {
        await EnsureInstalledAsync();
        var team = await OpenTeamAsync("1000.00");
        var (deployment, stubborn) = (await StartAsync(team, "train", replicas: 2), await StartAsync(team, "stubborn", change: Stubborn(3)));
        var steps = order.Split(", ");
        foreach (var step in steps) await TakeAwayAsync(step, team);

        // From here on nobody is there to let anything go.
        var began = Stopwatch.GetTimestamp();
        await WithinPatienceAsync(began, "pods", async () => (await PodsAsync(team)).Count == 0);
        await WithinPatienceAsync(began, "kinds", async () => (await Client.ApiextensionsV1.ListCustomResourceDefinitionAsync(cancellationToken: Ended)).Items
            .All(kind => kind.Spec.Group != WellKnown.Group));
        await WithinPatienceAsync(began, "namespaces", async () => (await Client.CoreV1.ListNamespaceAsync(cancellationToken: Ended)).Items
            .All(each => each.Name() != Installation.Namespace && (!steps.Contains("team") || each.Name() != team.Namespace)));
        Assert.DoesNotContain(
            (await Client.AdmissionregistrationV1.ListValidatingWebhookConfigurationAsync(cancellationToken: Ended)).Items, each => each.Name() == "tensormesh-operator");
        await WithinPatienceAsync(began, "rights", async () => !steps.Contains("rights")
            || ((await Client.RbacAuthorizationV1.ListClusterRoleAsync(cancellationToken: Ended)).Items.All(each => each.Name() != Rights)
                && (await Client.RbacAuthorizationV1.ListClusterRoleBindingAsync(cancellationToken: Ended)).Items.All(each => each.Name() != Rights)));
        Assert.Null(await ChildAsync(team, "train"));
        foreach (var each in (GpuDeployment[])[deployment, stubborn])
        {
            Assert.All(await RunsAsync(each), run => Assert.NotNull(run.EndedAt));
            Assert.Equal(-1, (await HoldOfAsync(each)).Nanos);
        }

        Assert.Equal(Money.Zero, (await StandingAsync(team.Account)).BurnPerHour);
        if (standby is not null) await standby.DisposeAsync();
    }

    [Fact]
    public async Task A_deployment_that_outlives_the_operator_says_so_and_starts_again_with_the_next_one()
    {
        await EnsureInstalledAsync();
        var team = await OpenTeamAsync("1000.00");
        var deployment = await StartAsync(team, "train");
        await TakeAwayAsync("operator", team);
        var left = await ReadAsync(team, "train");
        Assert.Equal(("False", ConditionReasons.Uninstalled), (Condition(left, ConditionTypes.Ready)!.Status, Condition(left, ConditionTypes.Ready)!.Reason));
        Assert.Empty(left.Metadata.Finalizers ?? []);
        Assert.NotNull(Assert.Single(await RunsAsync(deployment)).EndedAt);

        await EnsureInstalledAsync();
        await UntilRunningAsync(team, "train");
        Assert.Equal(2, (await RunsAsync(deployment)).Count);
    }

    private async Task TakeAwayAsync(string step, Team team)
    {
        switch (step)
        {
            case "namespace":
                // Where the operator is a pod of it, it would be told to end as well; here it sees for itself.
                await Client.CoreV1.DeleteNamespaceAsync(Installation.Namespace, cancellationToken: Ended);
                await Installation.WaitForOperatorsEndAsync(Ended);
                break;
            case "operator":
                await Client.AppsV1.DeleteNamespacedDeploymentAsync("tensormesh-operator", Installation.Namespace, cancellationToken: Ended);
                await Installation.StopOperatorAsync();
                break;
            case "kill":
                await Installation.KillOperatorAsync();
                break;
            case "kinds":
                foreach (var kind in (string[])[BillingAccount.PluralName, PriceBook.PluralName, GpuNode.PluralName, GpuDeployment.PluralName])
                {
                    await Client.ApiextensionsV1.DeleteCustomResourceDefinitionAsync($"{kind}.{WellKnown.Group}", cancellationToken: Ended);
                }

                break;
            case "standby":
                standby = await Installation.StartAnotherOperatorAsync("tensormesh-operator-standby", new Dictionary<string, string>());
                await standby.WaitUntilReadyAsync(Ended);
                break;
            case "rights":
                // In the second in which kubectl delete -k takes everything.
                await Client.CoreV1.DeleteNamespacedServiceAccountAsync(Rights, TestKit.Installation.Namespace, cancellationToken: Ended);
                await Client.RbacAuthorizationV1.DeleteClusterRoleBindingAsync(Rights, cancellationToken: Ended);
                await Client.RbacAuthorizationV1.DeleteClusterRoleAsync(Rights, cancellationToken: Ended);
                break;
            case "webhook":
                await IgnoreMissing(Client.AdmissionregistrationV1.DeleteValidatingWebhookConfigurationAsync("tensormesh-operator", cancellationToken: Ended));
                break;
            case "team":
                await Client.CoreV1.DeleteNamespaceAsync(team.Namespace, cancellationToken: Ended);
                break;
            case "command":
                var (exitCode, output) = await Installation.RunOperatorCommandAsync("uninstall", Ended);
                Assert.True(exitCode == 0, output);
                break;
            default:
                throw new ArgumentException(step, nameof(step));
        }
    }

    /// <summary>As after an installation: the kinds, the namespace with the operator's Deployment in it (its pod is this test's process), GPUs and a price.</summary>
    private async Task EnsureInstalledAsync()
    {
        var kinds = await Client.ApiextensionsV1.ListCustomResourceDefinitionAsync(cancellationToken: Ended);
        if (!Installation.OperatorRuns || kinds.Items.All(kind => kind.Spec.Group != WellKnown.Group)) await Installation.ReinstallAsync(Ended);
        await Product.PublishAsync(OperatorFixture.BookOf(Gpu), (Gpu, OperatorFixture.PerHour));
        if ((await Client.AppsV1.ListNamespacedDeploymentAsync(Installation.Namespace, cancellationToken: Ended)).Items.Count > 0) return;
        var labels = new Dictionary<string, string> { ["app"] = "tensormesh-operator" };
        await Client.AppsV1.CreateNamespacedDeploymentAsync(
            new V1Deployment
            {
                Metadata = new V1ObjectMeta { Name = "tensormesh-operator" },
                Spec = new V1DeploymentSpec
                {
                    Replicas = 0,
                    Selector = new V1LabelSelector { MatchLabels = labels },
                    Template = new V1PodTemplateSpec
                    {
                        Metadata = new V1ObjectMeta { Labels = labels },
                        Spec = new V1PodSpec { Containers = [new V1Container { Name = "main", Image = "example.com/operator" }] },
                    },
                },
            }, Installation.Namespace, cancellationToken: Ended);
    }

    private static async Task WithinPatienceAsync(long began, string what, Func<Task<bool>> gone)
    {
        while (!await gone())
        {
            Assert.True(Stopwatch.GetElapsedTime(began) < Patience, $"{what} are still there");
            await Task.Delay(TimeSpan.FromMilliseconds(100), Ended);
        }
    }
}
