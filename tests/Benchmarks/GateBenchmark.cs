using System.Diagnostics;
using System.Net;
using System.Net.Http.Headers;
using System.Security.Cryptography.X509Certificates;
using System.Text;
using k8s;
using k8s.Models;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;
using Npgsql;
using Tensormesh.Billing;
using Tensormesh.Operator.Admission;
using Tensormesh.Operator.Reconciling;
using Tensormesh.Operator.Telemetry;
using Tensormesh.Operator.Watching;
using Tensormesh.Resources;
using Tensormesh.TestKit;

namespace Tensormesh.Benchmarks;

/// <summary>
/// What a user waits for at <c>kubectl apply</c>: an admission verdict, over a webhook on the same Kestrel that reads the same
/// review and allows it. The verdict's parts are real: copies of a real API server's objects, a standing read from Postgres.
/// </summary>
internal static class GateBenchmark
{
    private const int Clients = 16;
    private const int AccountCount = 100;
    private const int RunsPerAccount = 20;
    private const int Rounds = 5;
    private const string ConstantPath = "/constant";
    private static readonly TimeSpan Duration = TimeSpan.FromSeconds(3);
    private static readonly TimeSpan WarmUp = TimeSpan.FromSeconds(6);

    public static async Task RunAsync(Workplace workplace, CancellationToken cancellation)
    {
        await using var cluster = await DevCluster.StartAsync(
            new DevClusterOptions { RealNode = false }, line => Workplace.Say($"{line}"), cancellation);
        await CustomResources.ApplyAsync(cluster.Client, Repository.Folder("crds"), cancellation);
        await using var database = await Workplace.OpenBillingAsync(cluster.Postgres, "billing", cancellation);
        await PrepareAsync(cluster.Client, database, cancellation);

        using var client = new Kubernetes(KubernetesClientConfiguration.BuildConfigFromConfigFile(cluster.KubeconfigPath));
        var metrics = new OperatorMetrics(Prometheus.Metrics.NewCustomRegistry());
        var view = View(new KubernetesStream(client), metrics);
        using var watching = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        var watches = Task.WhenAll(view.Informers.Select(informer => informer.RunAsync(watching.Token)));
        await Task.WhenAll(view.Namespaces.Synced, view.Nodes.Synced, view.GpuDeployments.Synced, view.Deployments.Synced, view.Pods.Synced)
            .WaitAsync(cancellation);

        var observer = new Observer(
            view, new Payers(view, client), new Accounts(database), new PriceList(new Prices(database), metrics, TimeProvider.System),
            new PodDrift(), TimeProvider.System);
        var memory = new StandingMemory(TimeProvider.System);
        var gate = new AdmissionWebhook(
            view, observer, memory, new CreditPolicy(), metrics, TimeProvider.System, NullLogger<AdmissionWebhook>.Instance);
        // As in the operator: what is remembered is forgotten when the ledger tells of a change.
        var listener = new StandingListener(database, memory, TimeProvider.System, NullLogger<StandingListener>.Instance);
        var connected = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        var listening = listener.RunAsync(_ => { }, () => connected.TrySetResult(), watching.Token);
        await connected.Task.WaitAsync(cancellation);
        await using var app = await ServeAsync(gate, cancellation);
        try
        {
            await MeasureAsync(workplace, app, cancellation);
        }
        finally
        {
            await app.StopAsync(CancellationToken.None);
            await watching.CancelAsync();
            await Task.WhenAll(watches, listening);
        }
    }

    private static async Task MeasureAsync(Workplace workplace, WebApplication app, CancellationToken cancellation)
    {
        var address = app.Urls.Single();
        using var authority = X509Certificate2.CreateFromPem(
            Encoding.ASCII.GetString(app.Services.GetRequiredService<WebhookCertificates>().CaBundle));
        var (constant, verdict) = (new Uri(address + ConstantPath), new Uri(address + AdmissionWebhook.Path));
        await LatenciesAsync(constant, authority, WarmUp, cancellation);
        await LatenciesAsync(verdict, authority, WarmUp, cancellation);

        var (constants, verdicts) = (new List<double>(), new List<double>());
        for (var round = 1; round <= Rounds; round++)
        {
            var floor = await LatenciesAsync(constant, authority, Duration, cancellation);
            var subject = await LatenciesAsync(verdict, authority, Duration, cancellation);
            constants.Add(Samples.Quantile(floor, 0.99));
            verdicts.Add(Samples.Quantile(subject, 0.99));
            Workplace.Say(
                $"round {round}: constant {Describe(floor)}, verdict {Describe(subject)}, load {Workplace.LoadAverage()}");
        }

        // Round by round: code that is still being compiled, and other load, meet a round's floor and its subject alike.
        workplace.Report(
            "p99_ratio", Samples.Median(verdicts.Zip(constants, (subject, floor) => subject / floor)), "ratio", "<=2.0",
            $"a webhook in the same process that answers a constant, {Clients} clients; p99 of the verdict {Samples.Median(verdicts):0.0} ms");
    }

    private static string Describe(List<double> latencies) => FormattableString.Invariant(
        $"{latencies.Count / Duration.TotalSeconds:0}/s median {Samples.Median(latencies):0.00} ms p99 {Samples.Quantile(latencies, 0.99):0.00} ms");

    /// <summary>Namespaces that name their accounts, nodes with GPUs (hollow), and accounts with money, a card and work that runs.</summary>
    private static async Task PrepareAsync(IKubernetes client, NpgsqlDataSource database, CancellationToken cancellation)
    {
        var price = await RunningWork.PublishAsync(database, cancellation);
        for (var i = 0; i < AccountCount; i++)
        {
            await RunningWork.OpenAsync(database, new AccountId($"account-{i}"), RunsPerAccount, price, cancellation);
            await client.CoreV1.CreateNamespaceAsync(
                new V1Namespace
                {
                    Metadata = new V1ObjectMeta
                    {
                        Name = $"team-{i}",
                        Labels = new Dictionary<string, string> { [WellKnown.AccountLabel] = $"account-{i}" },
                    },
                },
                cancellationToken: cancellation);
        }

        await RunningWork.AnalyzeAsync(database, cancellation);
    }

    private static ClusterView View(KubernetesStream stream, OperatorMetrics metrics)
    {
        Informer<T> Inform<T>(ResourcePath path)
            where T : class, IKubernetesObject<V1ObjectMeta>
            => new(stream, path, new InformerOptions(), metrics, TimeProvider.System, NullLogger<Informer<T>>.Instance);
        return new ClusterView(
            Inform<GpuDeployment>(ResourcePath.GpuDeployments), Inform<BillingAccount>(ResourcePath.BillingAccounts),
            Inform<PriceBook>(ResourcePath.PriceBooks), Inform<V1Deployment>(ResourcePath.Deployments), Inform<V1Pod>(ResourcePath.Pods),
            Inform<V1Node>(ResourcePath.Nodes), Inform<GpuNode>(ResourcePath.GpuNodes), Inform<V1Namespace>(ResourcePath.Namespaces));
    }

    /// <summary>TLS, as the API server calls it.</summary>
    private static async Task<WebApplication> ServeAsync(AdmissionWebhook gate, CancellationToken cancellation)
    {
        var builder = WebApplication.CreateSlimBuilder();
        builder.Logging.ClearProviders();
        builder.Services.AddSingleton(gate);
        builder.Services.AddSingleton(WebhookCertificates.Create(["127.0.0.1"], TimeProvider.System.GetUtcNow()));
        builder.WebHost.UseKestrelHttpsConfiguration();
        builder.WebHost.ConfigureKestrel((_, kestrel) => kestrel.Listen(
            IPAddress.Loopback, 0, listen => listen.UseHttps(kestrel.ApplicationServices.GetRequiredService<WebhookCertificates>().Server)));
        var app = builder.Build();
        AdmissionWebhook.Map(app);
        app.MapPost(ConstantPath, async (HttpRequest http) =>
        {
            var review = await http.ReadFromJsonAsync<AdmissionReview>(http.HttpContext.RequestAborted);
            return Results.Json(new AdmissionReview { Response = new AdmissionResponse { Uid = review!.Request!.Uid, Allowed = true } });
        });
        await app.StartAsync(cancellation);
        return app;
    }

    /// <summary>Milliseconds of every answer that the clients got, each asking again as soon as it was answered.</summary>
    private static async Task<List<double>> LatenciesAsync(Uri url, X509Certificate2 authority, TimeSpan duration, CancellationToken cancellation)
    {
        using var handler = new SocketsHttpHandler { MaxConnectionsPerServer = Clients };
        handler.SslOptions.CertificateChainPolicy = new X509ChainPolicy
        {
            TrustMode = X509ChainTrustMode.CustomRootTrust,
            RevocationMode = X509RevocationMode.NoCheck,
            CustomTrustStore = { authority },
        };
        using var client = new HttpClient(handler);
        var began = Stopwatch.GetTimestamp();
        var each = await Task.WhenAll(Enumerable.Range(0, Clients).Select(number => Task.Run(async () =>
        {
            var latencies = new List<double>();
            for (var i = number; Stopwatch.GetElapsedTime(began) < duration; i += Clients)
            {
                using var content = new ByteArrayContent(Review(i));
                content.Headers.ContentType = new MediaTypeHeaderValue("application/json");
                var asked = Stopwatch.GetTimestamp();
                using var response = await client.PostAsync(url, content, cancellation);
                var answer = await response.Content.ReadAsStringAsync(cancellation);
                // The first answer of a client pays for its handshake.
                if (i != number) latencies.Add(Stopwatch.GetElapsedTime(asked).TotalMilliseconds);
                if (!answer.Contains("\"allowed\":true", StringComparison.Ordinal))
                    throw new InvalidOperationException($"{url.AbsolutePath} answered {(int)response.StatusCode}: {answer}");
            }

            return latencies;
        }, cancellation)));
        return [.. each.SelectMany(latencies => latencies)];
    }

    /// <summary>What the API server sends when a GpuDeployment is created.</summary>
    private static byte[] Review(int number) => Encoding.UTF8.GetBytes($$$$"""
        {"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"{{{{Guid.NewGuid()}}}}",
        "kind":{"group":"tensormesh.ai","version":"v1alpha1","kind":"GpuDeployment"},
        "resource":{"group":"tensormesh.ai","version":"v1alpha1","resource":"gpudeployments"},
        "name":"fine-tune","namespace":"team-{{{{number % AccountCount}}}}","operation":"CREATE","userInfo":{"username":"ada"},"dryRun":false,
        "object":{"apiVersion":"tensormesh.ai/v1alpha1","kind":"GpuDeployment","metadata":{"name":"fine-tune",
        "uid":"{{{{Guid.NewGuid()}}}}","generation":1,"namespace":"team-{{{{number % AccountCount}}}}"},
        "spec":{"replicas":1,"gpu":{"count":4,"product":"NVIDIA-H100-80GB-HBM3"},
        "template":{"spec":{"containers":[{"name":"trainer","image":"tensormesh.ai/workload:dev","imagePullPolicy":"IfNotPresent"}]}}}
        },
        "oldObject":null,"options":null}}
        """);
}
