using Tensormesh.Billing;
using Tensormesh.TestKit;

namespace Tensormesh.Benchmarks;

/// <summary>What the operator takes of a machine's memory while it looks after 10,000 GpuDeployments, 2,000 of them running, after it has started them all.</summary>
internal static class MemoryBenchmark
{
    private const int Count = 10_000;
    private const int Teams = 100;
    /// <summary>A fifth of the teams can pay, and what they asked for runs.</summary>
    private const int Rich = 20;
    private const int Running = Count / Teams * Rich;
    private const int GpusOfANode = 8;
    private const int Samplings = 60;
    private static readonly TimeSpan Between = TimeSpan.FromSeconds(1);

    public static async Task RunAsync(Workplace workplace, CancellationToken cancellation)
    {
        await using var cluster = await DevCluster.StartAsync(new DevClusterOptions { RealNode = false }, line => Workplace.Say($"{line}"), cancellation);
        await using var product = await Installation.PrepareAsync(cluster, new InstallationOptions { Webhook = false }, cancellation);
        await using var database = BillingServices.OpenDataSource(product.ConnectionString);
        var backlog = new Backlog(cluster, database, Teams);
        await product.StartOperatorAsync(cancellation);
        Workplace.Say($"operator of an empty cluster: {ProcessUsage.ResidentMegabytes(product.OperatorPid):0} MB");
        await cluster.Hollow.AddAsync(
            Enumerable.Range(0, Running / GpusOfANode).Select(i => HollowNodeOptions.H100($"gpu-{i}") with
            {
                LeaseRenewEvery = TimeSpan.FromSeconds(10),
                StatusEvery = TimeSpan.FromMinutes(5),
            }),
            cancellation);
        await backlog.OpenAsync(Rich, cancellation);

        await backlog.CreateGpuDeploymentsAsync(Count, cancellation);
        Workplace.Say($"{Count} GpuDeployments created: {ProcessUsage.ResidentMegabytes(product.OperatorPid):0} MB");
        await Backlog.UntilAsync("running", async token =>
            await backlog.CountAsync("select count(*) from run_interval where ended_at is null", token) == Running, cancellation);
        Workplace.Say($"{Running} of them run: {ProcessUsage.ResidentMegabytes(product.OperatorPid):0} MB");

        // Long enough for a settlement, which looks at everything that runs.
        var samples = new List<double>();
        for (var i = 0; i < Samplings; i++)
        {
            await Task.Delay(Between, TimeProvider.System, cancellation);
            samples.Add(ProcessUsage.ResidentMegabytes(product.OperatorPid));
        }

        workplace.Report(
            "rss_mb", samples.Max(), "MB", "<=250",
            $"VmRSS of the operator, the most of {Samplings} s, {Count} GpuDeployments of {Teams} accounts, {Running} running on {Running / GpusOfANode} nodes; peak since its start (VmHWM) {ProcessUsage.PeakMegabytes(product.OperatorPid):0} MB");
    }
}
