using System.Diagnostics;
using System.Text;
using System.Text.Json;
using k8s;
using k8s.Models;
using Tensormesh.TestKit;

namespace Tensormesh.EndToEnd.Tests;

/// <summary>A dev cluster with nothing installed.</summary>
public sealed class BareCluster : IAsyncLifetime
{
    public DevCluster Cluster { get; private set; } = null!;
    public string EnvironmentFile { get; set; } = "";

    public async ValueTask InitializeAsync()
    {
        Cluster = await DevCluster.StartAsync(new DevClusterOptions(), Console.WriteLine, CancellationToken.None);
        await ProductPods.ImportAsync(Cluster, Console.WriteLine, CancellationToken.None);
    }

    public ValueTask DisposeAsync() => Cluster?.DisposeAsync() ?? ValueTask.CompletedTask;
}

/// <summary>The product as a platform team installs it: pods of its own images, the committed rights, kubectl alone.</summary>
[Collection("one product at a time")]
public sealed class InstallTests(BareCluster bare) : IClassFixture<BareCluster>
{
    private const string System = "tensormesh-system";
    private static readonly TimeSpan Limit = TimeSpan.FromMinutes(12);

    private static CancellationToken Ends => TestContext.Current.CancellationToken;

    private IKubernetes Client => bare.Cluster.Client;

    [Fact]
    public async Task Installed_by_kubectl_apply_k_it_does_the_main_job_with_its_own_rights_and_goes_without_a_trace()
    {
        await using var product = await InstallAsync();
        await WalkAsync("story");

        foreach (var pod in await PodsAsync(System))
        {
            Assert.True(pod.Spec.SecurityContext.RunAsNonRoot, pod.Name());
            // Where the product's own pods are concerned, none was ever started anew.
            Assert.All(pod.Status.ContainerStatuses, container => Assert.True(container.RestartCount == 0, $"{pod.Name()} was restarted"));
        }

        // The Web API has no rights, and no token that could be stolen from it.
        Assert.All(await PodsAsync(System, "app.kubernetes.io/name=tensormesh-web"), pod => Assert.DoesNotContain(
            pod.Spec.Containers.SelectMany(container => container.VolumeMounts), mount => mount.MountPath.StartsWith("/var/run/secrets/kubernetes.io", StringComparison.Ordinal)));

        await WalkAsync("remove");
        await AssertNothingIsLeftAsync();

        // Nothing was refused to any of them, from the first request to the last but those after its rights were gone.
        Assert.DoesNotContain(bare.Cluster.UsedRights, right => !right.Allowed && !IsFarewell(right));
    }

    [Fact]
    public async Task Either_replica_may_be_killed_and_either_web_server_asked_and_no_second_is_lost_or_charged_twice()
    {
        await using var product = await InstallAsync();
        await product.StartAsync();
        var leader = await LeaderAsync();

        // kill -9: nobody gives the lease back.
        var began = Stopwatch.GetTimestamp();
        ProductPods.KillProcessOf(leader[..leader.LastIndexOf('_')]);
        var next = await Eventually.SeeAsync(LeaderAsync, holder => holder != leader && holder.Length > 0);
        Console.WriteLine($"leadership moved from {leader} to {next} in {Stopwatch.GetElapsedTime(began).TotalSeconds:0.0} s");
        // The new one works: a pod's end is seen and charged, and a start.
        await KubectlAsync("scale", "gpud", "trainer", "-n", "acme-research", "--replicas=1");
        await Eventually.SeeAsync(() => product.CountAsync("run_interval where ended_at is not null"), ended => ended == 1);
        await KubectlAsync("scale", "gpud", "trainer", "-n", "acme-research", "--replicas=2");
        await Eventually.SeeAsync(() => product.CountAsync("run_interval where ended_at is null"), open => open == 2);

        // Without sticky sessions: one key sent to both at once is one payment, and what one began the other goes on with.
        var webs = (await PodsAsync(System, "app.kubernetes.io/name=tensormesh-web")).Select(pod => new Uri($"http://{pod.Status.PodIP}:8080")).ToList();
        Assert.Equal(2, webs.Count);
        var key = Guid.NewGuid().ToString();
        var payment = new { amount = new { currencyCode = "USD", units = "7", nanos = 0 }, stripePaymentMethodId = "pm_card_visa" };
        var answers = await Task.WhenAll(Enumerable.Range(0, 20).Select(each => product.PostAsync(webs[each % 2], "v1/billing/stripe/payment-intents", payment, product.Token, key)));
        Assert.Single(answers.Where(answer => answer.Status == 200).Select(answer => answer.Body).Distinct());
        Assert.All(answers, answer => Assert.True(answer.Status is 200 or 409, $"{answer.Status} {answer.Body}"));
        Assert.Equal(1, await product.CountAsync("ledger_transaction t join ledger_entry e on e.transaction_position = t.position where e.amount_nanos = 7000000000"));
        string? page = "";
        for (var each = 0; page is not null && each < 4; each++)
        {
            var (status, body) = await product.GetAsync(webs[each % 2], $"v1/billing/transactions?pageSize=1&pageToken={Uri.EscapeDataString(page)}", product.Token);
            Assert.True(status == 200, body);
            page = JsonDocument.Parse(body).RootElement.GetProperty("nextPageToken").GetString() is { Length: > 0 } more ? more : null;
        }

        // Everything at once, while it runs.
        await WalkAsync("remove");
        await AssertNothingIsLeftAsync();
        await AssertNothingRunsAsync(product);
    }

    public static TheoryData<string, string[]> Orders => new()
    {
        { "the namespaces first", ["delete namespace tensormesh-system tensormesh-agents"] },
        { "the operator first, and its webhook left behind", ["delete deployment tensormesh-operator -n tensormesh-system --cascade=foreground"] },
        { "the webhook and the kinds first", ["delete validatingwebhookconfiguration tensormesh-operator", "delete -k crds"] },
    };

    [Theory]
    [MemberData(nameof(Orders))]
    public async Task Taken_away_in_any_order_while_work_runs_nothing_hangs_and_nothing_goes_on_running_or_costing(string order, string[] first)
    {
        Console.WriteLine(order);
        await using var product = await InstallAsync();
        await product.StartAsync();
        // Each returns when what it names is gone: one that hung would be told so.
        foreach (var command in first) await KubectlAsync([.. command.Split(' '), "--timeout=120s"]);
        await WalkAsync("remove");
        await AssertNothingIsLeftAsync();
        await AssertNothingRunsAsync(product);
    }

    /// <summary>Nothing runs, what ran is charged to the nano and no longer, and the customer's namespace can go.</summary>
    private async Task AssertNothingRunsAsync(InstalledProduct product)
    {
        await Eventually.SeeAsync(async () => (await Client.CoreV1.ListNamespacedPodAsync("acme-research", cancellationToken: Ends)).Items.Count, pods => pods == 0);
        await product.AssertChargedExactlyAsync();
        Assert.Equal(0, await product.CountAsync("credit_hold"));
        await KubectlAsync("delete", "namespace", "acme-research", "--timeout=60s");
    }

    private async Task<InstalledProduct> InstallAsync()
    {
        // A database of its own: what is charged here is all that is charged.
        bare.EnvironmentFile = await ProductPods.CreateDatabaseAsync(bare.Cluster, Ends);
        await WalkAsync("install", "reach");
        return await InstalledProduct.ReadAsync(bare.Cluster, KubectlAsync);
    }

    /// <summary>Who holds the lease: a pod's name, and which process of it.</summary>
    private async Task<string> LeaderAsync()
        => (await Client.CoordinationV1.ReadNamespacedLeaseAsync("tensormesh-operator", System, cancellationToken: Ends)).Spec.HolderIdentity ?? "";

    private Task KubectlAsync(params string[] arguments) => Kubectl.RunAsync(bare.Cluster, arguments);

    /// <summary>An operator that let go of its own rights may still be asked to end: it gives back the lease, which went with the namespace.</summary>
    private static bool IsFarewell(UsedRight right) => right is { Account: "tensormesh-operator", Verb: "get" or "update" or "watch" or "list" };

    private async Task AssertNothingIsLeftAsync()
    {
        Assert.DoesNotContain((await Client.CoreV1.ListNamespaceAsync(cancellationToken: Ends)).Items, each => each.Name().StartsWith("tensormesh-", StringComparison.Ordinal));
        Assert.DoesNotContain((await Client.ApiextensionsV1.ListCustomResourceDefinitionAsync(cancellationToken: Ends)).Items, each => each.Spec.Group == "tensormesh.ai");
        Assert.DoesNotContain((await Client.RbacAuthorizationV1.ListClusterRoleAsync(cancellationToken: Ends)).Items, each => each.Name().StartsWith("tensormesh-", StringComparison.Ordinal));
        Assert.DoesNotContain((await Client.RbacAuthorizationV1.ListClusterRoleBindingAsync(cancellationToken: Ends)).Items, each => each.Name().StartsWith("tensormesh-", StringComparison.Ordinal));
        Assert.DoesNotContain(
            (await Client.AdmissionregistrationV1.ListValidatingWebhookConfigurationAsync(cancellationToken: Ends)).Items, each => each.Name() == "tensormesh-operator");
    }

    private async Task<IList<V1Pod>> PodsAsync(string @namespace, string? selector = null)
    {
        var pods = (await Client.CoreV1.ListNamespacedPodAsync(@namespace, labelSelector: selector, cancellationToken: Ends)).Items;
        Assert.NotEmpty(pods);
        return pods;
    }

    /// <summary>Fails with all that was said when a step fails.</summary>
    private async Task WalkAsync(params string[] steps)
    {
        var told = new StringBuilder();
        var start = new ProcessStartInfo("bash") { WorkingDirectory = Repository.Root, RedirectStandardOutput = true, RedirectStandardError = true };
        foreach (var argument in (string[])[Repository.Folder("tests", "walk-through.sh"), "dev", bare.EnvironmentFile, .. steps]) start.ArgumentList.Add(argument);
        using var walk = Process.Start(start) ?? throw new InvalidOperationException("bash could not be started");
        void Hear(object _, DataReceivedEventArgs line)
        {
            if (line.Data is not { } text) return;
            Console.WriteLine(text);
            lock (told) told.AppendLine(text);
        }

        walk.OutputDataReceived += Hear;
        walk.ErrorDataReceived += Hear;
        walk.BeginOutputReadLine();
        walk.BeginErrorReadLine();
        using var limit = CancellationTokenSource.CreateLinkedTokenSource(Ends);
        limit.CancelAfter(Limit);
        try
        {
            await walk.WaitForExitAsync(limit.Token);
        }
        catch (OperationCanceledException)
        {
            walk.Kill(entireProcessTree: true);
        }

        lock (told) Assert.True(walk is { HasExited: true, ExitCode: 0 }, told.ToString());
    }
}
