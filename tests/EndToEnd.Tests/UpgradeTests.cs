using System.Net.Http.Headers;
using System.Net.Http.Json;
using System.Text.Json.Nodes;
using k8s;
using k8s.Models;
using Npgsql;
using Tensormesh.Resources;
using Tensormesh.TestKit;

namespace Tensormesh.EndToEnd.Tests;

/// <summary>From the previous version to this one while customers work: both run side by side on one ledger for a while.</summary>
[Collection("one product at a time")]
public sealed class UpgradeTests : IAsyncLifetime
{
    private readonly HttpClient http = new();
    private DevCluster cluster = null!;
    private Installation product = null!;
    private NpgsqlDataSource database = null!;
    private bool hasHistory;

    private static CancellationToken Ends => TestContext.Current.CancellationToken;

    public async ValueTask InitializeAsync()
    {
        var commit = (await File.ReadAllTextAsync(Repository.Folder("tests", "EndToEnd.Tests", "previous-version"))).Trim();
        var previous = await ProductVersion.OfCommitAsync(commit, Console.WriteLine, CancellationToken.None);
        hasHistory = previous is not null;
        if (!hasHistory) return;
        cluster = await DevCluster.StartAsync(new DevClusterOptions { RealNode = false }, Console.WriteLine, CancellationToken.None);
        product = await Installation.PrepareAsync(cluster, InstallationOptions.Quick with { Webhook = false }, CancellationToken.None, previous);
        database = NpgsqlDataSource.Create(product.ConnectionString);
    }

    public async ValueTask DisposeAsync()
    {
        http.Dispose();
        if (product is not null) await product.DisposeAsync();
        if (database is not null) await database.DisposeAsync();
        if (cluster is not null) await cluster.DisposeAsync();
    }

    [Fact]
    public async Task An_upgrade_from_the_previous_version_touches_no_running_work_loses_no_request_and_charges_every_second_once()
    {
        Assert.SkipUnless(hasHistory, "this clone has no history: there is no previous version in it");
        // One customer asks as fast as it is answered, which is more than a customer may.
        foreach (var limit in (string[])["RequestsPerSecond", "RequestBurst"]) product.WebExtras[$"Tensormesh__{limit}"] = "100000";
        await product.StartOperatorAsync(Ends);
        await product.StartWebAsync(Ends);
        var migrationsBefore = await MigrationsAsync();
        await OpenAccountAsync();
        await ApplyAsync("trainer", replicas: 3);
        await ApplyAsync("paused", replicas: 2, paused: true);
        await Eventually.SeeAsync(() => ScalarAsync<long>("select count(*) from run_interval where ended_at is null"), open => open == 3);
        var (stored, pods) = (await StoredAsync(), await PodsAsync());

        // Customers read and pay all the while, of the old server and, once it is there, of the new one.
        using var enough = new CancellationTokenSource();
        List<Uri> webs = [product.WebUrl];
        var load = LoadAsync(webs, enough.Token);
        await Eventually.SeeAsync(() => Task.FromResult(load.Answers), answers => answers > 20);

        await product.UpgradeAsync(ProductVersion.Current, Ends);
        Assert.Equal(stored, await StoredAsync());
        // Two at once, as a Deployment of two replicas: the schema is brought up to date once.
        var operators = await Task.WhenAll(
            product.StartAnotherOperatorAsync("tensormesh-operator-2", new Dictionary<string, string>()),
            product.StartAnotherOperatorAsync("tensormesh-operator-3", new Dictionary<string, string>()));
        foreach (var each in operators) await each.WaitUntilReadyAsync(Ends);
        Assert.True(await MigrationsAsync() > migrationsBefore, "the previous version has every migration already: name an older one in tests/EndToEnd.Tests/previous-version");
        Assert.Equal(Directory.GetFiles(Repository.Folder("src", "Tensormesh.Billing", "Postgres", "Migrations"), "*.sql").Length, await MigrationsAsync());

        // The old operator leads on, on the new schema; the new web server answers beside the old one.
        var settled = await ScalarAsync<long>("select count(*) from ledger_transaction where type = 'GpuUsage'");
        await Eventually.SeeAsync(() => ScalarAsync<long>("select count(*) from ledger_transaction where type = 'GpuUsage'"), now => now >= settled + 6);
        var second = await product.StartAnotherWebAsync("tensormesh-web-2", Ends);
        lock (webs) webs.Add(second);
        var both = load.Answers;
        await Eventually.SeeAsync(() => Task.FromResult(load.Answers), answers => answers > both + 20);

        // The old ones go, as a rolling update ends them.
        lock (webs) webs.RemoveAt(0);
        await load.QuietAsync();
        await product.StopWebAsync();
        await product.StopOperatorAsync();
        settled = await ScalarAsync<long>("select count(*) from ledger_transaction where type = 'GpuUsage'");
        await Eventually.SeeAsync(() => ScalarAsync<long>("select count(*) from ledger_transaction where type = 'GpuUsage'"), now => now >= settled + 6);
        await Eventually.SeeAsync(() => ScalarAsync<long>("select max(epoch) from operator_epoch"), epoch => epoch >= 2);
        await ApplyAsync("later", replicas: 1);
        await Eventually.SeeAsync(() => ScalarAsync<long>("select count(*) from run_interval where ended_at is null"), open => open == 4);

        await enough.CancelAsync();
        await load.Task;
        Assert.Empty(load.Faults);
        Assert.Equal(load.Paid, await ScalarAsync<long>("select count(*) from ledger_transaction where type = 'TopUp'"));
        Assert.Equal(pods, (await PodsAsync()).Intersect(pods).Order(StringComparer.Ordinal));
        Assert.Equal(stored, (await StoredAsync()).Where(each => !each.Contains("\"later\"", StringComparison.Ordinal)));

        foreach (var name in (string[])["trainer", "later", "paused"])
            await cluster.Client.CustomObjects.DeleteNamespacedCustomObjectAsync(WellKnown.Group, WellKnown.Version, "acme-research", GpuDeployment.PluralName, name, cancellationToken: Ends);
        await Eventually.SeeAsync(() => ScalarAsync<long>("select count(*) from run_interval where ended_at is null"), open => open == 0);
        await Eventually.SeeAsync(() => ScalarAsync<long>("select count(*) from credit_hold"), holds => holds == 0);
        Assert.Equal(4, await ScalarAsync<long>("select count(*) from run_interval"));
        // The last windows are posted with the ends.
        Assert.Equal(0m, await ScalarAsync<decimal>(
            """
            select (select -sum(e.amount_nanos) from ledger_entry e join ledger_transaction t on t.position = e.transaction_position
                      join ledger_account a on a.id = e.ledger_account where a.name = 'customer:acme' and t.type in ('GpuUsage', 'GpuUsageCorrection', 'GpuFaultCredit'))
                 - (select sum(div(gpus::numeric * per_gpu_hour_nanos * (extract(epoch from least(ended_at, charge_until) - started_at) * 1000000)::bigint, 3600000000)) from run_interval)
            """));
        var (exitCode, output) = await product.RunOperatorCommandAsync("ledger verify", Ends);
        Assert.True(exitCode == 0, output);
        foreach (var each in operators) await each.DisposeAsync();
    }

    private Task<long> MigrationsAsync() => ScalarAsync<long>("select count(*) from schema_migration where name like 'Migrations/%'");

    private async Task OpenAccountAsync()
    {
        foreach (var file in (string[])["account.yaml", "namespace.yaml", "pricebook.yaml"])
            await Kubectl.RunAsync(cluster, "apply", "-f", Repository.Folder("manifests", "examples", file));
        await Kubectl.RunAsync(cluster, "wait", "--for=condition=Ready", "billingaccount/acme", "pricebook/list-prices", "--timeout=120s");
        Assert.Equal(200, await PostAsync(product.WebUrl, "v1/billing/stripe/customers/payment-methods", new { stripePaymentMethodId = "pm_card_visa" }, product.Token("acme"), Guid.NewGuid().ToString()));
        Assert.Equal(200, await PostAsync(
            product.WebUrl, "v1/admin/billing/balances:add", new { targetUserId = "acme", amount = new { currencyCode = "USD", units = "100", nanos = 0 } }, product.AdminToken, Guid.NewGuid().ToString()));
    }

    private async Task ApplyAsync(string name, int replicas, bool paused = false)
    {
        var deployment = new GpuDeployment
        {
            ApiVersion = WellKnown.ApiVersion,
            Kind = "GpuDeployment",
            Metadata = new V1ObjectMeta { Name = name, NamespaceProperty = "acme-research", Labels = new Dictionary<string, string> { ["team"] = "research" } },
            Spec = new GpuDeploymentSpec
            {
                Replicas = replicas,
                Paused = paused ? true : null,
                Gpu = new GpuRequirement { Count = 1, Product = "NVIDIA-H100-80GB-HBM3" },
                Template = new V1PodTemplateSpec { Spec = new V1PodSpec { TerminationGracePeriodSeconds = 5, Containers = [new V1Container { Name = "main", Image = DevCluster.WorkloadImage }] } },
            },
        };
        await cluster.Client.CustomObjects.CreateNamespacedCustomObjectAsync(deployment, WellKnown.Group, WellKnown.Version, "acme-research", GpuDeployment.PluralName, cancellationToken: Ends);
    }

    /// <summary>What customers asked for, as it is stored: without what the server and the operator write on their own.</summary>
    private async Task<IReadOnlyList<string>> StoredAsync()
    {
        var list = JsonNode.Parse(KubernetesJson.Serialize(await cluster.Client.CustomObjects.ListNamespacedCustomObjectAsync(
            WellKnown.Group, WellKnown.Version, "acme-research", GpuDeployment.PluralName, cancellationToken: Ends)))!;
        return [.. list["items"]!.AsArray().Select(item => new JsonObject
        {
            ["name"] = item!["metadata"]!["name"]!.DeepClone(),
            ["uid"] = item["metadata"]!["uid"]!.DeepClone(),
            ["labels"] = item["metadata"]!["labels"]?.DeepClone(),
            ["spec"] = item["spec"]!.DeepClone(),
        }.ToJsonString()).Order(StringComparer.Ordinal)];
    }

    private async Task<IReadOnlyList<string>> PodsAsync()
        => [.. (await cluster.Client.CoreV1.ListNamespacedPodAsync("acme-research", cancellationToken: Ends)).Items.Select(pod => pod.Uid()).Order(StringComparer.Ordinal)];

    private Load LoadAsync(List<Uri> webs, CancellationToken enough)
    {
        var load = new Load();
        load.Task = Task.Run(async () =>
        {
            for (var each = 0; !enough.IsCancellationRequested; each++)
            {
                await load.Turn.WaitAsync(CancellationToken.None);
                try
                {
                    Uri web;
                    lock (webs) web = webs[each % webs.Count];
                    var status = each % 3 == 0
                        ? await PostAsync(web, "v1/billing/stripe/payment-intents", new { amount = new { currencyCode = "USD", units = "5", nanos = 0 }, stripePaymentMethodId = "pm_card_visa" }, product.Token("acme"), $"load-{each}")
                        : await GetAsync(web, each % 3 == 1 ? "v1/billing/balance" : "v1/billing/transactions?pageSize=5", product.Token("acme"));
                    if (status == 200) load.Answered(paid: each % 3 == 0);
                    else load.Faults.Add($"{web}: {status}");
                }
                catch (HttpRequestException fault)
                {
                    load.Faults.Add(fault.Message);
                }
                finally
                {
                    load.Turn.Release();
                }
            }
        }, CancellationToken.None);
        return load;
    }

    private async Task<int> PostAsync(Uri web, string path, object body, string token, string key)
    {
        using var request = new HttpRequestMessage(HttpMethod.Post, new Uri(web, path)) { Content = JsonContent.Create(body), Headers = { { "Idempotency-Key", key } } };
        return await SendAsync(request, token);
    }

    private async Task<int> GetAsync(Uri web, string path, string token)
    {
        using var request = new HttpRequestMessage(HttpMethod.Get, new Uri(web, path));
        return await SendAsync(request, token);
    }

    private async Task<int> SendAsync(HttpRequestMessage request, string token)
    {
        request.Headers.Authorization = new AuthenticationHeaderValue("Bearer", token);
        using var answer = await http.SendAsync(request, Ends);
        return (int)answer.StatusCode;
    }

    private async Task<T> ScalarAsync<T>(string sql)
    {
        await using var command = database.CreateCommand(sql);
        return (T)(await command.ExecuteScalarAsync(Ends))!;
    }

    /// <summary>One customer who asks without a pause.</summary>
    private sealed class Load
    {
        private int answers;
        private int paid;

        /// <summary>Held while a request is on its way.</summary>
        public SemaphoreSlim Turn { get; } = new(1);
        public Task Task { get; set; } = Task.CompletedTask;
        public System.Collections.Concurrent.ConcurrentBag<string> Faults { get; } = [];
        public int Answers => answers;
        public long Paid => paid;

        public void Answered(bool paid)
        {
            Interlocked.Increment(ref answers);
            if (paid) Interlocked.Increment(ref this.paid);
        }

        /// <summary>Returns when no request is on its way that began before.</summary>
        public async Task QuietAsync()
        {
            await Turn.WaitAsync();
            Turn.Release();
        }
    }
}
