using k8s.Models;
using Tensormesh.Billing;
using Tensormesh.Resources;
using Tensormesh.TestKit;

namespace Tensormesh.Integration.Tests.Operators;

/// <summary>The API server is away for longer than an operator may lead without it, and whatever ends is started again.</summary>
public sealed class SupervisedOutageTests(FaultFixture faults) : FaultTest(faults)
{
    /// <summary>Twice as long as the lease is when nobody sets it otherwise.</summary>
    private static readonly TimeSpan Outage = TimeSpan.FromSeconds(30);

    [Fact]
    public async Task After_an_outage_longer_than_the_lease_all_is_as_wanted_nothing_was_stopped_and_every_second_is_charged_once()
    {
        Assert.SkipWhen(Cluster.IsUsersOwn, "a user's own cluster is not stopped");
        var (rich, poor) = (await OpenTeamAsync("5000.00"), await OpenTeamAsync("30.00"));
        var (running, ending) = (await StartAsync(rich, "running", replicas: 2), await StartAsync(rich, "ending"));
        var (pods, last) = (await PodsAsync(rich, "running"), Assert.Single(await PodsAsync(rich, "ending")));
        foreach (var pod in (V1Pod[])[.. pods, last]) await KeepInSightAsync(pod);
        var broke = await StartAsync(poor, "train");
        var exhausts = Assert.Single(await RunsAsync(broke)).StartedAt + TimeSpan.FromSeconds(30);
        V1Pod caught;

        await using (var supervisor = new Supervisor(Installation))
        {
            // Whatever step of these the outage falls into.
            await DeleteAsync(rich, "ending");
            await CreateAsync(Deployment(rich, "caught"));
            await Cluster.StopApiServerAsync();
            try
            {
                var back = Instants.Later(await LedgerNowAsync() + Outage, exhausts + OperatorFixture.Options.SuspensionTolerance + TimeSpan.FromSeconds(1));
                await Eventually.SeeAsync(() => Task.FromResult(supervisor.ExitCodes.Count), exits => exits > 0);
                await UntilAsync(back);
            }
            finally
            {
                await Cluster.StartApiServerAsync();
            }

            await SeeStoppedAsync(poor, "train", nameof(RefusalReason.InsufficientBalance));
            var end = await FinishedAtAsync(last);
            Assert.Equal(end, (await ClosedRunAsync(last)).EndedAt);
            await LetGoAsync(last);
            await UntilGoneAsync(rich, "ending");
            await SeeExactlyAsync(rich, ("caught", 1), ("running", 2));
            Assert.Equal(Uids(pods), Uids(await PodsAsync(rich, "running")));
            Assert.Equal(2, (await RunsAsync(running)).Count);
            await UntilSettledAsync(running, times: 1);
            // The first lost its lease. What was started in its place waited for the server, and was not started again and again.
            Assert.Equal([1], supervisor.ExitCodes);

            caught = Assert.Single(await PodsAsync(rich, "caught"));
            await KeepInSightAsync(caught);
        }

        foreach (var name in (string[])["running", "caught"]) await DeleteAsync(rich, name);
        var due = Money.Zero;
        foreach (var pod in (V1Pod[])[.. pods, caught])
        {
            due += Due(pod, await FinishedAtAsync(pod));
            await ClosedRunAsync(pod);
            await LetGoAsync(pod);
        }

        due += Due(last, (await RunAsync(last)).EndedAt!.Value);
        foreach (var name in (string[])["running", "caught"]) await UntilGoneAsync(rich, name);
        Assert.Equal(Money.Parse("5000.00") - due, await PostedAsync(rich.Account));
        Assert.Equal(0, await HoldsAsync(rich.Account));
        Assert.Equal(-1, (await HoldOfAsync(ending)).Nanos);

        var run = Assert.Single(await RunsAsync(broke));
        Assert.Equal((exhausts, Money.Zero), (run.ChargeUntil!.Value, await PostedAsync(poor.Account)));
        await AssertWrittenOffOnceAsync(poor, run);
    }

    /// <summary>As the kubelet measured it, whatever the operator wrote.</summary>
    private static Money Due(V1Pod pod, DateTimeOffset finishedAt) => Rating.Due(
        finishedAt - new DateTimeOffset(DateTime.SpecifyKind(pod.Status.ContainerStatuses[0].State.Running.StartedAt!.Value, DateTimeKind.Utc)),
        Money.Parse(OperatorFixture.PerHour), 1);

    private static string Uids(IEnumerable<V1Pod> pods) => string.Join(' ', pods.Select(pod => pod.Uid()).Order(StringComparer.Ordinal));

    /// <summary>Starts the operator again whenever it has ended, as a kubelet does.</summary>
    private sealed class Supervisor : IAsyncDisposable
    {
        private readonly CancellationTokenSource stopping = new();
        private readonly List<int> exitCodes = [];
        private readonly Task supervising;

        public Supervisor(Installation installation) => supervising = SuperviseAsync(installation);

        /// <summary>Of each that ended, in order.</summary>
        public IReadOnlyList<int> ExitCodes
        {
            get { lock (exitCodes) return [.. exitCodes]; }
        }

        public async ValueTask DisposeAsync()
        {
            await stopping.CancelAsync();
            await supervising;
            stopping.Dispose();
        }

        private async Task SuperviseAsync(Installation installation)
        {
            while (!stopping.IsCancellationRequested)
            {
                if (installation.OperatorExitCode is { } code)
                {
                    await installation.KillOperatorAsync();
                    await installation.LaunchOperatorAsync();
                    lock (exitCodes) exitCodes.Add(code);
                }

                await Task.Delay(TimeSpan.FromMilliseconds(50), TimeProvider.System, CancellationToken.None);
            }
        }
    }
}
