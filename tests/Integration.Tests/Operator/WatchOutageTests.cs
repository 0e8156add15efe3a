using System.Globalization;
using System.Net;
using k8s;
using k8s.Models;
using Tensormesh.Resources;
using Tensormesh.TestKit;

namespace Tensormesh.Integration.Tests.Operators;

/// <summary>The operator's watches tell it nothing, or that they cannot go on. It finds out by itself.</summary>
public sealed class WatchOutageTests(OperatorFixture product) : OperatorTest(product)
{
    private static readonly TimeSpan StaleAfter = TimeSpan.FromSeconds(8);

    public override async ValueTask InitializeAsync()
    {
        Assert.SkipWhen(Cluster.IsUsersOwn, "nothing is put before a user's own API server");
        await base.InitializeAsync();
    }

    /// <summary>The proof that nothing depends on an event: not one of any watch arrives, from the operator's start to the end of the story.</summary>
    [Fact]
    public Task While_every_watch_event_is_dropped_the_periodic_list_alone_starts_suspends_resumes_and_ends_a_deployment()
        => BehindAProxyAsync(
            new() { ["Tensormesh__Watch__RelistInterval"] = "00:00:01" },
            async proxy =>
            {
                proxy.DropsEvents = true;
                var team = await OpenTeamAsync("5000.00");
                var deployment = await StartAsync(team, "train", replicas: 2);

                await PatchAsync(team, "train", new { spec = new { paused = true } });
                await SeeStoppedAsync(team, "train", ConditionReasons.Paused);
                await UntilNoHoldAsync(deployment);
                Assert.All(await RunsAsync(deployment), run => Assert.NotNull(run.EndedAt));

                await PatchAsync(team, "train", new { spec = new { paused = false } });
                await UntilRunningAsync(team, "train", replicas: 2);

                await DeleteAsync(team, "train");
                await UntilGoneAsync(team, "train");
                await UntilNoHoldAsync(deployment);
                Assert.Equal(4, (await RunsAsync(deployment)).Count(run => run.EndedAt is not null));
                Assert.True(proxy.Dropped > 20, $"{proxy.Dropped} events were dropped");
            });

    [Fact]
    public Task What_was_deleted_during_a_watch_outage_is_found_by_the_list_after_a_410_and_charged_no_longer()
        => BehindAProxyAsync(
            [],
            async proxy =>
            {
                var team = await OpenTeamAsync("5000.00");
                var (lost, deleted, kept) = (await StartAsync(team, "lost"), await StartAsync(team, "deleted"), await StartAsync(team, "kept"));
                var pod = Assert.Single(await PodsAsync(team, "lost"));
                var last = Assert.Single(await PodsAsync(team, "deleted"));
                await KeepInSightAsync(last);

                proxy.DropsEvents = true;
                // Somebody takes our finalizer off and the pod away by force: nothing is left of it but a Deleted event, which is lost.
                await RemoveByForceAsync(pod);
                await DeleteAsync(team, "deleted");
                await Eventually.SeeAsync(() => PodsAsync(team, "lost"), pods => pods.Count == 1 && pods[0].Uid() != pod.Uid() && IsRunning(pods[0]));
                await UntilSettledAsync(kept, times: 1);
                Assert.All([.. await RunsAsync(lost), .. await RunsAsync(deleted)], run => Assert.True(run.Accrues));

                // Each watch hears that its version has expired, and the next that it asks for as well, as a status.
                proxy.AnswerGone(7);
                Assert.True(proxy.InjectError(410, "too old resource version") >= 7);
                proxy.DropsEvents = false;

                var finished = await FinishedAtAsync(last);
                Assert.Equal(finished, (await ClosedRunAsync(last)).EndedAt);
                await LetGoAsync(last);
                await UntilGoneAsync(team, "deleted");
                Assert.Equal(-1, (await HoldOfAsync(deleted)).Nanos);
                Assert.NotNull((await ClosedRunAsync(pod)).EndedAt);
                // The pod that took the lost one's place is charged from its own start.
                var runs = await Eventually.SeeAsync(() => RunsAsync(lost), all => all.Count == 2);
                var second = Assert.Single(await PodsAsync(team, "lost"));
                Assert.Equal(
                    new DateTimeOffset(second.Status.ContainerStatuses[0].State.Running.StartedAt!.Value), runs.Single(run => run.Accrues).StartedAt);
                Assert.True(Assert.Single(await RunsAsync(kept)).Accrues);
                Assert.True(await MetricAsync("tensormesh_informer_relists_total{kind=\"V1Pod\",cause=\"expired\"}") >= 1);
                await StartAsync(team, "new");
            });

    [Fact]
    public Task Black_holed_watches_make_the_operator_say_so_and_what_happened_meanwhile_is_picked_up_without_a_restart()
        => BehindAProxyAsync(
            new() { ["Tensormesh__Watch__Silence"] = "00:00:04", ["Tensormesh__StaleAfter"] = StaleAfter.ToString("c") },
            async proxy =>
            {
                var team = await OpenTeamAsync("5000.00");
                var (running, ending) = (await StartAsync(team, "running"), await StartAsync(team, "ending"));
                var pods = (await PodsAsync(team, "running")).Select(pod => pod.Uid()).ToList();
                await Eventually.SeeAsync(ReadinessAsync, answer => answer.Status == HttpStatusCode.OK);
                var process = Installation.OperatorPid;

                proxy.Freeze();
                await DeleteAsync(team, "ending");
                var (_, words) = await Eventually.SeeAsync(ReadinessAsync, answer => answer.Status == HttpStatusCode.ServiceUnavailable);
                Assert.StartsWith("nothing was heard of ", words, StringComparison.Ordinal);
                await Eventually.SeeAsync(() => MetricAsync("tensormesh_informer_staleness_seconds{kind=\"V1Pod\"}"), stale => stale > StaleAfter.TotalSeconds);
                Assert.Equal(pods, (await PodsAsync(team, "running")).Select(pod => pod.Uid()));
                Assert.All([.. await RunsAsync(running), .. await RunsAsync(ending)], run => Assert.True(run.Accrues));

                proxy.Heal();
                await UntilGoneAsync(team, "ending");
                await UntilNoHoldAsync(ending);
                await StartAsync(team, "new");
                await Eventually.SeeAsync(ReadinessAsync, answer => answer.Status == HttpStatusCode.OK);
                Assert.Equal(pods, (await PodsAsync(team, "running")).Select(pod => pod.Uid()));
                Assert.Equal(process, Installation.OperatorPid);
                Assert.True(await MetricAsync("tensormesh_informer_relists_total{kind=\"GpuDeployment\",cause=\"silent\"}") >= 1);
            });

    private async Task BehindAProxyAsync(Dictionary<string, string> settings, Func<FaultyProxy, Task> story)
    {
        await using var proxy = await FaultyProxy.StartAsync(Cluster, Ended);
        settings["Tensormesh__Kubeconfig"] = proxy.KubeconfigPath;
        try
        {
            await Product.RestartOperatorAsync(settings);
            await story(proxy);
        }
        finally
        {
            proxy.Heal();
            await Product.RestartOperatorAsync(new Dictionary<string, string>());
        }
    }

    private async Task RemoveByForceAsync(V1Pod pod)
    {
        await Client.CoreV1.DeleteNamespacedPodAsync(pod.Name(), pod.Namespace(), gracePeriodSeconds: 0, cancellationToken: Ended);
        await Client.CoreV1.PatchNamespacedPodAsync(
            new V1Patch("""{"metadata":{"finalizers":null}}""", V1Patch.PatchType.MergePatch), pod.Name(), pod.Namespace(), cancellationToken: Ended);
    }

    private static bool IsRunning(V1Pod pod) => pod.Status?.ContainerStatuses is [{ State.Running: not null }, ..];

    private async Task<(HttpStatusCode Status, string Words)> ReadinessAsync()
    {
        using var http = new HttpClient();
        using var answer = await http.GetAsync(new Uri(Installation.MetricsUrl, "/readyz"), Ended);
        return (answer.StatusCode, await answer.Content.ReadAsStringAsync(Ended));
    }

    /// <summary>0 for a series that is not there.</summary>
    private async Task<double> MetricAsync(string series) => double.Parse(
        (await Product.MetricsAsync()).Split('\n').SingleOrDefault(line => line.StartsWith(series + " ", StringComparison.Ordinal))?.Split(' ')[^1] ?? "0",
        CultureInfo.InvariantCulture);
}
