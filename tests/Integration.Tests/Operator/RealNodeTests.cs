using k8s;
using k8s.Models;
using Tensormesh.Billing;
using Tensormesh.Resources;
using Tensormesh.TestKit;

namespace Tensormesh.Integration.Tests.Operators;

/// <summary>The product on a cluster of its own, whose node's programs may be killed.</summary>
public sealed class RealNodeProduct : IAsyncLifetime
{
    private readonly ClusterFixture cluster = new();

    public OperatorFixture Product { get; private set; } = null!;

    public async ValueTask InitializeAsync()
    {
        await cluster.InitializeAsync();
        Product = new OperatorFixture(cluster);
        await Product.InitializeAsync();
    }

    public async ValueTask DisposeAsync()
    {
        if (Product is not null) await Product.DisposeAsync();
        await cluster.DisposeAsync();
    }
}

/// <summary>A real kubelet, a real container engine and real containers, charged by what they report.</summary>
public sealed class RealNodeTests(RealNodeProduct own) : OperatorTest(own.Product), IClassFixture<RealNodeProduct>
{
    private const string H100 = "NVIDIA-H100-80GB-HBM3";
    private const int Grace = 8;

    /// <summary>The node is there; only its price is missing.</summary>
    public override async ValueTask InitializeAsync() => await Product.PublishAsync("h100", (H100, OperatorFixture.PerHour));

    [Fact]
    public async Task A_container_engine_and_a_kubelet_that_crash_under_running_work_change_neither_pods_nor_charges()
    {
        NeedsRealNode();
        var team = await OpenTeamAsync("5000.00");
        var deployment = await StartOnH100Async(team, "steady", "trap 'exit 0' TERM; while :; do sleep 1; done");
        var pod = Assert.Single(await PodsAsync(team, "steady"));

        await Cluster.RestartContainerdAsync(Ended);
        await RunOneMoreAsync(team, "after-containerd");
        await AssertRunsOnAsync();

        await Cluster.RestartKubeletAsync();
        await RunOneMoreAsync(team, "after-kubelet");
        await AssertRunsOnAsync();

        async Task AssertRunsOnAsync()
        {
            await UntilSettledAsync(deployment, times: 1);
            var now = Assert.Single(await PodsAsync(team, "steady"));
            Assert.Equal((pod.Uid(), 0), (now.Uid(), now.Status.ContainerStatuses.Single().RestartCount));
            var run = Assert.Single(await RunsAsync(deployment));
            Assert.True(run.Accrues);
            Assert.Equal(pod.Status.ContainerStatuses.Single().State.Running.StartedAt, run.StartedAt.UtcDateTime);
        }
    }

    [Fact]
    public async Task A_container_that_ignores_sigterm_after_its_money_ran_out_drains_at_nobodys_cost()
    {
        NeedsRealNode();
        var team = await OpenTeamAsync("21.00");
        var deployment = await StartOnH100Async(team, "stubborn", "trap '' TERM; while :; do sleep 1; done");
        var pod = Assert.Single(await PodsAsync(team, "stubborn"));
        await KeepInSightAsync(pod);
        var exhausts = (await StandingAsync(team.Account)).ExhaustsAt!.Value;

        var finished = await FinishedAtAsync(pod);
        var run = await ClosedRunAsync(pod);
        Assert.InRange((run.ChargeUntil!.Value - exhausts).Duration(), TimeSpan.Zero, TimeSpan.FromMicroseconds(2));
        Assert.Equal(finished, run.EndedAt);
        // It ran on for its grace, which is not charged: not a nano more than the account had.
        Assert.True(finished - run.ChargeUntil.Value > TimeSpan.FromSeconds(Grace - 2), $"charged until {run.ChargeUntil:O}, finished at {finished:O}");
        Assert.Equal(Rating.Due(run.ChargeUntil.Value - run.StartedAt, run.PerGpuHour, 1), run.Total);
        Assert.InRange((await PostedAsync(team.Account)).Nanos, 0, 1000);
        await LetGoAsync(pod);
        await UntilNoHoldAsync(deployment);
    }

    /// <summary>Shows that the node works again.</summary>
    private async Task RunOneMoreAsync(Team team, string name)
    {
        await StartOnH100Async(team, name, "trap 'exit 0' TERM; while :; do sleep 1; done");
        await DeleteAsync(team, name);
    }

    private Task<GpuDeployment> StartOnH100Async(Team team, string name, string command) => StartAsync(team, name, change: deployment =>
    {
        deployment.Spec.Gpu.Product = H100;
        deployment.Spec.Template.Spec.TerminationGracePeriodSeconds = Grace;
        deployment.Spec.Template.Spec.Containers[0].Command = ["sh", "-c", command];
        deployment.Spec.Template.Spec.Containers[0].ImagePullPolicy = "IfNotPresent";
    });

    private void NeedsRealNode()
    {
        if (Cluster.HasRealNode) return;
        Assert.True(Environment.GetEnvironmentVariable("CI") is null or "", "CI must run on a machine where gpu-a is real");
        Assert.Skip("gpu-a is hollow here: a real node needs root on Linux");
    }
}
