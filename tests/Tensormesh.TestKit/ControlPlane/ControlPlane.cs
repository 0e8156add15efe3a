using System.Net;
using System.Net.Http.Headers;
using System.Net.Sockets;
using System.Security.Cryptography.X509Certificates;

namespace Tensormesh.TestKit;

/// <summary>
/// etcd, kube-apiserver, kube-controller-manager and kube-scheduler as processes of this machine.
///
/// Without a real node everything listens on 127.0.0.1. A real node and its pods must reach the API
/// server, so then it listens on the one address of <see cref="NodeNetwork.HostAddress"/>.
/// </summary>
internal sealed class ControlPlane : IAsyncDisposable
{
    public const string ServiceRange = "10.96.0.0/16";

    /// <summary>Where pods find the API server, whatever address it listens on.</summary>
    public static readonly IPAddress FirstServiceAddress = IPAddress.Parse("10.96.0.1");
    private static readonly TimeSpan StartLimit = TimeSpan.FromSeconds(90);

    private readonly ClusterRecord _record;
    private readonly ControlPlaneBinaries _binaries;
    private readonly NodeNetwork _network;
    private readonly int _etcdPort;
    private readonly int _apiServerPort;
    private readonly HttpClient _probe;
    private readonly List<DevProcess> _processes = [];
    private DevProcess? _apiServer;
    private DevProcess? _controllerManager;

    /// <summary>Chooses ports and writes keys; nothing runs yet, but the address and the kubeconfigs are known.</summary>
    public ControlPlane(ClusterRecord record, ControlPlaneBinaries binaries, NodeNetwork network, bool realNode)
    {
        _record = record;
        _binaries = binaries;
        _network = network;
        var ports = FreePorts.Take(5);
        (_etcdPort, EtcdPeerPort, _apiServerPort, ControllerManagerPort, SchedulerPort) =
            (ports[0], ports[1], ports[2], ports[3], ports[4]);
        BindAddress = realNode ? network.HostAddress : IPAddress.Loopback;
        ApiServer = new Uri($"https://{BindAddress}:{_apiServerPort}");
        Credentials = Credentials.Create(
            Path.Combine(record.Directory, "pki"), [IPAddress.Loopback, network.HostAddress, FirstServiceAddress]);
        _probe = CreateProbe();
    }

    public Uri ApiServer { get; }
    public Credentials Credentials { get; }
    private IPAddress BindAddress { get; }
    private int EtcdPeerPort { get; }
    private int ControllerManagerPort { get; }
    private int SchedulerPort { get; }

    /// <param name="manager">Null: no controller manager until <see cref="StartControllerManagerAsync"/>.</param>
    public async Task StartAsync(ControllerManagerOptions? manager, CancellationToken cancellation)
    {
        await StartEtcdAsync(cancellation);
        await StartApiServerAsync(cancellation);
        await Task.WhenAll(manager is null ? Task.CompletedTask : StartControllerManagerAsync(manager), StartSchedulerAsync());
    }

    public async Task StartApiServerAsync(CancellationToken cancellation)
    {
        if (_apiServer is { HasExited: false })
            return;
        _apiServer = await DevProcess.StartAsync(_record, "kube-apiserver", _binaries.ApiServer, ApiServerArguments());
        await _apiServer.WaitUntilAsync("ready", IsReadyAsync, StartLimit, cancellation);
    }

    public async Task StopApiServerAsync()
    {
        if (_apiServer is not { } apiServer)
            return;
        _apiServer = null;
        await apiServer.StopAsync(grace: TimeSpan.FromSeconds(5));
        await apiServer.DisposeAsync();
    }

    /// <summary>Throws with the log's end when one of the processes has died on its own.</summary>
    public void ThrowIfExited()
    {
        _apiServer?.ThrowIfExited();
        _controllerManager?.ThrowIfExited();
        _processes.ForEach(process => process.ThrowIfExited());
    }

    public string WriteUserKubeconfig(string file, string user, params string[] groups)
    {
        Kubeconfig.Write(
            file, Kubeconfig.WithCertificate(ApiServer, Credentials.AuthorityPem, user, Credentials.User(user, groups)));
        return file;
    }

    public string WriteAdminKubeconfig(string file)
    {
        Kubeconfig.Write(file, Kubeconfig.WithToken(ApiServer, Credentials.AuthorityPem, "admin", Credentials.AdminToken));
        return file;
    }

    public async ValueTask DisposeAsync()
    {
        // Nobody reads this etcd again, so nothing is gained by asking.
        await Task.WhenAll(_processes.Append(_apiServer).Append(_controllerManager).OfType<DevProcess>().Select(process => process.DisposeAsync().AsTask()));
        _probe.Dispose();
        Credentials.Dispose();
    }

    private async Task StartEtcdAsync(CancellationToken cancellation)
    {
        var peer = $"http://127.0.0.1:{EtcdPeerPort}";
        var client = $"http://127.0.0.1:{_etcdPort}";
        var etcd = await DevProcess.StartAsync(_record, "etcd", _binaries.Etcd,
        [
            "--data-dir", Path.Combine(_record.Directory, "etcd"), "--unsafe-no-fsync", "--quota-backend-bytes", "4294967296",
            "--listen-client-urls", client, "--advertise-client-urls", client,
            "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", $"default={peer}",
        ]);
        _processes.Add(etcd);
        await etcd.WaitUntilAsync("listening", stop => AcceptsAsync(_etcdPort, stop), StartLimit, cancellation);
    }

    /// <summary>Returns when the process runs, which is a moment before it works.</summary>
    public async Task StartControllerManagerAsync(ControllerManagerOptions options)
    {
        if (_controllerManager is { HasExited: false })
            return;
        var kubeconfig = WriteUserKubeconfig(
            Path.Combine(_record.Directory, "pki", "controller-manager.conf"), "system:kube-controller-manager");

        // Short node periods make a lost node's tests short (20 s until it counts as lost, and 30 s more that pods tolerate).
        _controllerManager = await DevProcess.StartAsync(_record, "kube-controller-manager", _binaries.ControllerManager,
        [
            "--kubeconfig", kubeconfig, "--bind-address", "127.0.0.1", "--secure-port", $"{ControllerManagerPort}",
            "--service-account-private-key-file", Credentials.ServiceAccountKeyFile, "--root-ca-file", Credentials.AuthorityFile,
            "--use-service-account-credentials", "--leader-elect=false", "--controllers", options.Controllers,
            "--kube-api-qps", $"{options.QueriesPerSecond}", "--kube-api-burst", $"{options.Burst}",
            "--concurrent-deployment-syncs", $"{options.DeploymentSyncs}", "--concurrent-replicaset-syncs", "16",
            "--concurrent-gc-syncs", "20", "--concurrent-namespace-syncs", "10",
            "--node-monitor-period", "2s", "--node-monitor-grace-period", "20s",
            .. InsecurePortOff(),
        ]);
    }

    public async Task StopControllerManagerAsync()
    {
        if (_controllerManager is not { } manager)
            return;
        _controllerManager = null;
        await manager.StopAsync(grace: TimeSpan.FromSeconds(5));
        await manager.DisposeAsync();
    }

    private async Task StartSchedulerAsync()
    {
        var kubeconfig = WriteUserKubeconfig(Path.Combine(_record.Directory, "pki", "scheduler.conf"), "system:kube-scheduler");
        _processes.Add(await DevProcess.StartAsync(_record, "kube-scheduler", _binaries.Scheduler,
        [
            "--kubeconfig", kubeconfig, "--bind-address", "127.0.0.1", "--secure-port", $"{SchedulerPort}",
            "--leader-elect=false", "--kube-api-qps", "1000", "--kube-api-burst", "1000", .. InsecurePortOff(),
        ]));
    }

    private IEnumerable<string> InsecurePortOff() => _binaries.IsOlderThan(1, 24) ? ["--port=0"] : [];

    private IEnumerable<string> ApiServerArguments() =>
    [
        "--etcd-servers", $"http://127.0.0.1:{_etcdPort}",
        "--bind-address", $"{BindAddress}", "--secure-port", $"{_apiServerPort}", "--advertise-address", $"{_network.HostAddress}",
        "--cert-dir", Path.Combine(_record.Directory, "pki"),
        "--tls-cert-file", Credentials.ServingCertificateFile, "--tls-private-key-file", Credentials.ServingKeyFile,
        "--client-ca-file", Credentials.AuthorityFile, "--token-auth-file", Credentials.TokenFile,
        "--service-account-key-file", Credentials.ServiceAccountKeyFile,
        "--service-account-signing-key-file", Credentials.ServiceAccountKeyFile,
        "--service-account-issuer", "https://kubernetes.default.svc",
        "--kubelet-client-certificate", Credentials.KubeletClientCertificateFile,
        "--kubelet-client-key", Credentials.KubeletClientKeyFile, "--kubelet-preferred-address-types", "InternalIP",
        "--authorization-mode", "Node,RBAC", "--service-cluster-ip-range", ServiceRange, "--allow-privileged",
        // Owners that block a deletion are then named only by who may write their finalizers, as on OpenShift; and a webhook's service is called at its pods' addresses,
        // which have routes here, where service addresses have none.
        "--enable-admission-plugins", "OwnerReferencesPermissionEnforcement", "--enable-aggregator-routing",
        "--audit-log-path", AuditLogFile, "--audit-policy-file", WriteAuditPolicy(),
        "--default-not-ready-toleration-seconds", "30", "--default-unreachable-toleration-seconds", "30",
        "--max-requests-inflight", "3000", "--max-mutating-requests-inflight", "1000", "--profiling=false",
    ];

    /// <summary>A line for each request that the product's own accounts made: who, what, and whether it was allowed.</summary>
    public string AuditLogFile => Path.Combine(_record.Directory, "logs", "audit.log");

    private string WriteAuditPolicy()
    {
        var file = Path.Combine(_record.Directory, "audit-policy.yaml");
        File.WriteAllText(
            file,
            """
            apiVersion: audit.k8s.io/v1
            kind: Policy
            omitStages: [RequestReceived, ResponseStarted]
            rules:
            - level: Metadata
              users:
              - system:serviceaccount:tensormesh-system:tensormesh-operator
              - system:serviceaccount:tensormesh-system:tensormesh-web
              - system:serviceaccount:tensormesh-agents:tensormesh-agent
            - level: None

            """);
        return file;
    }

    private async Task<bool> IsReadyAsync(CancellationToken cancellation)
    {
        try
        {
            using var answer = await _probe.GetAsync(new Uri(ApiServer, "/readyz"), cancellation);
            return answer.IsSuccessStatusCode;
        }
        catch (HttpRequestException)
        {
            return false;
        }
        catch (TaskCanceledException) when (!cancellation.IsCancellationRequested)
        {
            return false;
        }
    }

    private HttpClient CreateProbe()
    {
        var handler = new SocketsHttpHandler { ConnectTimeout = TimeSpan.FromSeconds(2) };
        handler.SslOptions.CertificateChainPolicy = new X509ChainPolicy
        {
            TrustMode = X509ChainTrustMode.CustomRootTrust,
            RevocationMode = X509RevocationMode.NoCheck,
            CustomTrustStore = { Credentials.Authority },
        };
        var probe = new HttpClient(handler) { Timeout = TimeSpan.FromSeconds(5) };
        probe.DefaultRequestHeaders.Authorization = new AuthenticationHeaderValue("Bearer", Credentials.AdminToken);
        return probe;
    }

    private static async Task<bool> AcceptsAsync(int port, CancellationToken cancellation)
    {
        using var client = new TcpClient();
        try
        {
            await client.ConnectAsync(IPAddress.Loopback, port, cancellation);
            return true;
        }
        catch (SocketException)
        {
            return false;
        }
    }
}
