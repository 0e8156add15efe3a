using System.Diagnostics;
using Grpc.Core;
using k8s;
using k8s.Models;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Server.Kestrel.Core;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;
using Tensormesh.Agent.Allocating.V1;
using Tensormesh.Resources;
using Tensormesh.TestKit;

namespace Tensormesh.Benchmarks;

/// <summary>
/// What the published agent takes of a GPU node, its worker process included: memory after as many probes, heartbeats, scrapes and new workers as
/// there are in an hour, and processor time at its default cadence. Eight mock devices, a real API server, and a kubelet's socket that says of
/// four containers that they hold a GPU each.
/// </summary>
internal static class AgentBenchmark
{
    private const string Node = "bench";
    private const int Gpus = 8;
    private const int Holders = 4;
    private const int ProbesAnHour = 360;
    private const int Samplings = 10;

    /// <summary>An hour passes in 72 seconds.</summary>
    private const double Hurry = 50;

    private static readonly TimeSpan ProbeEvery = TimeSpan.FromSeconds(10);
    private static readonly TimeSpan HeartbeatEvery = TimeSpan.FromSeconds(60);
    private static readonly TimeSpan WorkerLifetime = TimeSpan.FromMinutes(10);

    /// <summary>As Prometheus and a kubelet's readiness probe ask by their own defaults.</summary>
    private static readonly TimeSpan ScrapeEvery = TimeSpan.FromSeconds(30), ReadyEvery = TimeSpan.FromSeconds(10);

    private static readonly TimeSpan WarmUp = TimeSpan.FromSeconds(45), Measured = TimeSpan.FromSeconds(180);

    public static async Task RunAsync(Workplace workplace, CancellationToken cancellation)
    {
        // Another executable may be looked at instead, such as the one that `dotnet build` makes.
        var executable = Environment.GetEnvironmentVariable("TENSORMESH_BENCH_AGENT") is { Length: > 0 } given
            ? given : await AgentProcess.PublishAsync(line => Workplace.Say($"{line}"), cancellation);
        var driver = await MockDriver.BuildAsync(line => Workplace.Say($"{line}"), cancellation);
        var gpus = MockGpus.OfNode(Node, Gpus);
        await using var cluster = await DevCluster.StartAsync(new DevClusterOptions { RealNode = false }, line => Workplace.Say($"{line}"), cancellation);
        var devices = Path.Combine(cluster.StateDirectory, "gpus.json");
        gpus.Save(devices);
        await using var product = await Installation.PrepareAsync(cluster, new InstallationOptions { Webhook = false }, cancellation);
        await AgentRights.GrantAsync(cluster, cancellation);
        await cluster.AddHollowNodeAsync(HollowNodeOptions.H100(Node), cancellation);
        var agentsPod = await AgentRights.CreatePodAsync(cluster, Node, cancellation);
        var socket = Path.Combine(cluster.StateDirectory, "kubelet.sock");
        await using var kubelet = await PodResources.ServeAsync(socket, await HoldersAsync(cluster, gpus, cancellation));
        var settings = new Dictionary<string, string>
        {
            ["Tensormesh__Agent__NodeName"] = Node,
            ["Tensormesh__Agent__Kubeconfig"] = await AgentRights.WriteKubeconfigAsync(cluster, agentsPod, cancellation),
            ["Tensormesh__Agent__PodResourcesSocket"] = socket,
            ["Tensormesh__Agent__Probe__CudaLibrary"] = driver.CudaLibrary,
            ["Tensormesh__Agent__Probe__NvmlLibrary"] = driver.NvmlLibrary,
            [MockDriver.EnvironmentVariable] = devices,
        };
        var subject = $"agent and its worker process, {Path.GetRelativePath(Repository.Root, executable)} ({new FileInfo(executable).Length / 1e6:0} MB), {Gpus} mock devices, {Holders} held";
        await MemoryAsync(workplace, cluster, executable, settings, subject, cancellation);
        await ProcessorAsync(workplace, cluster, executable, settings, subject, cancellation);
    }

    private static async Task MemoryAsync(
        Workplace workplace, DevCluster cluster, string executable, Dictionary<string, string> settings, string subject, CancellationToken cancellation)
    {
        var hurried = new Dictionary<string, string>(settings)
        {
            ["Tensormesh__Agent__ProbeInterval"] = (ProbeEvery / Hurry).ToString("c"),
            ["Tensormesh__Agent__HeartbeatInterval"] = (HeartbeatEvery / Hurry).ToString("c"),
            ["Tensormesh__Agent__Probe__WorkerLifetime"] = (WorkerLifetime / Hurry).ToString("c"),
        };
        await using var agent = await AgentProcess.StartAsync(cluster, executable, hurried, cancellation);
        Workplace.Say($"after its start: {Describe(agent)}");
        using (var asking = CancellationTokenSource.CreateLinkedTokenSource(cancellation))
        {
            var asked = AskAsync(agent, Hurry, asking.Token);
            while (await RoundsAsync(agent, cancellation) < ProbesAnHour) await Task.Delay(ProbeEvery / Hurry, TimeProvider.System, cancellation);
            await asking.CancelAsync();
            await asked;
        }

        var samples = new List<double>();
        for (var i = 0; i < Samplings; i++)
        {
            await Task.Delay(TimeSpan.FromSeconds(1), TimeProvider.System, cancellation);
            samples.Add(Megabytes(agent));
        }

        Workplace.Say($"after {ProbesAnHour} probes: {Describe(agent)}; {Samples.List(samples)}");
        workplace.Report(
            "agent_rss_mb", samples.Max(), "MB", "<=40",
            $"VmRSS of the {subject}, added up, after an hour's {ProbesAnHour} probes with its heartbeats, scrapes and workers, the most of {Samplings} s; {Describe(agent)}");
    }

    private static async Task ProcessorAsync(
        Workplace workplace, DevCluster cluster, string executable, Dictionary<string, string> settings, string subject, CancellationToken cancellation)
    {
        await using var agent = await AgentProcess.StartAsync(cluster, executable, settings, cancellation);
        using var asking = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        var asked = AskAsync(agent, hurry: 1, asking.Token);
        await Task.Delay(WarmUp, TimeProvider.System, cancellation);
        var (worker, agents, workers, began) = (agent.WorkerPid!.Value, ProcessUsage.CpuSeconds(agent.Pid), ProcessUsage.CpuSeconds(agent.WorkerPid!.Value), Stopwatch.GetTimestamp());
        await Task.Delay(Measured, TimeProvider.System, cancellation);
        var seconds = Stopwatch.GetElapsedTime(began).TotalSeconds;
        if (agent.WorkerPid != worker) throw new InvalidOperationException("the worker was replaced while it was measured");
        agents = ProcessUsage.CpuSeconds(agent.Pid) - agents;
        workers = ProcessUsage.CpuSeconds(worker) - workers;
        await asking.CancelAsync();
        await asked;
        workplace.Report(
            "agent_cpu_percent", 100 * (agents + workers) / seconds, "%", "<=0.1",
            $"user and system time of the {subject}, share of one core over {seconds:0} s at the default cadence; agent {agents * 1000:0} ms, worker {workers * 1000:0} ms, load {Workplace.LoadAverage()}");
    }

    /// <summary>Scrapes and asks for readiness, as the cluster does.</summary>
    private static async Task AskAsync(AgentProcess agent, double hurry, CancellationToken cancellation)
    {
        using var http = new HttpClient { BaseAddress = agent.Url };
        await Task.WhenAll(EveryAsync(ScrapeEvery, "/metrics"), EveryAsync(ReadyEvery, "/readyz"));

        async Task EveryAsync(TimeSpan pause, string path)
        {
            try
            {
                while (true)
                {
                    using var answer = await http.GetAsync(new Uri(path, UriKind.Relative), cancellation);
                    answer.EnsureSuccessStatusCode();
                    await Task.Delay(pause / hurry, TimeProvider.System, cancellation);
                }
            }
            catch (OperationCanceledException) when (cancellation.IsCancellationRequested)
            {
            }
        }
    }

    private static async Task<double> RoundsAsync(AgentProcess agent, CancellationToken cancellation)
    {
        using var http = new HttpClient { BaseAddress = agent.Url };
        var text = await http.GetStringAsync(new Uri("/metrics", UriKind.Relative), cancellation);
        const string Done = "tensormesh_agent_rounds_total{outcome=\"done\"} ";
        return text.Split('\n').FirstOrDefault(line => line.StartsWith(Done, StringComparison.Ordinal)) is { } line
            ? double.Parse(line[Done.Length..], System.Globalization.CultureInfo.InvariantCulture) : 0;
    }

    private static double Megabytes(AgentProcess agent) =>
        ProcessUsage.ResidentMegabytes(agent.Pid) + (agent.WorkerPid is { } worker ? ProcessUsage.ResidentMegabytes(worker) : 0);

    private static string Describe(AgentProcess agent) => FormattableString.Invariant(
        $"agent {ProcessUsage.ResidentMegabytes(agent.Pid):0.0} MB (most {ProcessUsage.PeakMegabytes(agent.Pid):0.0}), worker {(agent.WorkerPid is { } worker ? ProcessUsage.ResidentMegabytes(worker) : 0):0.0} MB");

    /// <summary>Pods that the hollow kubelet has taken in, and that a real one would name as holding the first GPUs.</summary>
    private static async Task<ListPodResourcesResponse> HoldersAsync(DevCluster cluster, MockGpus gpus, CancellationToken cancellation)
    {
        var answer = new ListPodResourcesResponse();
        for (var i = 0; i < Holders; i++)
        {
            var pod = await cluster.Client.CoreV1.CreateNamespacedPodAsync(
                new V1Pod
                {
                    Metadata = new V1ObjectMeta { Name = $"trainer-{i}" },
                    Spec = new V1PodSpec
                    {
                        NodeName = Node,
                        ServiceAccountName = WellKnown.AgentAccount,
                        Tolerations = [new V1Toleration { OperatorProperty = "Exists" }],
                        Containers = [new V1Container { Name = "main", Image = DevCluster.WorkloadImage }],
                    },
                },
                Installation.AgentNamespace, cancellationToken: cancellation);
            while ((await cluster.Client.CoreV1.ReadNamespacedPodAsync(pod.Name(), pod.Namespace(), cancellationToken: cancellation)).Status.StartTime is null)
                await Task.Delay(TimeSpan.FromMilliseconds(100), TimeProvider.System, cancellation);
            answer.PodResources.Add(new Tensormesh.Agent.Allocating.V1.PodResources
            {
                Name = pod.Name(),
                Namespace = pod.Namespace(),
                Containers =
                {
                    new ContainerResources { Name = "main", Devices = { new ContainerDevices { ResourceName = WellKnown.GpuResource, DeviceIds = { gpus.Devices[i].Uuid } } } },
                },
            });
        }

        return answer;
    }

    /// <summary>A kubelet's PodResources socket that always says the same.</summary>
    private sealed class PodResources(ListPodResourcesResponse answer) : PodResourcesLister.PodResourcesListerBase
    {
        public static async Task<WebApplication> ServeAsync(string socket, ListPodResourcesResponse answer)
        {
            var builder = WebApplication.CreateSlimBuilder();
            builder.Logging.ClearProviders();
            builder.Services.AddGrpc();
            builder.Services.AddSingleton(new PodResources(answer));
            builder.WebHost.ConfigureKestrel(kestrel => kestrel.ListenUnixSocket(socket, listen => listen.Protocols = HttpProtocols.Http2));
            var app = builder.Build();
            app.MapGrpcService<PodResources>();
            await app.StartAsync();
            return app;
        }

        public override Task<ListPodResourcesResponse> List(ListPodResourcesRequest request, ServerCallContext context) => Task.FromResult(answer);
    }
}
