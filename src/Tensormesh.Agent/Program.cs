using Prometheus;
using Tensormesh;
using Tensormesh.Agent;
using Tensormesh.Agent.Allocating;
using Tensormesh.Agent.Cluster;
using Tensormesh.Agent.Reporting;
using Tensormesh.Agent.Telemetry;
using Tensormesh.Devices;
using Tensormesh.Devices.Worker;

// The driver is called by a process of its own, which is this executable again: a call that hangs can be killed.
if (ProbeWorker.TryRun(args)) return 0;

var builder = Host.CreateEmptyApplicationBuilder(null);
builder.Configuration.AddEnvironmentVariables().AddCommandLine(args);
builder.Logging.AddLogs(builder.Configuration);
builder.Logging.AddFilter("Microsoft", LogLevel.Warning);

AgentOptions options;
try
{
    options = builder.Configuration.GetSection(AgentOptions.Section).Get<AgentOptions>() ?? new AgentOptions();
}
catch (InvalidOperationException unreadable)
{
    Console.Error.WriteLine($"tensormesh-agent: {unreadable.Message} {unreadable.InnerException?.Message}".TrimEnd());
    return 2;
}

if (options.Problems().ToArray() is { Length: > 0 } problems)
{
    foreach (var problem in problems) Console.Error.WriteLine($"tensormesh-agent: {problem}");
    return 2;
}

ApiServer server;
try
{
    server = ApiServerConnection.Open(options.Kubeconfig);
}
catch (InvalidDataException unusable)
{
    Console.Error.WriteLine($"tensormesh-agent: {AgentOptions.Section}:Kubeconfig is '{options.Kubeconfig}', and no API server can be found by it: {unusable.Message}");
    return 2;
}

builder.Services.AddSingleton(options);
builder.Services.AddSingleton(TimeProvider.System);
builder.Services.AddSingleton(server);

// What is seen.
builder.Services.AddSingleton<IDeviceProbe>(services => new CudaDeviceProbe(options.Probe, services.GetRequiredService<TimeProvider>()));
builder.Services.AddSingleton(services => new Kubelet(options.PodResourcesSocket, services.GetRequiredService<TimeProvider>()));
builder.Services.AddSingleton<Allocations>();

// What is told of it.
builder.Services.AddSingleton<GpuNodes>();
builder.Services.AddSingleton<NodeLabels>();
builder.Services.AddSingleton(Metrics.NewCustomRegistry());
builder.Services.AddSingleton<AgentMetrics>();
builder.Services.AddSingleton<Readiness>();
builder.Services.AddHostedService<TelemetryEndpoint>();
builder.Services.AddHostedService<NodeAgent>();

await builder.Build().RunAsync();
return 0;
