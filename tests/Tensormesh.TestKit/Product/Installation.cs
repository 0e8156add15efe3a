using System.Net;
using System.Security.Cryptography;
using k8s;
using k8s.Autorest;
using k8s.Models;
using Npgsql;

namespace Tensormesh.TestKit;

/// <summary>How the product is configured for tests and the demo, where an hour is too long to wait.</summary>
public sealed record InstallationOptions
{
    public TimeSpan HoldWindow { get; init; } = TimeSpan.FromMinutes(60);
    public TimeSpan MinimumRun { get; init; } = TimeSpan.FromMinutes(1);
    public TimeSpan SettlementInterval { get; init; } = TimeSpan.FromSeconds(60);
    public TimeSpan SettlementLag { get; init; } = TimeSpan.FromSeconds(5);
    public TimeSpan SuspensionTolerance { get; init; } = TimeSpan.FromSeconds(5);
    public TimeSpan AuditPatience { get; init; } = TimeSpan.FromMinutes(1);
    public bool Webhook { get; init; } = true;
    /// <summary>Name of the operator's own Deployment in its namespace; empty for an operator that has none.</summary>
    public string OperatorDeployment { get; init; } = "";
    /// <summary>Seconds instead of an hour, so that running out of money can be watched.</summary>
    public static InstallationOptions Quick { get; } = new()
    {
        HoldWindow = TimeSpan.FromSeconds(30),
        MinimumRun = TimeSpan.FromSeconds(5),
        SettlementInterval = TimeSpan.FromSeconds(5),
        SettlementLag = TimeSpan.FromSeconds(2),
    };

    /// <summary>Name of the database in the cluster's private Postgres.</summary>
    public string Database { get; init; } = "billing";
}

/// <summary>The product on a dev cluster: its CRDs, its database, and its executables as processes of their own.</summary>
public sealed class Installation : IAsyncDisposable
{
    public const string Namespace = "tensormesh-system";
    public const string AgentNamespace = "tensormesh-agents";
    private static readonly TimeSpan StartLimit = TimeSpan.FromMinutes(2);
    private static readonly TimeSpan StopGrace = TimeSpan.FromSeconds(20);

    private readonly DevCluster cluster;
    private readonly string signingKey = Convert.ToHexStringLower(RandomNumberGenerator.GetBytes(32));
    private readonly int webhookPort;
    private IReadOnlyList<string> createdDefinitions = [];
    private IReadOnlyList<string> createdNamespaces = [];
    private DevProcess? operatorProcess;
    private DevProcess? webProcess;
    private readonly List<DevProcess> moreWebs = [];

    private Installation(DevCluster cluster, InstallationOptions options, string connectionString, IReadOnlyList<int> ports)
    {
        this.cluster = cluster;
        Options = options;
        ConnectionString = connectionString;
        WebUrl = new Uri($"http://127.0.0.1:{ports[0]}");
        MetricsUrl = new Uri($"http://127.0.0.1:{ports[1]}/metrics");
        webhookPort = ports[2];
        WebMetricsUrl = new Uri($"http://127.0.0.1:{ports[3]}/metrics");
    }

    public InstallationOptions Options { get; }
    public string ConnectionString { get; }
    public Uri WebUrl { get; }
    public Uri MetricsUrl { get; }
    public Uri WebMetricsUrl { get; }
    public string OperatorLog => Path.Combine(cluster.StateDirectory, "logs", "tensormesh-operator.log");
    public string WebLog => Path.Combine(cluster.StateDirectory, "logs", "tensormesh-web.log");
    public bool OperatorRuns => operatorProcess is { HasExited: false };
    public int OperatorPid => operatorProcess?.Identity.Pid ?? throw new InvalidOperationException("the operator does not run");

    /// <summary>Whose executables are started.</summary>
    public ProductVersion Version { get; private set; } = ProductVersion.Current;

    /// <summary>The kubeconfig file of the operator's own rights.</summary>
    public string OperatorKubeconfig { get; private set; } = "";

    /// <summary>Environment of the operator that starts next, over what this installation sets itself.</summary>
    public IDictionary<string, string> OperatorExtras { get; } = new Dictionary<string, string>();

    /// <summary>The same of the Web APIs that start next.</summary>
    public IDictionary<string, string> WebExtras { get; } = new Dictionary<string, string>();

    /// <summary>Of the first Web API, where it runs, and of the others.</summary>
    public IReadOnlyList<int> WebPids => [.. moreWebs.Prepend(webProcess).OfType<DevProcess>().Select(web => web.Identity.Pid)];

    /// <summary>For psql.</summary>
    public string DatabaseUrl
    {
        get
        {
            var parts = new NpgsqlConnectionStringBuilder(ConnectionString);
            return $"postgresql://{parts.Username}@{parts.Host}:{parts.Port}/{parts.Database}";
        }
    }

    public string AdminToken => Token("platform", "ADMIN");

    /// <summary>A bearer token of the development issuer, good for a day.</summary>
    public string Token(string account, string role = "USER")
        => DevelopmentTokens.Issue(signingKey, account, role, TimeProvider.System.GetUtcNow(), TimeSpan.FromHours(24));

    public static async Task<Installation> StartAsync(DevCluster cluster, InstallationOptions options, Action<string> say, CancellationToken cancellation)
    {
        var installation = await PrepareAsync(cluster, options, cancellation);
        try
        {
            await installation.StartOperatorAsync(cancellation);
            say($"operator ready: metrics at {installation.MetricsUrl}");
            await installation.StartWebAsync(cancellation);
            say($"web API ready: {installation.WebUrl}");
            return installation;
        }
        catch
        {
            await installation.DisposeAsync();
            throw;
        }
    }

    /// <summary>Its CRDs, its namespace and an empty database; no executable runs yet.</summary>
    /// <param name="version">Null: the working tree's.</param>
    public static async Task<Installation> PrepareAsync(DevCluster cluster, InstallationOptions options, CancellationToken cancellation, ProductVersion? version = null)
    {
        var connection = await cluster.Postgres.CreateDatabaseAsync(options.Database, cancellation);
        var installation = new Installation(cluster, options, connection, FreePorts.Take(4)) { Version = version ?? ProductVersion.Current };
        try
        {
            installation.createdDefinitions = await CustomResources.ApplyAsync(cluster.Client, installation.Version.Crds, cancellation);
            installation.createdNamespaces = await EnsureNamespacesAsync(cluster.Client, cancellation);
            installation.OperatorKubeconfig = await OperatorRights.GrantAsync(cluster, installation.Version, cancellation);
            return installation;
        }
        catch
        {
            await installation.DisposeAsync();
            throw;
        }
    }

    public async Task StartOperatorAsync(CancellationToken cancellation)
    {
        await LaunchOperatorAsync();
        await WaitForOperatorAsync(cancellation);
        if (HasWebhook) await operatorProcess!.WaitUntilAsync("asked by the API server", IsWebhookAskedAsync, StartLimit, cancellation);
    }

    /// <summary>Starts the operator, and returns before it is ready.</summary>
    public async Task LaunchOperatorAsync() => operatorProcess = await StartAsync("tensormesh-operator", "Tensormesh.Operator", OperatorSettings());

    /// <summary>Returns when the operator's local copies are complete.</summary>
    public Task WaitForOperatorAsync(CancellationToken cancellation)
        => WaitForHttpAsync(operatorProcess ?? throw new InvalidOperationException("the operator does not run"), new Uri(MetricsUrl, "/readyz"), cancellation);

    /// <summary>Starts one more operator on the same cluster and ledger, without a webhook, and returns before it is ready.</summary>
    /// <param name="name">Of its log and settings; not the first one's.</param>
    /// <param name="changes">Environment variables that it has and the first has not, or that differ.</param>
    public async Task<OperatorProcess> StartAnotherOperatorAsync(string name, IReadOnlyDictionary<string, string> changes)
    {
        var metrics = new Uri($"http://127.0.0.1:{FreePorts.Take(1)[0]}/metrics");
        var settings = OperatorSettings();
        settings["Tensormesh__MetricsUrl"] = metrics.GetLeftPart(UriPartial.Authority);
        settings["Tensormesh__WebhookAddress"] = "";
        foreach (var (key, value) in changes) settings[key] = value;
        return new OperatorProcess(await StartAsync(name, "Tensormesh.Operator", settings, "tensormesh-operator"), metrics);
    }

    private Dictionary<string, string> OperatorSettings()
    {
        var credit = "Tensormesh__Credit__";
        var settings = new Dictionary<string, string>
        {
            ["ConnectionStrings__Billing"] = ConnectionString,
            ["Tensormesh__Kubeconfig"] = OperatorKubeconfig,
            ["Tensormesh__Namespace"] = Namespace,
            ["Tensormesh__Deployment"] = Options.OperatorDeployment,
            // On a cluster of the user's own the rights are the user's.
            ["Tensormesh__Rights"] = cluster.IsUsersOwn ? "" : "tensormesh-operator",
            ["Tensormesh__MetricsUrl"] = MetricsUrl.GetLeftPart(UriPartial.Authority),
            ["Tensormesh__WebhookUrl"] = $"https://{WebhookListen}:{webhookPort}",
            ["Tensormesh__WebhookAddress"] = HasWebhook ? $"https://{WebhookHost}:{webhookPort}" : "",
            ["Tensormesh__AuditPatience"] = Options.AuditPatience.ToString("c"),
            [credit + "HoldWindow"] = Options.HoldWindow.ToString("c"),
            [credit + "MinimumRun"] = Options.MinimumRun.ToString("c"),
            [credit + "SettlementInterval"] = Options.SettlementInterval.ToString("c"),
            [credit + "SettlementLag"] = Options.SettlementLag.ToString("c"),
            // Where time is short, tokens are settled as often as GPU time.
            [credit + "TokenSettlementInterval"] = Options.SettlementInterval.ToString("c"),
            [credit + "SuspensionTolerance"] = Options.SuspensionTolerance.ToString("c"),
        };
        foreach (var (name, value) in OperatorExtras) settings[name] = value;
        return settings;
    }

    public async Task StartWebAsync(CancellationToken cancellation)
    {
        webProcess = await LaunchWebAsync("tensormesh-web", WebUrl, WebMetricsUrl);
        await WaitForHttpAsync(webProcess, new Uri(WebUrl, "/readyz"), cancellation);
    }

    /// <summary>Starts one more Web API on the same ledger, and returns when it is ready.</summary>
    public async Task<Uri> StartAnotherWebAsync(string name, CancellationToken cancellation)
    {
        var ports = FreePorts.Take(2);
        var url = new Uri($"http://127.0.0.1:{ports[0]}");
        var process = await LaunchWebAsync(name, url, new Uri($"http://127.0.0.1:{ports[1]}"));
        moreWebs.Add(process);
        await WaitForHttpAsync(process, new Uri(url, "/readyz"), cancellation);
        return url;
    }

    /// <summary>Ends the first Web API as a rolling update does.</summary>
    public async Task StopWebAsync()
    {
        if (webProcess is not { } web) return;
        webProcess = null;
        await web.StopAsync(StopGrace);
        await web.DisposeAsync();
    }

    /// <summary>Ends the first Web API as a node failure does.</summary>
    public async Task KillWebAsync()
    {
        if (webProcess is not { } web) return;
        webProcess = null;
        await web.DisposeAsync();
    }

    private Task<DevProcess> LaunchWebAsync(string name, Uri url, Uri metrics)
    {
        var settings = new Dictionary<string, string>
        {
            ["ConnectionStrings__Billing"] = ConnectionString,
            ["Tensormesh__Urls"] = url.GetLeftPart(UriPartial.Authority),
            ["Tensormesh__MetricsUrl"] = metrics.GetLeftPart(UriPartial.Authority),
            ["Tensormesh__DevelopmentSigningKey"] = signingKey,
            ["Tensormesh__Console__DevelopmentSignIn"] = "true",
        };
        foreach (var (key, value) in WebExtras) settings[key] = value;
        return StartAsync(name, "Tensormesh.Web", settings, "tensormesh-web");
    }

    /// <summary>Runs the operator's executable to its end, with the settings that the last one was started with.</summary>
    public Task<(int ExitCode, string Output)> RunOperatorCommandAsync(string command, CancellationToken cancellation)
        => Command.TryRunAsync(
            "/bin/sh",
            ["-c", ". \"$0\"; exec \"$@\"", Path.Combine(cluster.StateDirectory, "tensormesh-operator.env"), "dotnet", Version.Executable("Tensormesh.Operator", "tensormesh-operator"), .. command.Split(' ')],
            line: null, cancellation);

    /// <summary>CRDs, namespace and operator once more, after they were taken away.</summary>
    public async Task ReinstallAsync(CancellationToken cancellation)
    {
        await CustomResources.ApplyAsync(cluster.Client, Version.Crds, cancellation);
        await EnsureNamespacesAsync(cluster.Client, cancellation);
        OperatorKubeconfig = await OperatorRights.GrantAsync(cluster, Version, cancellation);
        await StartOperatorAsync(cancellation);
    }

    /// <summary>Kinds and rights of another version over those that are there. What is started from here on is that version's; what runs, runs on.</summary>
    public async Task UpgradeAsync(ProductVersion version, CancellationToken cancellation)
    {
        Version = version;
        await CustomResources.ApplyAsync(cluster.Client, Version.Crds, cancellation);
        OperatorKubeconfig = await OperatorRights.GrantAsync(cluster, Version, cancellation);
    }

    /// <summary>Returns when an operator that ends by itself has ended.</summary>
    public async Task WaitForOperatorsEndAsync(CancellationToken cancellation)
    {
        if (operatorProcess is not { } process) return;
        while (!process.HasExited) await Task.Delay(TimeSpan.FromMilliseconds(50), TimeProvider.System, cancellation);
        await KillOperatorAsync();
    }

    /// <summary>Ends the operator as a node failure does.</summary>
    public async Task KillOperatorAsync()
    {
        if (operatorProcess is not { } process) return;
        operatorProcess = null;
        await process.DisposeAsync();
    }

    /// <summary>Lets no instruction of it run until <see cref="ResumeOperator"/>: a machine that swaps, or a frozen virtual one.</summary>
    public void PauseOperator() => ProcFs.Signal(operatorProcess!.Identity, ProcFs.SigStop);

    public void ResumeOperator() => ProcFs.Signal(operatorProcess!.Identity, ProcFs.SigCont);

    /// <summary>Null while it runs.</summary>
    public int? OperatorExitCode => operatorProcess?.ExitCode;

    /// <summary>Ends the operator as a rolling update does.</summary>
    public async Task StopOperatorAsync()
    {
        if (operatorProcess is not { } process) return;
        operatorProcess = null;
        await process.StopAsync(StopGrace);
        await process.DisposeAsync();
    }

    public async ValueTask DisposeAsync()
    {
        // A dev cluster goes as a whole; a cluster of the user's own gets back to what it was. While the operator still runs: it is what lets go of finalizers.
        if (cluster.IsUsersOwn && operatorProcess is not null) await UninstallAsync();
        await StopOperatorAsync();
        await StopWebAsync();
        foreach (var web in moreWebs)
        {
            await web.StopAsync(StopGrace);
            await web.DisposeAsync();
        }

        // A registration that outlived its server would only cost every apply its timeout.
        try
        {
            await cluster.Client.AdmissionregistrationV1.DeleteValidatingWebhookConfigurationAsync("tensormesh-operator");
        }
        catch (Exception fault) when (fault is HttpOperationException or HttpRequestException)
        {
        }
    }

    // On a user's own cluster the API server seldom reaches this machine's loopback: there the user names an address that it does reach.
    private string? WebhookHost => cluster.IsUsersOwn ? Environment.GetEnvironmentVariable("TENSORMESH_WEBHOOK_HOST") : "127.0.0.1";
    private string WebhookListen => cluster.IsUsersOwn ? "0.0.0.0" : "127.0.0.1";
    public bool HasWebhook => Options.Webhook && WebhookHost is { Length: > 0 };

    /// <summary>Settings go through a file that only its owner reads: arguments and their secrets are for every user to see.</summary>
    private async Task<DevProcess> StartAsync(string name, string project, Dictionary<string, string> settings, string? executable = null)
    {
        var file = Path.Combine(cluster.StateDirectory, name + ".env");
        var options = new FileStreamOptions
        {
            Mode = FileMode.Create,
            Access = FileAccess.Write,
            UnixCreateMode = UnixFileMode.UserRead | UnixFileMode.UserWrite,
        };
        await using (var writer = new StreamWriter(file, options))
        {
            foreach (var (key, value) in settings) await writer.WriteLineAsync($"export {key}='{value.Replace("'", "'\\''", StringComparison.Ordinal)}'");
        }

        return await DevProcess.StartAsync(cluster.Record, name, "/bin/sh", ["-c", ". \"$0\"; exec \"$@\"", file, Environment.ProcessPath is { } host && Path.GetFileName(host) == "dotnet" ? host : "dotnet", Version.Executable(project, executable ?? name)]);
    }

    internal static async Task WaitForHttpAsync(DevProcess process, Uri url, CancellationToken cancellation)
    {
        using var http = new HttpClient { Timeout = TimeSpan.FromSeconds(5) };
        await process.WaitUntilAsync("ready", async token =>
        {
            try
            {
                using var answer = await http.GetAsync(url, token);
                return answer.IsSuccessStatusCode;
            }
            catch (Exception notYet) when (notYet is HttpRequestException || (notYet is OperationCanceledException && !token.IsCancellationRequested))
            {
                // Nobody listens yet, or the machine is so busy that the answer takes longer than a request may.
                return false;
            }
            catch (TaskCanceledException) when (!token.IsCancellationRequested)
            {
                return false;
            }
        }, StartLimit, cancellation);
    }

    /// <summary>The API server learns of a registration a moment after it was made: ask until it asks us.</summary>
    private async Task<bool> IsWebhookAskedAsync(CancellationToken cancellation)
    {
        var probe = new
        {
            apiVersion = "tensormesh.ai/v1alpha1",
            kind = "GpuDeployment",
            metadata = new { name = "webhook-probe" },
            spec = new { template = new { spec = new { containers = new[] { new { name = "main", image = "none" } } } } },
        };
        try
        {
            await cluster.Client.CustomObjects.CreateNamespacedCustomObjectAsync(
                probe, "tensormesh.ai", "v1alpha1", Namespace, "gpudeployments", dryRun: "All", cancellationToken: cancellation);
            return false;
        }
        catch (HttpOperationException answer) when (answer.Response.Content.Contains("gate.tensormesh.ai", StringComparison.Ordinal))
        {
            return true;
        }
        catch (HttpOperationException notYet) when (notYet.Response.StatusCode is HttpStatusCode.NotFound or HttpStatusCode.ServiceUnavailable)
        {
            return false;
        }
    }

    /// <summary>Removes what this installation created, and nothing that was there before.</summary>
    private async Task UninstallAsync()
    {
        using var limit = new CancellationTokenSource(StartLimit);
        try
        {
            foreach (var name in createdDefinitions) await cluster.Client.ApiextensionsV1.DeleteCustomResourceDefinitionAsync(name, cancellationToken: limit.Token);
            while ((await cluster.Client.ApiextensionsV1.ListCustomResourceDefinitionAsync(cancellationToken: limit.Token)).Items.Any(left => createdDefinitions.Contains(left.Metadata.Name)))
            {
                await Task.Delay(TimeSpan.FromMilliseconds(200), TimeProvider.System, limit.Token);
            }

            foreach (var created in createdNamespaces) await cluster.Client.CoreV1.DeleteNamespaceAsync(created, cancellationToken: limit.Token);
            while ((await cluster.Client.CoreV1.ListNamespaceAsync(cancellationToken: limit.Token)).Items.Any(left => createdNamespaces.Contains(left.Metadata.Name)))
            {
                await Task.Delay(TimeSpan.FromMilliseconds(200), TimeProvider.System, limit.Token);
            }
        }
        catch (Exception fault) when (fault is HttpOperationException or HttpRequestException or OperationCanceledException)
        {
            await Console.Error.WriteLineAsync($"not everything that was installed could be removed: {fault.Message}");
        }
    }

    /// <returns>Those that were not there before.</returns>
    private static async Task<IReadOnlyList<string>> EnsureNamespacesAsync(IKubernetes client, CancellationToken cancellation)
    {
        List<string> created = [];
        foreach (var name in (string[])[Namespace, AgentNamespace])
        {
            try
            {
                await client.CoreV1.CreateNamespaceAsync(new V1Namespace { Metadata = new V1ObjectMeta { Name = name } }, cancellationToken: cancellation);
                created.Add(name);
            }
            catch (HttpOperationException exists) when (exists.Response.StatusCode == HttpStatusCode.Conflict)
            {
            }
        }

        return created;
    }
}
