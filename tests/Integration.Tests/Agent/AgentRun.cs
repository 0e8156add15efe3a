using Microsoft.Extensions.Logging.Abstractions;
using Prometheus;
using Tensormesh.Agent;
using Tensormesh.Agent.Allocating;
using Tensormesh.Agent.Cluster;
using Tensormesh.Agent.Reporting;
using Tensormesh.Agent.Telemetry;
using Tensormesh.Devices;

namespace Tensormesh.Integration.Tests.Agents;

/// <summary>One agent, from its start to its end.</summary>
internal sealed class AgentRun : IAsyncDisposable
{
    private readonly Kubelet kubelet;
    private readonly NodeAgent agent;

    private readonly AgentMetrics metrics = new(Metrics.NewCustomRegistry(), TimeProvider.System);

    private AgentRun(IDeviceProbe probe, ApiServer server, AgentOptions options)
    {
        var time = TimeProvider.System;
        kubelet = new Kubelet(options.PodResourcesSocket, time);
        Readiness = new Readiness(options, time);
        agent = new NodeAgent(
            probe, new Allocations(kubelet, server, options, time, NullLogger<Allocations>.Instance), new GpuNodes(server, options),
            new NodeLabels(server, options, time, NullLogger<NodeLabels>.Instance), options, metrics, Readiness,
            time, NullLogger<NodeAgent>.Instance);
    }

    public Readiness Readiness { get; }

    /// <summary>Returns when it has looked this many times more, and told what there was to tell.</summary>
    public async Task UntilLookedAsync(int times)
    {
        var goal = Looks + times;
        await Eventually.SeeAsync(() => Task.FromResult(Looks), looks => looks >= goal);
    }

    private double Looks => metrics.Rounds.WithLabels("done").Value;

    public static async Task<AgentRun> StartAsync(IDeviceProbe probe, ApiServer server, AgentOptions options)
    {
        Assert.Empty(options.Problems());
        var run = new AgentRun(probe, server, options);
        await run.agent.StartAsync(TestContext.Current.CancellationToken);
        return run;
    }

    public async ValueTask DisposeAsync()
    {
        await agent.StopAsync(CancellationToken.None);
        agent.Dispose();
        kubelet.Dispose();
    }
}
