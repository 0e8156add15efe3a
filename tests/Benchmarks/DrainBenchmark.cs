using System.Diagnostics;
using Tensormesh.Billing;
using Tensormesh.TestKit;

namespace Tensormesh.Benchmarks;

/// <summary>
/// How long our operator takes to work off 1,000 GpuDeployments that were there before it started, over what kube-controller-manager takes to make
/// ReplicaSets of 1,000 Deployments on the same server. Each is alone, a process of its own, timed from its start.
/// </summary>
internal static class DrainBenchmark
{
    private const int Count = 1_000;
    private const int Teams = 100;
    private const int Rounds = 3;
    private static readonly TimeSpan Poll = TimeSpan.FromMilliseconds(20);

    // The Deployment controller alone: the others would only take processor time from it.
    private static readonly ControllerManagerOptions Unthrottled = new() { Controllers = "deployment" };
    private static readonly ControllerManagerOptions AsShipped = ControllerManagerOptions.AsShipped with { Controllers = "deployment" };

    public static async Task RunAsync(Workplace workplace, CancellationToken cancellation)
    {
        await using var cluster = await DevCluster.StartAsync(
            new DevClusterOptions { RealNode = false, ControllerManager = null }, line => Workplace.Say($"{line}"), cancellation);
        await using var product = await Installation.PrepareAsync(cluster, new InstallationOptions { Webhook = false }, cancellation);
        await using var database = BillingServices.OpenDataSource(product.ConnectionString);
        var backlog = new Backlog(cluster, database, Teams);
        await product.StartOperatorAsync(cancellation);
        await backlog.OpenAsync(rich: Teams, cancellation);
        await product.StopOperatorAsync();

        var (ours, unthrottled) = (new List<double>(), new List<double>());
        for (var round = 1; round <= Rounds; round++)
        {
            // In turns, so that what else the machine does meets both.
            unthrottled.Add(await PeerAsync(cluster, backlog, Unthrottled, cancellation));
            ours.Add(await OursAsync(product, backlog, cancellation));
            Workplace.Say($"round {round}: controller manager {unthrottled[^1]:0.00} s, operator {ours[^1]:0.00} s, load {Workplace.LoadAverage()}");
        }

        var asShipped = await PeerAsync(cluster, backlog, AsShipped, cancellation);
        Workplace.Say($"controller manager as shipped: {asShipped:0.00} s, load {Workplace.LoadAverage()}");

        var median = Samples.Median(ours);
        workplace.Report("drain_seconds", median, "s", null, $"{Count} GpuDeployments of {Teams} accounts until each has its hold and its child Deployment, from the operator's start");
        workplace.Report(
            "drain_ratio", median / asShipped, "ratio", "<=1.0",
            $"kube-controller-manager, {Describe(AsShipped)} (its defaults), making ReplicaSets of {Count} Deployments, from its start");
        workplace.Report(
            "drain_unthrottled_ratio", median / Samples.Median(unthrottled), "ratio", "<=1.0",
            $"the same, {Describe(Unthrottled)}: {Samples.Median(unthrottled):0.00} s");
    }

    private static async Task<double> OursAsync(Installation product, Backlog backlog, CancellationToken cancellation)
    {
        await backlog.CreateGpuDeploymentsAsync(Count, cancellation);
        var began = Stopwatch.GetTimestamp();
        var starting = product.StartOperatorAsync(cancellation);
        await UntilAsync(backlog.DeploymentsAsync, cancellation);
        await UntilAsync(backlog.HoldsAsync, cancellation);
        var took = Stopwatch.GetElapsedTime(began).TotalSeconds;
        await starting;
        Workplace.Say($"operator: {took:0.00} s, of which it was on a processor for {ProcessUsage.CpuSeconds(product.OperatorPid):0.0} s");
        await backlog.DeleteGpuDeploymentsAsync(cancellation);
        await product.StopOperatorAsync();
        return took;
    }

    private static async Task<double> PeerAsync(DevCluster cluster, Backlog backlog, ControllerManagerOptions options, CancellationToken cancellation)
    {
        await backlog.CreateDeploymentsAsync(Count, cancellation);
        var began = Stopwatch.GetTimestamp();
        await cluster.StartControllerManagerAsync(options);
        await UntilAsync(backlog.ReplicaSetsAsync, cancellation);
        var took = Stopwatch.GetElapsedTime(began).TotalSeconds;
        await cluster.StopControllerManagerAsync();
        await backlog.DeleteDeploymentsAsync(cancellation);
        return took;
    }

    private static async Task UntilAsync(Func<CancellationToken, Task<long>> count, CancellationToken cancellation)
    {
        while (await count(cancellation) < Count) await Task.Delay(Poll, TimeProvider.System, cancellation);
    }

    private static string Describe(ControllerManagerOptions options)
        => $"--kube-api-qps {options.QueriesPerSecond} --kube-api-burst {options.Burst} --concurrent-deployment-syncs {options.DeploymentSyncs}";
}
