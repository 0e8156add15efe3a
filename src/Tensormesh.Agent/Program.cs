using k8s;
using k8s.Exceptions;
using Prometheus;
using Tensormesh.Agent;
using Tensormesh.Agent.Allocating;
using Tensormesh.Agent.Reporting;
using Tensormesh.Agent.Telemetry;
using Tensormesh.Devices;
using Tensormesh.Devices.Worker;

// The driver is called by a process of its own, which is this executable again: a call that hangs can be killed.
if (ProbeWorker.TryRun(args)) return 0;

var builder = WebApplication.CreateSlimBuilder(args);
builder.Logging.ClearProviders().AddSimpleConsole(console =>
{
    console.SingleLine = true;
    console.TimestampFormat = "HH:mm:ss.fff ";
    console.UseUtcTimestamp = true;
});
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

Kubernetes client;
try
{
    client = ApiServerConnection.Open(options.Kubeconfig);
}
catch (Exception unusable) when (unusable is KubeConfigException or IOException or UnauthorizedAccessException)
{
    Console.Error.WriteLine($"tensormesh-agent: {AgentOptions.Section}:Kubeconfig is '{options.Kubeconfig}', and no API server can be found by it: {unusable.Message}");
    return 2;
}

builder.Services.AddSingleton(options);
builder.Services.AddSingleton(TimeProvider.System);
builder.Services.AddSingleton<IKubernetes>(client);

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
builder.Services.AddHostedService<NodeAgent>();

builder.WebHost.ConfigureKestrel(kestrel =>
{
    var metrics = new Uri(options.MetricsUrl);
    kestrel.Listen(System.Net.IPAddress.Parse(metrics.Host), metrics.Port);
});

var app = builder.Build();
app.MapMetrics("/metrics", app.Services.GetRequiredService<CollectorRegistry>());
app.MapGet("/healthz", () => "ok");
app.MapGet("/readyz", (Readiness readiness) => readiness.Problem() is { } problem ? Results.Text(problem + "\n", statusCode: 503) : Results.Text("ok\n"));
await app.RunAsync();
return 0;
