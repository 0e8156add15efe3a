using System.Net;
using System.Net.Sockets;
using k8s;
using k8s.Autorest;
using k8s.Models;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Server.Kestrel.Https;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;
using Microsoft.Extensions.Time.Testing;
using Tensormesh.Operator;
using Tensormesh.Operator.Admission;
using Tensormesh.Operator.Uninstalling;
using Tensormesh.Resources;
using Tensormesh.TestKit;

namespace Tensormesh.Integration.Tests.Operators;

/// <summary>Two replicas behind one address, a real API server that calls them over TLS, and a clock that a test moves.</summary>
public sealed class WebhookRotationTests : IAsyncLifetime
{
    private readonly ClusterFixture cluster = new() { Options = new DevClusterOptions { RealNode = false } };
    private readonly List<Replica> replicas = [];
    private readonly FakeTimeProvider time = new();
    private Balancer balancer = null!;
    private OperatorOptions options = null!;

    private static CancellationToken Ends => TestContext.Current.CancellationToken;

    private IKubernetes Client => cluster.Cluster.Client;

    public async ValueTask InitializeAsync()
    {
        await cluster.InitializeAsync();
        await CustomResources.ApplyAsync(Client, Repository.Folder("crds"), CancellationToken.None);
        var ns = await cluster.CreateNamespaceAsync("webhook");
        balancer = new Balancer();
        options = new OperatorOptions { Namespace = ns, WebhookAddress = $"https://127.0.0.1:{balancer.Port}" };
    }

    public async ValueTask DisposeAsync()
    {
        foreach (var replica in replicas) await replica.DisposeAsync();
        balancer?.Dispose();
        await cluster.DisposeAsync();
    }

    [Fact]
    public async Task Certificates_are_renewed_for_two_replicas_without_one_refused_call()
    {
        // Whatever is made on this way is good now, by the API server's own clock.
        var end = TimeProvider.System.GetUtcNow();
        var start = end - WebhookCertificates.Lifetime + TimeSpan.FromDays(2);
        time.SetUtcNow(start);
        await StartReplicasAsync();
        var calls = 0;
        HashSet<string> servers = [], authorities = [];
        foreach (var now in Instants(start, end))
        {
            time.SetUtcNow(now);
            // One reads after the other, and between their readings the API server calls both.
            foreach (var replica in replicas)
            {
                await RegisterAsync(replica);
                foreach (var target in replicas.Where(each => each.Secret.Current is not null))
                {
                    balancer.Route(target.Port);
                    await WriteGpuNodeAsync($"node-{calls++ % 2}");
                }

                servers.Add(replica.Secret.Current!.Server.Thumbprint);
                authorities.UnionWith(replica.Secret.Current.Authorities.Select(each => each.Thumbprint));
            }
        }

        Assert.Equal(2, servers.Count);
        Assert.Equal(2, authorities.Count);
        Assert.Equal(calls, replicas.Sum(replica => replica.Calls));
        // The old authority is forgotten in the end, and the registration with it.
        var bundle = (await Client.AdmissionregistrationV1.ReadValidatingWebhookConfigurationAsync(WebhookRegistration.ConfigurationName, cancellationToken: Ends)).Webhooks[0].ClientConfig.CaBundle;
        Assert.Equal(replicas[0].Secret.Current!.CaBundle, bundle);
        Assert.Single(replicas[0].Secret.Current!.Authorities);
    }

    [Fact]
    public async Task A_bundle_that_somebody_changed_is_set_right_and_a_secret_that_somebody_deleted_comes_back()
    {
        time.SetUtcNow(TimeProvider.System.GetUtcNow());
        await StartReplicasAsync();
        foreach (var replica in replicas) await RegisterAsync(replica);
        // Both have one Secret, and so one certificate.
        Assert.Equal(replicas[0].Secret.Current!.Server.Thumbprint, replicas[1].Secret.Current!.Server.Thumbprint);
        balancer.Route(replicas[1].Port);
        await WriteGpuNodeAsync("before");

        var wrong = WebhookCertificates.Create(["127.0.0.1"], time.GetUtcNow()).CaBundle;
        var changed = await Client.AdmissionregistrationV1.ReadValidatingWebhookConfigurationAsync(WebhookRegistration.ConfigurationName, cancellationToken: Ends);
        foreach (var webhook in changed.Webhooks) webhook.ClientConfig.CaBundle = wrong;
        await Client.AdmissionregistrationV1.ReplaceValidatingWebhookConfigurationAsync(changed, WebhookRegistration.ConfigurationName, cancellationToken: Ends);
        // This is what an API server says that does not trust the webhook: the calls of these tests can fail.
        await Eventually.SeeAsync(() => RefusalAsync("distrusted"), refusal => refusal?.Contains("x509", StringComparison.Ordinal) == true);
        await RegisterAsync(replicas[0]);
        await Eventually.SeeAsync(() => RefusalAsync("trusted"), refusal => refusal is null);

        await Client.CoreV1.DeleteNamespacedSecretAsync(WebhookSecret.Name, options.Namespace, cancellationToken: Ends);
        foreach (var replica in replicas) await RegisterAsync(replica);
        balancer.Route(replicas[1].Port);
        await Eventually.SeeAsync(() => RefusalAsync("anew"), refusal => refusal is null);
    }

    [Fact]
    public async Task Certificates_that_somebody_else_keeps_are_served_as_they_are_and_never_written()
    {
        time.SetUtcNow(TimeProvider.System.GetUtcNow());
        options.WebhookCertificates = WebhookCertificatesFrom.Secret;
        await StartReplicasAsync();
        // Not there yet: nothing is registered.
        Assert.False(await replicas[0].Registration.RegisterAsync(Ends));

        var first = await KeepSecretAsync(null);
        foreach (var replica in replicas) Assert.True(await replica.Registration.RegisterAsync(Ends));
        balancer.Route(replicas[1].Port);
        await Eventually.SeeAsync(() => RefusalAsync("given"), refusal => refusal is null);

        // As cert-manager renews: the same authority, another certificate.
        var second = await KeepSecretAsync(first);
        foreach (var replica in replicas) Assert.True(await replica.Registration.RegisterAsync(Ends));
        Assert.NotEqual(first.Server.Thumbprint, replicas[0].Secret.Current!.Server.Thumbprint);
        Assert.Equal(second.Server.Thumbprint, replicas[0].Secret.Current!.Server.Thumbprint);
        await Eventually.SeeAsync(() => RefusalAsync("renewed"), refusal => refusal is null);
        var kept = await Client.CoreV1.ReadNamespacedSecretAsync(WebhookSecret.Name, options.Namespace, cancellationToken: Ends);
        Assert.False(kept.Data.ContainsKey("ca.key"));
    }

    /// <summary>Weeks while nothing happens, and minutes around the day on which something does.</summary>
    private static IEnumerable<DateTimeOffset> Instants(DateTimeOffset start, DateTimeOffset end)
    {
        var (weeks, minutes) = (TimeSpan.FromDays(21), TimeSpan.FromMinutes(20));
        var renewal = start + (WebhookCertificates.Lifetime * WebhookCertificates.RenewAfter);
        var (from, to) = (renewal - TimeSpan.FromHours(1), renewal + WebhookCertificates.Settling + WebhookCertificates.Farewell + TimeSpan.FromHours(1));
        for (var now = start; now < from; now += weeks) yield return now;
        for (var now = from; now < to; now += minutes) yield return now;
        for (var now = to; now < end; now += weeks) yield return now;
    }

    /// <summary>A Secret as cert-manager keeps it: the authority's key is elsewhere.</summary>
    private async Task<WebhookCertificates> KeepSecretAsync(WebhookCertificates? renewed)
    {
        // Of an authority that goes on, another certificate is what another host name needs.
        var next = renewed is null ? WebhookCertificates.Create(["127.0.0.1"], time.GetUtcNow()) : WebhookCertificates.Renew(renewed, ["127.0.0.1", "renewed.example"], time.GetUtcNow());
        var secret = new V1Secret { Metadata = new V1ObjectMeta { Name = WebhookSecret.Name }, Type = "kubernetes.io/tls", Data = next.ToSecret() };
        secret.Data.Remove("ca.key");
        if (renewed is null) await Client.CoreV1.CreateNamespacedSecretAsync(secret, options.Namespace, cancellationToken: Ends);
        else await Client.CoreV1.ReplaceNamespacedSecretAsync(secret, WebhookSecret.Name, options.Namespace, cancellationToken: Ends);
        return next;
    }

    private async Task StartReplicasAsync()
    {
        replicas.Add(await Replica.StartAsync(Client, options, time));
        replicas.Add(await Replica.StartAsync(Client, options, time));
    }

    /// <summary>Until it says that it is done: it may have found that the other one was faster.</summary>
    private static async Task RegisterAsync(Replica replica)
    {
        while (!await replica.Registration.RegisterAsync(Ends)) Ends.ThrowIfCancellationRequested();
    }

    /// <summary>A write that the API server refuses if it cannot ask the webhook.</summary>
    private async Task WriteGpuNodeAsync(string name) => Assert.Null(await RefusalAsync(name));

    private async Task<string?> RefusalAsync(string name)
    {
        balancer.CutAll();
        var node = new GpuNode { ApiVersion = WellKnown.ApiVersion, Kind = "GpuNode", Metadata = new V1ObjectMeta { Name = name } };
        try
        {
            await Client.CustomObjects.PatchClusterCustomObjectAsync(
                new V1Patch(KubernetesJson.Serialize(node), V1Patch.PatchType.ApplyPatch), WellKnown.Group, WellKnown.Version, GpuNode.PluralName, name,
                fieldManager: "tests", force: true, cancellationToken: Ends);
            return null;
        }
        catch (HttpOperationException refused)
        {
            return refused.Response.Content;
        }
    }

    /// <summary>The webhook's half of an operator: its certificates, its registration, and its server, which lets every write pass.</summary>
    private sealed class Replica : IAsyncDisposable
    {
        private readonly WebApplication app;
        private int calls;

        private Replica(WebApplication app, WebhookSecret secret, WebhookRegistration registration) => (this.app, Secret, Registration) = (app, secret, registration);

        public WebhookSecret Secret { get; }
        public WebhookRegistration Registration { get; }
        public int Port => new Uri(app.Urls.Single()).Port;
        public int Calls => calls;

        public static async Task<Replica> StartAsync(IKubernetes client, OperatorOptions options, TimeProvider time)
        {
            var secret = new WebhookSecret(client, options, time, NullLogger<WebhookSecret>.Instance);
            var builder = WebApplication.CreateSlimBuilder();
            builder.Logging.ClearProviders();
            builder.WebHost.UseKestrelHttpsConfiguration();
            builder.WebHost.ConfigureKestrel((_, kestrel) => kestrel.Listen(
                IPAddress.Loopback, 0, listen => listen.UseHttps(new TlsHandshakeCallbackOptions { OnConnection = _ => ValueTask.FromResult(secret.Serve()) })));
            var replica = new Replica(builder.Build(), secret, new WebhookRegistration(client, secret, new OwnDeletion(client, options), options, time, NullLogger<WebhookRegistration>.Instance));
            replica.app.MapPost(OwnNodeGuard.Path, async (Microsoft.AspNetCore.Http.HttpRequest http) =>
            {
                var review = await Microsoft.AspNetCore.Http.HttpRequestJsonExtensions.ReadFromJsonAsync<AdmissionReview>(http);
                Interlocked.Increment(ref replica.calls);
                return Microsoft.AspNetCore.Http.Results.Json(new AdmissionReview { Response = new AdmissionResponse { Uid = review!.Request!.Uid, Allowed = true } });
            });
            await replica.app.StartAsync();
            return replica;
        }

        public ValueTask DisposeAsync() => app.DisposeAsync();
    }

    /// <summary>What a Service is: one address, and whichever replica behind it.</summary>
    private sealed class Balancer : IDisposable
    {
        private readonly TcpListener listener = new(IPAddress.Loopback, 0);
        private readonly List<TcpClient> open = [];
        private volatile int target;

        public Balancer()
        {
            listener.Start();
            _ = AcceptAsync();
        }

        public int Port => ((IPEndPoint)listener.LocalEndpoint).Port;

        public void Route(int port) => target = port;

        /// <summary>The next call is a connection and a handshake of its own.</summary>
        public void CutAll()
        {
            lock (open)
            {
                foreach (var each in open) each.Dispose();
                open.Clear();
            }
        }

        public void Dispose()
        {
            listener.Dispose();
            CutAll();
        }

        private async Task AcceptAsync()
        {
            try
            {
                while (true)
                {
                    var client = await listener.AcceptTcpClientAsync();
                    _ = PassAsync(client);
                }
            }
            catch (Exception closed) when (closed is SocketException or ObjectDisposedException)
            {
            }
        }

        private async Task PassAsync(TcpClient client)
        {
            using var server = new TcpClient();
            lock (open) open.AddRange([client, server]);
            try
            {
                await server.ConnectAsync(IPAddress.Loopback, target);
                var (here, there) = (client.GetStream(), server.GetStream());
                await Task.WhenAny(here.CopyToAsync(there), there.CopyToAsync(here));
            }
            catch (Exception cut) when (cut is SocketException or IOException or ObjectDisposedException or InvalidOperationException)
            {
            }
            finally
            {
                client.Dispose();
            }
        }
    }
}
