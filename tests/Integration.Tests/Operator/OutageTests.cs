using k8s;
using k8s.Models;
using Tensormesh.Billing;
using Tensormesh.Resources;

namespace Tensormesh.Integration.Tests.Operators;

/// <summary>The operator is killed; the ledger is away. Nobody pays for that, and nothing that runs is harmed.</summary>
public sealed class OutageTests(OperatorFixture product) : OperatorTest(product)
{
    /// <summary>
    /// One kill for both stories, because a killed operator's lease must be waited out: work that goes on, is deleted or replaced meanwhile
    /// is charged exactly; a balance that ended meanwhile is charged to its end, and what ran on is written off.
    /// </summary>
    [Fact]
    public async Task What_happened_while_the_operator_was_dead_is_charged_exactly_and_what_ran_past_a_balance_is_written_off()
    {
        var (rich, poor) = (await OpenTeamAsync("5000.00"), await OpenTeamAsync("20.00"));
        var broke = await StartAsync(poor, "train");
        var (kept, replaced, deleted) = (await StartAsync(rich, "kept"), await StartAsync(rich, "replaced"),
            await StartAsync(rich, "deleted"));
        var first = Assert.Single(await PodsAsync(rich, "replaced"));
        var last = Assert.Single(await PodsAsync(rich, "deleted"));
        await KeepInSightAsync(first);
        await KeepInSightAsync(last);
        // With a lease of 15 s to wait out, the operator is back well after the balance has ended and the tolerance is over.
        var exhausts = (await StandingAsync(poor.Account)).ExhaustsAt!.Value;
        await Eventually.SeeAsync(() => Task.FromResult(TimeProvider.System.GetUtcNow()), now => exhausts - now < TimeSpan.FromSeconds(7));

        await Installation.KillOperatorAsync();
        try
        {
            await Client.CoreV1.DeleteNamespacedPodAsync(first.Name(), rich.Namespace, cancellationToken: Ended);
            await DeleteAsync(rich, "deleted");
            await Client.CoreV1.DeleteNamespacedPodAsync(last.Name(), rich.Namespace, cancellationToken: Ended);
            var ends = (await FinishedAtAsync(first), await FinishedAtAsync(last));
            Assert.All([await RunAsync(first), await RunAsync(last), (await RunsAsync(broke)).Single()], run => Assert.True(run.Accrues));
            await Installation.StartOperatorAsync(Ended);

            Assert.Equal(ends, ((await ClosedRunAsync(first)).EndedAt!.Value, (await ClosedRunAsync(last)).EndedAt!.Value));
        }
        finally
        {
            await EnsureOperatorAsync();
        }

        await LetGoAsync(first);
        await LetGoAsync(last);
        await UntilGoneAsync(rich, "deleted");
        Assert.Equal(-1, (await HoldOfAsync(deleted)).Nanos);
        // The pod that took the deleted one's place while nobody watched is charged from its own start.
        var runs = await Eventually.SeeAsync(() => RunsAsync(replaced), all => all.Count == 2 && all.Count(run => run.Accrues) == 1);
        var second = Assert.Single(await PodsAsync(rich, "replaced"));
        Assert.Equal(
            new DateTimeOffset(second.Status.ContainerStatuses[0].State.Running.StartedAt!.Value),
            runs.Single(run => run.Accrues).StartedAt);
        Assert.True(Assert.Single(await RunsAsync(kept)).Accrues);
        await UntilSettledAsync(kept, times: 1);
        // Nothing was charged past its end, so nothing had to be given back.
        Assert.Equal(Money.Zero, await SumAsync("GpuUsageCorrection", $"customer:{rich.Account}"));

        await SeeStoppedAsync(poor, "train", "InsufficientBalance");
        var run = Assert.Single(await RunsAsync(broke));
        Assert.InRange((run.ChargeUntil!.Value - exhausts).Duration(), TimeSpan.Zero, TimeSpan.FromMicroseconds(2));
        Assert.InRange((await PostedAsync(poor.Account)).Nanos, 0, 1001);
        var decided = new DateTimeOffset(
            await ScalarAsync<DateTime>($"select decided_at from suspension where account = '{poor.Account}'"));
        Assert.True(decided - run.ChargeUntil.Value > OperatorFixture.Options.SuspensionTolerance, $"decided at {decided:O}");
        var lost = Rating.Due(decided - run.StartedAt, run.PerGpuHour, run.Gpus) - run.Total;
        Assert.Equal(lost, new Money(await ScalarAsync<long>(
            $"""
            select e.amount_nanos from ledger_transaction t join ledger_entry e on e.transaction_position = t.position
            join ledger_account a on a.id = e.ledger_account
            where t.type = 'Uncollected' and a.name = 'revenue:gpu' and t.details ->> 'account' = '{poor.Account}'
            """)));
        Assert.True(await MetricAsync("tensormesh_uncollected_dollars_total") > 0);
    }

    /// <summary>Half a minute, through which running work, new work and work whose balance ends meanwhile have to wait alike.</summary>
    [Fact]
    public async Task While_the_ledger_is_away_nothing_stops_and_nothing_starts_and_afterwards_every_second_is_charged_once()
    {
        var (team, poor) = (await OpenTeamAsync("5000.00"), await OpenTeamAsync("20.00"));
        var running = await StartAsync(team, "running", replicas: 2);
        var pausing = await StartAsync(team, "pausing");
        var paused = Assert.Single(await PodsAsync(team, "pausing"));
        await KeepInSightAsync(paused);
        await UntilSettledAsync(running, times: 1);
        var pods = Uids(await PodsAsync(team, "running"));
        var broke = await StartAsync(poor, "train");
        var exhausts = (await StandingAsync(poor.Account)).ExhaustsAt!.Value;
        DateTimeOffset finished;

        var stopped = TimeProvider.System.GetUtcNow();
        await Cluster.Postgres.StopAsync();
        try
        {
            var applied = await KubectlAsync("apply", "-f", await FileAsync(Deployment(team, "new")));
            Assert.Contains("created", applied, StringComparison.Ordinal);
            var waiting = await SeeAsync(team, "new", seen =>
                Condition(seen, ConditionTypes.BillingAuthorized)?.Reason == ConditionReasons.LedgerUnavailable);
            Assert.Equal(("Unknown", "False"),
                (Condition(waiting, ConditionTypes.BillingAuthorized)!.Status, Condition(waiting, ConditionTypes.Ready)!.Status));
            Assert.Null(await ChildAsync(team, "new"));
            // What runs is looked at when something about it changes: its own label will do.
            await PatchAsync(team, "running", new { metadata = new { labels = new { purpose = "test" } } });
            var told = await SeeAsync(team, "running", seen => Condition(seen, ConditionTypes.BillingAuthorized)?.Status == "Unknown");
            Assert.Equal("True", Condition(told, ConditionTypes.Ready)!.Status);

            // The customer's own wish to stop needs no ledger.
            await PatchAsync(team, "pausing", new { spec = new { paused = true } });
            finished = await FinishedAtAsync(paused);
            Assert.Equal(0, await MetricAsync("tensormesh_ledger_up"));
            var back = Instants.Later(stopped + TimeSpan.FromSeconds(30), exhausts + OperatorFixture.Options.SuspensionTolerance);
            await Eventually.SeeAsync(() => Task.FromResult(TimeProvider.System.GetUtcNow()), now => now > back);
            Assert.Null(Assert.Single(await PodsAsync(poor, "train")).Metadata.DeletionTimestamp);
            Assert.Equal(pods, Uids(await PodsAsync(team, "running")));
            Assert.Empty(await PodsAsync(team, "new"));
        }
        finally
        {
            await Cluster.Postgres.RestartAsync();
            Product.Database.Clear();
        }

        await UntilRunningAsync(team, "new");
        await UntilRunningAsync(team, "running", replicas: 2);
        Assert.Equal(pods, Uids(await PodsAsync(team, "running")));
        Assert.Equal(finished, (await ClosedRunAsync(paused)).EndedAt);
        await LetGoAsync(paused);
        await UntilNoHoldAsync(pausing);
        await UntilSettledAsync(running, times: 1);
        Assert.Equal(2, (await RunsAsync(running)).Count);
        await Eventually.SeeAsync(() => MetricAsync("tensormesh_ledger_up"), up => up == 1);

        // What its balance did not cover was nobody's fault but the outage's, and nobody pays for it.
        await SeeStoppedAsync(poor, "train", "InsufficientBalance");
        var run = Assert.Single(await RunsAsync(broke));
        Assert.Equal(exhausts, run.ChargeUntil);
        Assert.True(await ScalarAsync<long>($"select uncollected_nanos from suspension where account = '{poor.Account}'") > 0);
    }

    [Fact]
    public async Task The_webhook_lets_pass_with_a_warning_what_it_cannot_check()
    {
        var team = await OpenTeamAsync("5000.00");
        var file = await FileAsync(Deployment(team, "new"));
        await Cluster.Postgres.StopAsync();
        try
        {
            using var process = System.Diagnostics.Process.Start(new System.Diagnostics.ProcessStartInfo(
                "kubectl",
                    ["--kubeconfig", Cluster.KubeconfigPath, "apply", "--dry-run=server", "-f", file])
            { RedirectStandardError = true })!;
            Assert.Contains("Warning: the ledger cannot be read right now", await process.StandardError.ReadToEndAsync(Ended),
                StringComparison.Ordinal);
        }
        finally
        {
            await Cluster.Postgres.RestartAsync();
            Product.Database.Clear();
        }

        await Eventually.SeeAsync(() => RefusalOfAsync(Deployment(team, "new", replicas: 60, gpus: 16), dryRun: true), refusal =>
            refusal is not null);
    }

    private async Task EnsureOperatorAsync()
    {
        try
        {
            _ = Installation.OperatorPid;
        }
        catch (InvalidOperationException)
        {
            await Installation.StartOperatorAsync(Ended);
        }
    }

    /// <summary>In the cluster's own folder, which goes with it.</summary>
    private async Task<string> FileAsync(GpuDeployment deployment)
    {
        var file = Path.Combine(Cluster.StateDirectory, $"{deployment.Namespace()}-{deployment.Name()}.yaml");
        await File.WriteAllTextAsync(file, KubernetesYaml.Serialize(deployment), Ended);
        return file;
    }

    private async Task<double> MetricAsync(string name) => double.Parse(
        (await Product.MetricsAsync()).Split('\n').Single(line => line.StartsWith(name + " ", StringComparison.Ordinal)).Split(' ')[1],
        System.Globalization.CultureInfo.InvariantCulture);

    private static string Uids(IEnumerable<V1Pod> pods) => string.Join(' ', pods.Select(pod => pod.Uid()).Order(StringComparer.Ordinal));
}
