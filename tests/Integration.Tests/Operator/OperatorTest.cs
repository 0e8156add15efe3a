using System.Text.Json.Serialization;
using k8s;
using k8s.Autorest;
using k8s.Models;
using Npgsql;
using Tensormesh.Billing;
using Tensormesh.Operator.Reconciling;
using Tensormesh.Resources;
using Tensormesh.TestKit;

namespace Tensormesh.Integration.Tests.Operators;

/// <summary>Who runs and who pays.</summary>
public sealed record Team(string Namespace, AccountId Account);

/// <summary>A row of run_interval.</summary>
public sealed record RunRow(
    Guid Pod, string PodName, string Account, int Gpus, Money PerGpuHour, DateTimeOffset StartedAt, DateTimeOffset SettledUntil,
    DateTimeOffset? EndedAt, DateTimeOffset? ChargeUntil, Money Total)
{
    public bool Accrues => EndedAt is null && ChargeUntil is null;
}

/// <summary>A class of stories about the operator, with GPUs and a price of its own, and words for what the stories do often.</summary>
[Collection(OperatorSuite.Name)]
public abstract class OperatorTest(OperatorFixture product) : IAsyncLifetime
{
    private const string Seen = "tests.tensormesh.ai/seen";

    private readonly List<string> namespaces = [];
    private readonly List<AccountId> opened = [];

    protected OperatorFixture Product => product;
    protected DevCluster Cluster => product.Cluster;
    protected IKubernetes Client => product.Cluster.Client;
    protected Installation Installation => product.Installation;

    /// <summary>The GPU product that only this class has.</summary>
    protected string Gpu => "NVIDIA-TEST-" + GetType().Name.Replace("Tests", "", StringComparison.Ordinal);

    protected static CancellationToken Ended => TestContext.Current.CancellationToken;

    protected Accounts Accounts => new(product.Database);
    protected PaymentMethods Cards => new(product.Database, new SandboxPaymentProvider(), TimeProvider.System);

    public virtual async ValueTask InitializeAsync() => await product.EnsureProductAsync(Gpu);

    public async ValueTask DisposeAsync()
    {
        GC.SuppressFinalize(this);
        foreach (var team in namespaces) await IgnoreMissing(Client.CoreV1.DeleteNamespaceAsync(team));
        // What must hold after every story, whatever it told.
        foreach (var account in opened) await AssertChargedExactlyAsync(account);
        await AssertBooksAreSoundAsync();
    }

    /// <summary>An account with this much money, a card unless told otherwise, and a namespace that it pays for.</summary>
    protected async Task<Team> OpenTeamAsync(string dollars, bool card = true, string? cardGrace = null, string? lowBalanceAlert = null)
    {
        var account = await OpenAccountAsync(dollars, card, cardGrace, lowBalanceAlert);
        var labels = new Dictionary<string, string> { [WellKnown.AccountLabel] = account.Value };
        return new Team(await CreateNamespaceAsync(labels), account);
    }

    protected async Task<AccountId> OpenAccountAsync(string dollars, bool card = true, string? cardGrace = null,
        string? lowBalanceAlert = null)
    {
        var account = new AccountId($"acc-{Guid.NewGuid().ToString("N")[..8]}");
        await product.Accounts.CreateAsync(
            new BillingAccount
            {
                Metadata = new V1ObjectMeta { Name = account.Value },
                Spec = new BillingAccountSpec { CardGracePeriod = cardGrace, LowBalanceAlert = lowBalanceAlert },
            }, Ended);
        await Eventually.SeeAsync(() => Accounts.ReadStandingAsync(account, Ended), standing => standing is not null, _ =>
            $"{account} is not declared");
        opened.Add(account);
        if (card) Assert.Equal(AttachResult.Attached, await Cards.AttachAsync(account, "pm_card_visa", Ended));
        if (Money.Parse(dollars) > Money.Zero) await GrantAsync(account, dollars);
        return account;
    }

    protected async Task<string> CreateNamespaceAsync(IDictionary<string, string>? labels = null)
    {
        var name = await product.Shared.CreateNamespaceAsync("op", labels);
        DeleteAtTheEnd(name);
        return name;
    }

    protected void DeleteAtTheEnd(string team)
    {
        lock (namespaces) namespaces.Add(team);
    }

    protected async Task GrantAsync(AccountId account, string dollars)
        => Assert.IsType<PostResult.Posted>(await new Ledger(product.Database).PostAsync(
            Movements.CreditGrant(account, Money.Parse(dollars), Guid.NewGuid().ToString(), "tests", "a test"), Ended));

    /// <summary>A deployment of this class's GPUs.</summary>
    protected GpuDeployment Deployment(
        Team team, string name, int replicas = 1, int gpus = 1, Action<GpuDeployment>? change = null)
    {
        var deployment = new GpuDeployment
        {
            Metadata = new V1ObjectMeta { Name = name, NamespaceProperty = team.Namespace },
            Spec = new GpuDeploymentSpec
            {
                Replicas = replicas,
                Gpu = new GpuRequirement { Count = gpus, Product = Gpu },
                Template = new V1PodTemplateSpec
                {
                    Spec = new V1PodSpec
                    {
                        TerminationGracePeriodSeconds = 5,
                        Containers = [new V1Container { Name = "main", Image = DevCluster.WorkloadImage }],
                    },
                },
            },
        };
        change?.Invoke(deployment);
        return deployment;
    }

    /// <summary>Pods that run on after SIGTERM until their grace period is over.</summary>
    protected static Action<GpuDeployment> Stubborn(int graceSeconds) => deployment =>
    {
        deployment.Spec.Template.Metadata = new V1ObjectMeta
        {
            Annotations = new Dictionary<string, string> { [HollowFault.Annotation] = HollowFault.IgnoreSigtermName },
        };
        deployment.Spec.Template.Spec.TerminationGracePeriodSeconds = graceSeconds;
    };

    protected Task<GpuDeployment> CreateAsync(GpuDeployment deployment)
        => product.Deployments.CreateNamespacedAsync(deployment, deployment.Metadata.NamespaceProperty, Ended);

    protected async Task<GpuDeployment> StartAsync(
        Team team, string name, int replicas = 1, int gpus = 1, Action<GpuDeployment>? change = null)
    {
        await CreateAsync(Deployment(team, name, replicas, gpus, change));
        return await UntilRunningAsync(team, name, replicas);
    }

    /// <summary>Ready, and every pod's start is in the ledger.</summary>
    protected async Task<GpuDeployment> UntilRunningAsync(Team team, string name, int replicas = 1)
    {
        var ready = await SeeAsync(team, name, seen => IsReady(seen) && seen.Status!.ReadyReplicas == replicas);
        await Eventually.SeeAsync(() => RunsAsync(ready), runs => runs.Count(run => run.Accrues) == replicas, runs =>
            string.Join("\n", runs));
        return ready;
    }

    /// <summary>The message with which the server refuses to create it; null when it accepts.</summary>
    protected async Task<string?> RefusalOfAsync(GpuDeployment deployment, bool dryRun = false)
    {
        try
        {
            await Client.CustomObjects.CreateNamespacedCustomObjectAsync(
                deployment, WellKnown.Group, WellKnown.Version, deployment.Metadata.NamespaceProperty, GpuDeployment.PluralName,
                dryRun: dryRun ? "All" : null, cancellationToken: Ended);
            return null;
        }
        catch (HttpOperationException refused)
        {
            return KubernetesJson.Deserialize<V1Status>(refused.Response.Content).Message;
        }
    }

    protected Task PatchAsync(Team team, string name, object patch) => product.Deployments.PatchNamespacedAsync<GpuDeployment>(
        new V1Patch(KubernetesJson.Serialize(patch), V1Patch.PatchType.MergePatch), team.Namespace, name, Ended);

    protected Task<object> DeleteAsync(Team team, string name) => Client.CustomObjects.DeleteNamespacedCustomObjectAsync(
        WellKnown.Group, WellKnown.Version, team.Namespace, GpuDeployment.PluralName, name, cancellationToken: Ended);

    protected Task<GpuDeployment> ReadAsync(Team team, string name) =>
        product.Deployments.ReadNamespacedAsync<GpuDeployment>(team.Namespace, name, Ended);

    protected async Task<List<GpuDeployment>> ListAsync(Team team)
        => [.. (await product.Deployments.ListNamespacedAsync<CustomList<GpuDeployment>>(team.Namespace, cancel: Ended)).Items];

    protected Task<GpuDeployment> SeeAsync(Team team, string name, Func<GpuDeployment, bool> condition)
        => Eventually.SeeAsync(() => ReadAsync(team, name), condition, seen => Text(seen.Status));

    /// <summary>Refused for this reason, and nothing of it runs or drains.</summary>
    protected async Task<GpuDeployment> SeeStoppedAsync(Team team, string name, string reason)
    {
        var stopped = await SeeAsync(team, name, seen => Condition(seen, ConditionTypes.Ready) is { Status: "False" } ready
            && ready.Reason == reason);
        await Eventually.SeeAsync(() => PodsAsync(team, name), pods => pods.Count == 0, pods =>
            string.Join("\n", pods.Select(pod => KubernetesJson.Serialize(pod.Status))));
        return stopped;
    }

    protected Task UntilGoneAsync(Team team, string name) => Eventually.SeeAsync(
        async () => (await ListAsync(team)).FirstOrDefault(each => each.Metadata.Name == name), seen => seen is null, Text);

    protected static V1Condition? Condition(GpuDeployment? deployment, string type)
        => deployment?.Status?.Conditions?.FirstOrDefault(condition => condition.Type == type);

    protected static async Task IgnoreMissing(Task call)
    {
        try
        {
            await call;
        }
        catch (HttpOperationException missing) when (missing.Response.StatusCode == System.Net.HttpStatusCode.NotFound)
        {
        }
    }

    private static string Text(object? value) => value is null ? "nothing" : KubernetesJson.Serialize(value);

    protected static bool IsReady(GpuDeployment deployment)
        => Condition(deployment, ConditionTypes.Ready) is { Status: "True" } ready
            && ready.ObservedGeneration == deployment.Metadata.Generation;

    protected async Task<IList<V1Pod>> PodsAsync(Team team, string? name = null) => (await Client.CoreV1.ListNamespacedPodAsync(
        team.Namespace, labelSelector: name is null ? null : $"{WellKnown.DeploymentLabel}={name}", cancellationToken: Ended)).Items;

    protected async Task<V1Deployment?> ChildAsync(Team team, string name) => (await Client.AppsV1.ListNamespacedDeploymentAsync(
        team.Namespace, fieldSelector: $"metadata.name={name}", cancellationToken: Ended)).Items.FirstOrDefault();

    /// <summary>Keeps a pod readable after its end, until <see cref="LetGoAsync"/>.</summary>
    protected async Task KeepInSightAsync(V1Pod pod) => await Eventually.SeeAsync(
        async () =>
        {
            var now = await Client.CoreV1.ReadNamespacedPodAsync(pod.Name(), pod.Namespace(), cancellationToken: Ended);
            return await TryPatchFinalizersAsync(now, [.. now.Finalizers(), Seen]);
        },
        done => done);

    protected async Task LetGoAsync(V1Pod pod) => await Eventually.SeeAsync(
        async () =>
        {
            var now = await Client.CoreV1.ReadNamespacedPodAsync(pod.Name(), pod.Namespace(), cancellationToken: Ended);
            return await TryPatchFinalizersAsync(now, [.. now.Finalizers().Where(finalizer => finalizer != Seen)]);
        },
        done => done);

    /// <summary>False when someone else, such as the operator, has changed the pod in between.</summary>
    private async Task<bool> TryPatchFinalizersAsync(V1Pod pod, IReadOnlyList<string> finalizers)
    {
        try
        {
            await Client.CoreV1.PatchNamespacedPodAsync(
                new V1Patch(KubernetesJson.Serialize(new { metadata = new { resourceVersion = pod.ResourceVersion(), finalizers } }),
                    V1Patch.PatchType.MergePatch),
                pod.Name(), pod.Namespace(), cancellationToken: Ended);
            return true;
        }
        catch (HttpOperationException conflict) when (conflict.Response.StatusCode == System.Net.HttpStatusCode.Conflict)
        {
            return false;
        }
    }

    /// <summary>
    /// When the pod's container ended, as its kubelet says. A kubelet of 1.20 at times loses a container while it deletes the pod, and never says more than when
    /// the containers turned unready: that is its word then, once it has let go of the pod or the operator has given up waiting for another.
    /// </summary>
    protected async Task<DateTimeOffset> FinishedAtAsync(V1Pod pod)
    {
        var seen = await Eventually.SeeAsync(
            () => Client.CoreV1.ReadNamespacedPodAsync(pod.Name(), pod.Namespace(), cancellationToken: Ended),
            now => now.Status.ContainerStatuses?[0].State.Terminated is not null
                || (now.Status.ContainerStatuses?[0].LastState?.Terminated?.Reason == "ContainerStatusUnknown"
                    && (now.Metadata.DeletionGracePeriodSeconds == 0 || TimeProvider.System.GetUtcNow() > At(now.Metadata.DeletionTimestamp) + PodRun.LostPatience)),
            now => KubernetesJson.Serialize(now.Status));
        return At(seen.Status.ContainerStatuses[0].State.Terminated?.FinishedAt
            ?? seen.Status.Conditions.Single(condition => condition.Type == "ContainersReady").LastTransitionTime)!.Value;

        static DateTimeOffset? At(DateTime? time) => time is { } known ? new DateTimeOffset(DateTime.SpecifyKind(known, DateTimeKind.Utc)) : null;
    }

    protected async Task<IReadOnlyList<RunRow>> RunsAsync(GpuDeployment deployment)
        => await QueryAsync($"deployment = '{deployment.Metadata.Uid}'");

    protected async Task<RunRow> RunAsync(V1Pod pod) => Assert.Single(await QueryAsync($"pod = '{pod.Uid()}'"));

    /// <summary>The run once its end is recorded.</summary>
    protected async Task<RunRow> ClosedRunAsync(V1Pod pod) =>
        await Eventually.SeeAsync(() => RunAsync(pod), run => run.EndedAt is not null);

    protected async Task<Money> HoldOfAsync(GpuDeployment deployment) => new(await ScalarAsync<long>(
        $"select coalesce((select remaining_nanos from credit_hold where deployment = '{deployment.Metadata.Uid}'), -1)"));

    protected async Task<int> HoldsAsync(AccountId account) =>
        (int)await ScalarAsync<long>($"select count(*) from credit_hold where account = '{account}'");

    protected async Task UntilNoHoldAsync(GpuDeployment deployment) =>
        await Eventually.SeeAsync(() => HoldOfAsync(deployment), hold => hold.Nanos == -1);

    protected async Task<Standing> StandingAsync(AccountId account) => (await Accounts.ReadStandingAsync(account, Ended))!;

    protected async Task<Money> PostedAsync(AccountId account) => (await StandingAsync(account)).Posted;

    /// <summary>So many settlements of the deployment that are later than this call.</summary>
    /// <param name="meanwhile">Called after each of them.</param>
    /// <param name="poll">Called many times in between.</param>
    protected async Task UntilSettledAsync(GpuDeployment deployment, int times, Func<Task>? meanwhile = null, Func<Task>? poll = null)
    {
        for (var i = 0; i < times; i++)
        {
            var before = (await RunsAsync(deployment)).Max(run => run.SettledUntil);
            await Eventually.SeeAsync(
                async () =>
                {
                    if (poll is not null) await poll();
                    return await RunsAsync(deployment);
                },
                runs => runs.Max(run => run.SettledUntil) > before);
            if (meanwhile is not null) await meanwhile();
        }
    }

    protected async Task<Money> SumAsync(string type, string ledgerAccount) => new((long)await ScalarAsync<decimal>(
        $"""
        select coalesce(sum(e.amount_nanos), 0) from ledger_entry e join ledger_account a on a.id = e.ledger_account
        join ledger_transaction t on t.position = e.transaction_position where t.type = '{type}' and a.name = '{ledgerAccount}'
        """));

    protected async Task<T> ScalarAsync<T>(string sql)
    {
        await using var command = product.Database.CreateCommand(sql);
        return (T)(await command.ExecuteScalarAsync(Ended))!;
    }

    protected async Task ExecuteAsync(string sql)
    {
        await using var command = product.Database.CreateCommand(sql);
        await command.ExecuteNonQueryAsync(Ended);
    }

    /// <summary>The operator's log of this run of the tests, which it writes on meanwhile.</summary>
    protected async Task<IReadOnlyList<string>> OperatorLogAsync()
    {
        await using var file = new FileStream(Installation.OperatorLog, FileMode.Open, FileAccess.Read, FileShare.ReadWrite);
        using var reader = new StreamReader(file);
        return (await reader.ReadToEndAsync(Ended)).Split('\n');
    }

    protected Task<string> KubectlAsync(params string[] arguments) => Kubectl.RunAsync(Cluster.KubeconfigPath, arguments);

    private async Task<IReadOnlyList<RunRow>> QueryAsync(string where)
    {
        await using var command = product.Database.CreateCommand(
            $"""
            select pod, pod_name, account, gpus, per_gpu_hour_nanos, started_at, settled_until, ended_at, charge_until, total_nanos
            from run_interval where {where} order by started_at, pod
            """);
        await using var reader = await command.ExecuteReaderAsync(Ended);
        var runs = new List<RunRow>();
        while (await reader.ReadAsync(Ended))
        {
            runs.Add(new(
                reader.GetGuid(0), reader.GetString(1), reader.GetString(2), reader.GetInt32(3), new(reader.GetInt64(4)),
                Instant(reader, 5)!.Value,
                Instant(reader, 6)!.Value, Instant(reader, 7), Instant(reader, 8), new(reader.GetInt64(9))));
        }

        return runs;
    }

    private static DateTimeOffset? Instant(NpgsqlDataReader reader, int ordinal) =>
        reader.IsDBNull(ordinal) ? null : reader.GetFieldValue<DateTimeOffset>(ordinal);

    /// <summary>
    /// Every run of the account was charged floor(microseconds x GPUs x rate) of each of its prices to where it is settled, and not a nano
    /// else left the account.
    /// </summary>
    protected async Task AssertChargedExactlyAsync(AccountId account)
    {
        await using var command = product.Database.CreateCommand(
            $"""
            select r.gpus, r.settled_until, r.total_nanos, array_agg(g.from_at order by g.from_at, g.price_version),
              array_agg(g.per_gpu_hour_nanos order by g.from_at, g.price_version),
              (select b.amount_nanos from ledger_balance b join ledger_account a on a.id = b.ledger_account where a.account = r.account),
              (select sum(e.amount_nanos) from ledger_entry e join ledger_account a on a.id = e.ledger_account
                join ledger_transaction t on t.position = e.transaction_position where a.account = r.account and t.type in ('CreditGrant', 'ServerlessUsage'))
            from run_interval r join run_interval_rating g on g.pod = r.pod where r.account = '{account}' group by r.pod
            """);
        await using var reader = await command.ExecuteReaderAsync(Ended);
        Int128 charged = 0;
        (long Posted, decimal Granted)? money = null;
        while (await reader.ReadAsync(Ended))
        {
            var (from, rates) = (reader.GetFieldValue<DateTime[]>(3), reader.GetFieldValue<long[]>(4));
            Int128 due = 0;
            for (var i = 0; i < from.Length; i++)
            {
                var until = i + 1 < from.Length ? from[i + 1] : reader.GetDateTime(1);
                due += (Int128)((until - from[i]).Ticks / TimeSpan.TicksPerMicrosecond) * reader.GetInt32(0) * rates[i] / 3_600_000_000;
            }

            Assert.Equal((long)due, reader.GetInt64(2));
            charged += due;
            money = (reader.GetInt64(5), reader.GetDecimal(6));
        }

        if (money is not { } books) return;
        Assert.Equal((long)(books.Granted - (decimal)charged), books.Posted);
        Assert.True(books.Posted >= 0);
    }

    private async Task AssertBooksAreSoundAsync()
    {
        Assert.Equal(0m, await ScalarAsync<decimal>("select coalesce(sum(balance), 0) from v_trial_balance"));
        Assert.Equal(0L, await ScalarAsync<long>("select count(*) from v_trial_balance where difference_to_projection <> 0"));
        Assert.Equal(0L, await ScalarAsync<long>("select count(*) from ledger_balance where amount_nanos < 0"));
    }
}

/// <summary>What a list of custom objects is, for reading.</summary>
public sealed class CustomList<T> : IKubernetesObject<V1ListMeta>, IItems<T>
    where T : IKubernetesObject
{
    [JsonPropertyName("apiVersion")] public string ApiVersion { get; set; } = "";
    [JsonPropertyName("kind")] public string Kind { get; set; } = "";
    [JsonPropertyName("metadata")] public V1ListMeta Metadata { get; set; } = new();
    [JsonPropertyName("items")] public IList<T> Items { get; set; } = [];
}
