using System.Globalization;
using k8s;
using k8s.Models;
using Tensormesh.Billing;
using Tensormesh.Resources;

namespace Tensormesh.Integration.Tests.Operators;

/// <summary>Objects that can never be brought to where they should be, among very many that can. On a cluster of its own, which is thrown away with them.</summary>
public sealed class PoisonTests(OwnClusterFixture product) : OperatorTest(product), IClassFixture<OwnClusterFixture>
{
    private const int Others = 10_000;
    private const int OtherTeams = 5;
    /// <summary>Wherever the queue begins, some of them come early.</summary>
    private const int Broken = 8;
    private const int CallsAtOnce = 16;
    private const int PageSize = 500;

    /// <summary>What was last in the queue may be this much later than the rest.</summary>
    private static readonly TimeSpan Bound = TimeSpan.FromSeconds(10);

    [Fact]
    public async Task Of_ten_thousand_each_gets_its_verdict_while_one_that_a_quota_forbids_and_some_whose_every_round_fails_are_tried_a_few_times()
    {
        var (rich, forbidden, broken) = (await OpenTeamAsync("5000.00"), await OpenTeamAsync("5000.00"), await OpenTeamAsync("5000.00"));
        var poor = await Task.WhenAll(Enumerable.Range(0, OtherTeams).Select(_ => OpenTeamAsync("0.00", card: false)));
        await ForbidDeploymentsAsync(forbidden);
        await BreakDeploymentsAsync(broken);
        await Installation.StopOperatorAsync();

        await CreateAsync(Deployment(forbidden, "train"));
        for (var number = 0; number < Broken; number++) await CreateAsync(Deployment(broken, $"broken-{number}"));
        // Nobody is asked while the operator is away, so that all of them wait for it.
        await Parallel.ForEachAsync(
            Enumerable.Range(0, Others), new ParallelOptions { MaxDegreeOfParallelism = CallsAtOnce, CancellationToken = Ended },
            async (number, _) => await CreateAsync(Deployment(poor[number % OtherTeams], $"train-{number}")));
        var healthy = await CreateAsync(Deployment(rich, "train"));

        var logged = (await OperatorLogAsync()).Count;
        var launched = TimeProvider.System.GetTimestamp();
        await Installation.StartOperatorAsync(Ended);
        await Eventually.SeeAsync(RefusedAsync, refused => refused >= Others / 10);
        // Who comes now waits for none of those that are still to be looked at.
        await StartAsync(rich, "meanwhile");
        var before = await RefusedAsync();
        Assert.InRange(before, Others / 10, Others * 9 / 10);
        await UntilRunningAsync(rich, "train");
        var started = TimeProvider.System.GetElapsedTime(launched);
        Assert.InRange(await RefusedAsync(), before, Others - 1);
        foreach (var share in (int[])[2, 1]) await Eventually.SeeAsync(RefusedAsync, refused => refused >= Others / share);
        var all = TimeProvider.System.GetElapsedTime(launched);
        // A verdict is counted before it is written down, and one that could not be written is given again.
        foreach (var team in poor) await Eventually.SeeAsync(() => CountRefusedAsync(team), told => told == Others / OtherTeams);

        // What comes now need not wait for what cannot be.
        var began = TimeProvider.System.GetTimestamp();
        await StartAsync(rich, "late");
        Assert.InRange(TimeProvider.System.GetElapsedTime(began), TimeSpan.Zero, Bound);

        var told = await SeeAsync(forbidden, "train", seen => Condition(seen, ConditionTypes.Ready)?.Reason == ConditionReasons.InvalidSpec);
        Assert.Contains("exceeded quota: none", Condition(told, ConditionTypes.Ready)!.Message, StringComparison.Ordinal);
        Assert.Equal("True", Condition(told, ConditionTypes.Stalled)!.Status);
        var events = await Eventually.SeeAsync(
            async () => (await Client.CoreV1.ListNamespacedEventAsync(forbidden.Namespace, cancellationToken: Ended)).Items, seen => seen.Count > 0);
        Assert.Contains(events, each => each.Type == "Warning" && each.Message.Contains("exceeded quota: none", StringComparison.Ordinal));
        await UntilNoHoldAsync(told);

        var lines = (await OperatorLogAsync()).Skip(logged).ToList();
        int[] faults = [.. Enumerable.Range(0, Broken).Select(number => Count(lines, $"{broken.Namespace}/broken-{number}: the API server refused with 500"))];
        var refusals = Count(lines, $"{forbidden.Namespace}/train: the API server refused the child Deployment");
        Console.WriteLine(
            $"{Others} refused in {all.TotalSeconds:0.0} s, the healthy one ran after {started.TotalSeconds:0.0} s, one that came later after {before} refusals; tries of the forbidden one: {refusals}, of the broken ones: {string.Join(' ', faults)}");
        // Every 30 s; and after 50, 100, 200 ms and so on up to a minute.
        var elapsed = TimeProvider.System.GetElapsedTime(launched).TotalSeconds;
        Assert.InRange(refusals, 1, 2 + (int)(elapsed / 30));
        Assert.All(faults, tries => Assert.InRange(tries, 3, 12 + (int)(elapsed / 60)));

        await Client.CoreV1.DeleteNamespacedResourceQuotaAsync("none", forbidden.Namespace, cancellationToken: Ended);
        await UntilRunningAsync(forbidden, "train");
        Assert.Single(await RunsAsync(healthy));
    }

    private static int Count(IEnumerable<string> lines, string text) => lines.Count(line => line.Contains(text, StringComparison.Ordinal));

    private async Task<double> RefusedAsync() => (await Product.MetricsAsync()).Split('\n')
        .Where(line => line.StartsWith("tensormesh_gate_verdicts_total{asked_by=\"reconciler\",verdict=\"NoValidCard\"}", StringComparison.Ordinal))
        .Sum(line => double.Parse(line.Split(' ')[^1], CultureInfo.InvariantCulture));

    /// <summary>Those that say so themselves, with no child.</summary>
    private async Task<int> CountRefusedAsync(Team team)
    {
        var (count, next) = (0, (string?)null);
        do
        {
            var page = KubernetesJson.Deserialize<CustomList<GpuDeployment>>(KubernetesJson.Serialize(await Client.CustomObjects.ListNamespacedCustomObjectAsync(
                WellKnown.Group, WellKnown.Version, team.Namespace, GpuDeployment.PluralName, limit: PageSize, continueParameter: next, cancellationToken: Ended)));
            count += page.Items.Count(each => Condition(each, ConditionTypes.BillingAuthorized) is { Status: "False", Reason: nameof(RefusalReason.NoValidCard) });
            next = page.Metadata.ContinueProperty;
        }
        while (!string.IsNullOrEmpty(next));
        Assert.Empty((await Client.AppsV1.ListNamespacedDeploymentAsync(team.Namespace, limit: 1, cancellationToken: Ended)).Items);
        return count;
    }

    private Task<V1ResourceQuota> ForbidDeploymentsAsync(Team team) => Client.CoreV1.CreateNamespacedResourceQuotaAsync(
        new V1ResourceQuota
        {
            Metadata = new V1ObjectMeta { Name = "none" },
            Spec = new V1ResourceQuotaSpec { Hard = new Dictionary<string, ResourceQuantity> { ["count/deployments.apps"] = new("0") } },
        }, team.Namespace, cancellationToken: Ended);

    /// <summary>Somebody's webhook that must be asked and that nobody answers.</summary>
    private Task<V1ValidatingWebhookConfiguration> BreakDeploymentsAsync(Team team)
        => Client.AdmissionregistrationV1.CreateValidatingWebhookConfigurationAsync(
            new V1ValidatingWebhookConfiguration
            {
                Metadata = new V1ObjectMeta { Name = "nobody-answers" },
                Webhooks =
                [
                    new V1ValidatingWebhook
                    {
                        Name = "nobody.tests.tensormesh.ai",
                        AdmissionReviewVersions = ["v1"],
                        SideEffects = "None",
                        FailurePolicy = "Fail",
                        NamespaceSelector = new V1LabelSelector { MatchLabels = new Dictionary<string, string> { [WellKnown.AccountLabel] = team.Account.Value } },
                        Rules = [new V1RuleWithOperations { ApiGroups = ["apps"], ApiVersions = ["v1"], Operations = ["CREATE", "UPDATE"], Resources = ["deployments"] }],
                        ClientConfig = new Admissionregistrationv1WebhookClientConfig { Url = "https://127.0.0.1:1/" },
                    },
                ],
            }, cancellationToken: Ended);
}
