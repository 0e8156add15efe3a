using System.Text.Json;
using k8s;
using k8s.Models;
using Npgsql;
using Tensormesh.Billing;
using Tensormesh.Resources;
using Tensormesh.TestKit;

namespace Tensormesh.Benchmarks;

/// <summary>Teams that can pay, each with a namespace and an account of its own, and work for two controllers: ours and the Deployment controller.</summary>
internal sealed class Backlog(DevCluster cluster, NpgsqlDataSource database, int teams)
{
    private const int CallsAtOnce = 32;
    private const string Book = "default";

    public static readonly GpuProduct Product = RunningWork.Product;
    private static readonly Dictionary<string, string> Labels = new() { ["app"] = "trainer" };
    private static readonly TimeSpan Pause = TimeSpan.FromMilliseconds(50);

    private IKubernetes Client => cluster.Client;

    public static string Team(int number) => $"team-{number}";

    /// <summary>Namespaces, BillingAccounts and a PriceBook; then, once the operator has declared them to the ledger, a card and money.</summary>
    /// <param name="rich">How many of the teams get a card and money.</param>
    public async Task OpenAsync(int rich, CancellationToken cancellation)
    {
        await InParallelAsync(teams, (i, token) => Client.CoreV1.CreateNamespaceAsync(
            new V1Namespace { Metadata = Named(Team(i), new Dictionary<string, string> { [WellKnown.AccountLabel] = Team(i) }) }, cancellationToken: token), cancellation);
        await InParallelAsync(teams, (i, token) => Client.CustomObjects.CreateClusterCustomObjectAsync(
            new BillingAccount { Metadata = Named(Team(i)) }, WellKnown.Group, WellKnown.Version, BillingAccount.PluralName, cancellationToken: token), cancellation);
        var prices = new PriceBookSpec { Gpus = [new GpuPriceEntry { Product = Product.Name, PerHour = RunningWork.PerGpuHour.ToDecimalString() }] };
        await Client.CustomObjects.CreateClusterCustomObjectAsync(
            new PriceBook { Metadata = Named(Book), Spec = prices }, WellKnown.Group, WellKnown.Version, PriceBook.PluralName, cancellationToken: cancellation);

        await UntilAsync("accounts and prices declared", async token =>
            await CountAsync("select count(*) from account", token) == teams && await CountAsync("select count(*) from price_version", token) > 0, cancellation);
        var cards = new PaymentMethods(database, new SandboxPaymentProvider(), TimeProvider.System);
        for (var i = 0; i < rich; i++)
        {
            await cards.AttachAsync(new AccountId(Team(i)), "pm_card_visa", cancellation);
            await new Ledger(database).PostAsync(
                Movements.CreditGrant(new AccountId(Team(i)), Money.FromUnits(1_000_000), "start", "benchmark", "a backlog"), cancellation);
        }
    }

    /// <summary>Spread evenly over the teams; one GPU each.</summary>
    public Task CreateGpuDeploymentsAsync(int count, CancellationToken cancellation) => InParallelAsync(count, (i, token) =>
        Client.CustomObjects.CreateNamespacedCustomObjectAsync(
            new GpuDeployment
            {
                Metadata = Named(Name(i)),
                Spec = new GpuDeploymentSpec { Replicas = 1, Gpu = new GpuRequirement { Count = 1, Product = Product.Name }, Template = Template() },
            },
            WellKnown.Group, WellKnown.Version, Team(i % teams), GpuDeployment.PluralName, cancellationToken: token), cancellation);

    /// <summary>The same pods, as the Deployment controller takes them.</summary>
    public Task CreateDeploymentsAsync(int count, CancellationToken cancellation) => InParallelAsync(count, (i, token) =>
    {
        var template = Template();
        template.Metadata = new V1ObjectMeta { Labels = new Dictionary<string, string>(Labels) { ["trainer"] = Name(i) } };
        var selector = new V1LabelSelector { MatchLabels = new Dictionary<string, string> { ["trainer"] = Name(i) } };
        return Client.AppsV1.CreateNamespacedDeploymentAsync(
            new V1Deployment { Metadata = Named(Name(i)), Spec = new V1DeploymentSpec { Replicas = 1, Selector = selector, Template = template } },
            Team(i % teams), cancellationToken: token);
    }, cancellation);

    /// <summary>Needs the operator, which lets go of them; returns when they, their children and their holds are gone.</summary>
    public async Task DeleteGpuDeploymentsAsync(CancellationToken cancellation)
    {
        await InParallelAsync(teams, (i, token) => Client.CustomObjects.DeleteCollectionNamespacedCustomObjectAsync(
            WellKnown.Group, WellKnown.Version, Team(i), GpuDeployment.PluralName, cancellationToken: token), cancellation);
        await UntilAsync("GpuDeployments gone", async token =>
        {
            var left = (JsonElement)await Client.CustomObjects.ListClusterCustomObjectAsync(
                WellKnown.Group, WellKnown.Version, GpuDeployment.PluralName, limit: 1, cancellationToken: token);
            return left.GetProperty("items").GetArrayLength() == 0 && await DeploymentsAsync(token) == 0 && await HoldsAsync(token) == 0;
        }, cancellation);
    }

    public async Task DeleteDeploymentsAsync(CancellationToken cancellation)
    {
        await InParallelAsync(teams, async (i, token) =>
        {
            await Client.AppsV1.DeleteCollectionNamespacedDeploymentAsync(Team(i), cancellationToken: token);
            await Client.AppsV1.DeleteCollectionNamespacedReplicaSetAsync(Team(i), cancellationToken: token);
            return 0;
        }, cancellation);
        await UntilAsync("Deployments gone", async token => await DeploymentsAsync(token) == 0 && await ReplicaSetsAsync(token) == 0, cancellation);
    }

    /// <summary>Counted by the server: one object is read, however many there are.</summary>
    public async Task<long> DeploymentsAsync(CancellationToken cancellation)
    {
        var page = await Client.AppsV1.ListDeploymentForAllNamespacesAsync(limit: 1, cancellationToken: cancellation);
        return page.Items.Count + (page.Metadata.RemainingItemCount ?? 0);
    }

    public async Task<long> ReplicaSetsAsync(CancellationToken cancellation)
    {
        var page = await Client.AppsV1.ListReplicaSetForAllNamespacesAsync(limit: 1, cancellationToken: cancellation);
        return page.Items.Count + (page.Metadata.RemainingItemCount ?? 0);
    }

    public Task<long> HoldsAsync(CancellationToken cancellation) => CountAsync("select count(*) from credit_hold", cancellation);

    public async Task<long> CountAsync(string sql, CancellationToken cancellation)
    {
        await using var command = database.CreateCommand(sql);
        return (long)(await command.ExecuteScalarAsync(cancellation))!;
    }

    public static async Task UntilAsync(string what, Func<CancellationToken, Task<bool>> condition, CancellationToken cancellation)
    {
        using var limit = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        limit.CancelAfter(TimeSpan.FromMinutes(10));
        try
        {
            while (!await condition(limit.Token)) await Task.Delay(Pause, TimeProvider.System, limit.Token);
        }
        catch (OperationCanceledException) when (!cancellation.IsCancellationRequested)
        {
            throw new TimeoutException($"not within ten minutes: {what}");
        }
    }

    private static async Task InParallelAsync<T>(int count, Func<int, CancellationToken, Task<T>> call, CancellationToken cancellation)
        => await Parallel.ForEachAsync(
            Enumerable.Range(0, count), new ParallelOptions { MaxDegreeOfParallelism = CallsAtOnce, CancellationToken = cancellation },
            async (i, token) => await call(i, token));

    private static string Name(int number) => $"trainer-{number}";

    private static V1ObjectMeta Named(string name, IDictionary<string, string>? labels = null) => new() { Name = name, Labels = labels };

    /// <summary>A container as teams write them: a command, environment, resources, a probe and a volume.</summary>
    private static V1PodTemplateSpec Template() => new()
    {
        Spec = new V1PodSpec
        {
            TerminationGracePeriodSeconds = 5,
            Volumes = [new V1Volume { Name = "scratch", EmptyDir = new V1EmptyDirVolumeSource() }],
            Containers =
            [
                new V1Container
                {
                    Name = "trainer",
                    Image = DevCluster.WorkloadImage,
                    Command = ["python", "-m", "train"],
                    Args = ["--epochs", "30", "--checkpoint", "/scratch/checkpoint"],
                    Env = [new V1EnvVar { Name = "NCCL_DEBUG", Value = "WARN" }, new V1EnvVar { Name = "WORLD_SIZE", Value = "1" }],
                    Resources = new V1ResourceRequirements
                    {
                        Requests = new Dictionary<string, ResourceQuantity> { ["cpu"] = new("100m"), ["memory"] = new("256Mi") },
                    },
                    VolumeMounts = [new V1VolumeMount { Name = "scratch", MountPath = "/scratch" }],
                },
            ],
        },
    };
}
