using k8s;
using k8s.Models;
using Microsoft.AspNetCore.Server.Kestrel.Https;
using Prometheus;
using Tensormesh;
using Tensormesh.Billing;
using Tensormesh.Operator;
using Tensormesh.Operator.Admission;
using Tensormesh.Operator.Metering;
using Tensormesh.Operator.Proving;
using Tensormesh.Operator.Reconciling;
using Tensormesh.Operator.Telemetry;
using Tensormesh.Operator.Uninstalling;
using Tensormesh.Operator.Watching;
using Tensormesh.Resources;

var builder = WebApplication.CreateSlimBuilder(args);
builder.Logging.AddLogs(builder.Configuration);
builder.Logging.AddFilter("Microsoft.AspNetCore", LogLevel.Warning);

if (Secrets.Add(builder.Configuration) is { } problem)
{
    await Console.Error.WriteLineAsync($"tensormesh-operator: {problem}");
    Environment.ExitCode = 2;
    return;
}

if (args is [LedgerCommand.Name, ..])
{
    // It needs neither a cluster nor any other setting.
    Environment.ExitCode = await LedgerCommand.RunAsync(args, builder.Configuration.GetConnectionString("Billing"), Console.Out, Console.Error, CancellationToken.None);
    return;
}

var options = builder.Configuration.GetSection("Tensormesh").Get<OperatorOptions>() ?? new OperatorOptions();
if (builder.Configuration.GetConnectionString("Billing") is not { Length: > 0 } connection)
{
    await Console.Error.WriteLineAsync("tensormesh-operator: set ConnectionStrings__Billing to the Postgres of the ledger, such as 'Host=127.0.0.1;Database=billing;Username=tensormesh'");
    Environment.ExitCode = 2;
    return;
}


builder.Services.AddSingleton(options);
builder.Services.AddSingleton(options.Credit);
// Money follows the ledger's clock, and everything here that asks for the time with it.
builder.Services.AddSingleton<LedgerClock>();
builder.Services.AddSingleton<TimeProvider>(services => services.GetRequiredService<LedgerClock>());
builder.Services.AddSingleton<OperatorEpoch>();
builder.Services.AddBilling(connection);
builder.Services.AddTracing(builder.Configuration, "tensormesh-operator");

// The cluster, as seen from here.
builder.Services.AddSingleton(_ => ApiServerConnection.Open(options.Kubeconfig));
builder.Services.AddSingleton<IKubernetes>(services => services.GetRequiredService<Kubernetes>());
builder.Services.AddSingleton<KubernetesStream>();
builder.Services.AddSingleton(options.Watch);
AddInformer<GpuDeployment>(ResourcePath.GpuDeployments);
AddInformer<BillingAccount>(ResourcePath.BillingAccounts);
AddInformer<PriceBook>(ResourcePath.PriceBooks);
AddInformer<V1Deployment>(ResourcePath.Deployments);
AddInformer<V1Pod>(ResourcePath.Pods);
AddInformer<V1Node>(ResourcePath.Nodes);
AddInformer<GpuNode>(ResourcePath.GpuNodes);
AddInformer<V1Namespace>(ResourcePath.Namespaces);
builder.Services.AddSingleton<ClusterView>();
builder.Services.AddSingleton(options.Lease with { Namespace = options.Namespace });
builder.Services.AddSingleton<LeaderLease>();
builder.Services.AddSingleton<StandingMemory>();
builder.Services.AddSingleton<StandingListener>();

// The loop: observe, decide, act, report.
builder.Services.AddSingleton<PodDrift>();
builder.Services.AddSingleton<OwnWrites>();
builder.Services.AddSingleton<PriceList>();
builder.Services.AddSingleton<Payers>();
builder.Services.AddSingleton<Observer>();
builder.Services.AddSingleton<Departures>();
builder.Services.AddSingleton<LastTrace>();
builder.Services.AddSingleton<Applier>();
builder.Services.AddSingleton<Orphans>();
builder.Services.AddSingleton<Audit>();
builder.Services.AddSingleton<EventRecorder>();
builder.Services.AddSingleton<StatusWriter>();
builder.Services.AddSingleton<StatusReporter>();
builder.Services.AddSingleton<GpuDeploymentReconciler>();
builder.Services.AddSingleton<BillingAccountReconciler>();
builder.Services.AddSingleton<PriceBookReconciler>();
builder.Services.AddSingleton<GpuNodeReconciler>();
builder.Services.AddSingleton<Rounds>();
builder.Services.AddSingleton<ClockWatch>();
builder.Services.AddSingleton<MeteringClock>();
builder.Services.AddSingleton<LedgerProver>();
builder.Services.AddSingleton<OwnRights>();
builder.Services.AddSingleton<OwnDeletion>();
builder.Services.AddSingleton<Uninstaller>();
builder.Services.AddSingleton<UninstallCommand>();
builder.Services.AddSingleton<Controller>();
builder.Services.AddHostedService(services => services.GetRequiredService<Controller>());
builder.Services.AddHostedService<HeapKeeper>();

// What the platform team sees.
builder.Services.AddSingleton(Metrics.NewCustomRegistry());
builder.Services.AddSingleton<OperatorMetrics>();
builder.Services.AddSingleton<Readiness>();

var webhook = options.WebhookAddress.Length > 0;
if (webhook)
{
    builder.Services.AddSingleton<WebhookSecret>();
    builder.Services.AddSingleton<AdmissionWebhook>();
    builder.Services.AddSingleton<OwnNodeGuard>();
    builder.Services.AddHostedService<WebhookRegistration>();
}

builder.WebHost.UseKestrelHttpsConfiguration();
builder.WebHost.ConfigureKestrel((_, kestrel) =>
{
    var metrics = new Uri(options.MetricsUrl);
    kestrel.Listen(System.Net.IPAddress.Parse(metrics.Host), metrics.Port);
    if (!webhook) return;
    var url = new Uri(options.WebhookUrl);
    kestrel.Listen(System.Net.IPAddress.Parse(url.Host), url.Port, listen => listen.UseHttps(new TlsHandshakeCallbackOptions
    {
        OnConnection = _ => ValueTask.FromResult(kestrel.ApplicationServices.GetRequiredService<WebhookSecret>().Serve()),
    }));
});

var app = builder.Build();
if (args is [UninstallCommand.Name, ..])
{
    Environment.ExitCode = await app.Services.GetRequiredService<UninstallCommand>().RunAsync(CancellationToken.None);
    return;
}

app.MapMetrics("/metrics", app.Services.GetRequiredService<CollectorRegistry>());
app.MapGet("/healthz", () => "ok");
app.MapGet("/readyz", (Readiness readiness) => readiness.Problem() is { } problem ? Results.Text(problem + "\n", statusCode: 503) : Results.Text("ok\n"));
if (webhook)
{
    AdmissionWebhook.Map(app);
    OwnNodeGuard.Map(app);
}

await app.RunAsync();

void AddInformer<T>(ResourcePath path)
    where T : class, IKubernetesObject<V1ObjectMeta>
    => builder.Services.AddSingleton(services => new Informer<T>(
        services.GetRequiredService<KubernetesStream>(), path, services.GetRequiredService<InformerOptions>(), services.GetRequiredService<OperatorMetrics>(),
        services.GetRequiredService<TimeProvider>(), services.GetRequiredService<ILogger<Informer<T>>>()));
