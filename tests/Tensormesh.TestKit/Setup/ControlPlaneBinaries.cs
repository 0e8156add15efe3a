using System.Globalization;
using System.Text.RegularExpressions;

namespace Tensormesh.TestKit;

/// <summary>
/// A folder with the Kubernetes programs of one version. Looked for in this order: KUBEBUILDER_ASSETS, the
/// cache, the public release archives, and last a build from Debian's source package, which takes minutes. The
/// archives' programs are not enough for a real node: where one can be had, the build comes before them.
/// </summary>
internal sealed partial class ControlPlaneBinaries
{
    private static readonly string[] Needed = ["kube-apiserver", "kube-controller-manager", "kube-scheduler"];

    private readonly string _folder;
    private readonly Version _version;

    private ControlPlaneBinaries(string folder, Version version)
    {
        _folder = folder;
        _version = version;
    }

    public string ApiServer => Path.Combine(_folder, "kube-apiserver");
    public string ControllerManager => Path.Combine(_folder, "kube-controller-manager");
    public string Scheduler => Path.Combine(_folder, "kube-scheduler");
    public string Kubelet => Path.Combine(_folder, "kubelet");
    public string Proxy => Path.Combine(_folder, "kube-proxy");
    public string Pause => Path.Combine(_folder, "pause");
    public bool BringsEtcd => File.Exists(Path.Combine(_folder, "etcd"));
    public string Etcd => BringsEtcd ? Path.Combine(_folder, "etcd") : Command.Find("etcd") ?? "etcd";

    /// <summary>True when the folder also holds what a real node is made of.</summary>
    public bool HasNodePrograms => File.Exists(Kubelet) && File.Exists(Proxy) && File.Exists(Pause);

    public bool IsOlderThan(int major, int minor) => _version < new Version(major, minor);

    public override string ToString() => $"Kubernetes {_version} in {_folder}";

    /// <param name="forRealNode">A real node is wanted, and this machine could carry it: programs that bring a kubelet are preferred.</param>
    public static async Task<ControlPlaneBinaries> ResolveAsync(bool forRealNode, Action<string> say, CancellationToken cancellation)
    {
        if (Environment.GetEnvironmentVariable("KUBEBUILDER_ASSETS") is { Length: > 0 } assets)
        {
            if (IsWhole(assets))
                return await OpenAsync(assets, cancellation);

            // The convention promises no more than etcd and the API server, and without the others a Deployment makes no pod.
            var missing = Needed.Where(name => !File.Exists(Path.Combine(assets, name)));
            say($"KUBEBUILDER_ASSETS={assets} lacks {string.Join(", ", missing)}: not used");
        }

        var built = Path.Combine(StateRoot.CacheDirectory, "kubernetes");
        var fetched = Path.Combine(StateRoot.CacheDirectory, "kubernetes-release");
        var order = Order(forRealNode, CanBuild);
        if (Cached() is { } cached)
            return await OpenAsync(cached, cancellation);

        await using var onlyOne = await StateRoot.LockAsync(
            built + ".lock", () => say("another start is preparing Kubernetes; waiting for it"), cancellation);
        if (Cached() is { } madeMeanwhile)
            return await OpenAsync(madeMeanwhile, cancellation);

        var whyNot = CanBuild ? "" : "building it needs root on Debian 12";
        foreach (var source in order)
        {
            switch (source)
            {
                case Source.Build:
                    if (await TryBuildAsync(built, say, cancellation) is not { } failure)
                        return await OpenAsync(built, cancellation);
                    whyNot = failure;
                    say($"Kubernetes could not be built: {failure.Split('\n')[^1]}");
                    break;
                case Source.Archives:
                    if (IsWhole(fetched) || await ReleaseArchives.TryFetchAsync(fetched, say, cancellation))
                        return await OpenAsync(fetched, cancellation);
                    break;
            }
        }

        throw new InvalidOperationException(
            "There is no Kubernetes control plane here: no TENSORMESH_KUBECONFIG, no KUBEBUILDER_ASSETS with all programs, nothing in "
            + $"{StateRoot.CacheDirectory}, the release archives are out of reach, and {whyNot}. Run the same command with sudo once "
            + "on Debian 12, or start a cluster (`kind create cluster`) and name its kubeconfig in TENSORMESH_KUBECONFIG.");

        // What was fetched for a cluster without a real node does not keep one from getting it.
        string? Cached() => IsWhole(built) ? built : order[0] == Source.Archives && IsWhole(fetched) ? fetched : null;
    }

    /// <summary>Where programs that are not at hand come from, in the order in which they are tried.</summary>
    internal enum Source
    {
        /// <summary>The public release archives: a minute, and no kubelet.</summary>
        Archives,
        /// <summary>Debian's source package: minutes, with everything that a node is made of.</summary>
        Build,
    }

    /// <param name="forRealNode">A real node is wanted, and this machine could carry it.</param>
    /// <param name="canBuild">This is Debian 12, and we are root.</param>
    internal static IReadOnlyList<Source> Order(bool forRealNode, bool canBuild) => (forRealNode, canBuild) switch
    {
        (true, true) => [Source.Build, Source.Archives],
        (false, true) => [Source.Archives, Source.Build],
        (_, false) => [Source.Archives],
    };

    private static bool CanBuild => Environment.IsPrivilegedProcess && Command.Find("apt-get") is not null
        && File.Exists("/etc/os-release") && File.ReadLines("/etc/os-release").Contains("VERSION_CODENAME=bookworm");

    /// <summary>Null when the folder holds the programs; else why not.</summary>
    private static async Task<string?> TryBuildAsync(string folder, Action<string> say, CancellationToken cancellation)
    {
        await Prerequisites.EnsureBuildAsync(say, cancellation);
        say("building Kubernetes from Debian's source package; once per machine, about seven minutes on two cores");
        var script = Path.Combine(AppContext.BaseDirectory, "Setup", "build-kubernetes.sh");
        var (exitCode, output) = await Command.TryRunAsync("bash", [script, folder], say, cancellation);
        return exitCode == 0 ? null : string.Join('\n', output.Trim().Split('\n').TakeLast(25));
    }

    private static bool IsWhole(string folder) => Needed.All(name => File.Exists(Path.Combine(folder, name)));

    private static async Task<ControlPlaneBinaries> OpenAsync(string folder, CancellationToken cancellation)
    {
        var versionFile = Path.Combine(folder, "VERSION");
        var text = File.Exists(versionFile)
            ? await File.ReadAllTextAsync(versionFile, cancellation)
            : await Command.RunAsync(Path.Combine(folder, "kube-apiserver"), ["--version"], cancellation);
        var match = VersionPattern().Match(text);
        return match.Success
            ? new ControlPlaneBinaries(folder, new Version(Number(match, 1), Number(match, 2), Number(match, 3)))
            : throw new InvalidOperationException($"{folder}/kube-apiserver does not tell its version: {text.Trim()}");
    }

    private static int Number(Match match, int group) => int.Parse(match.Groups[group].Value, CultureInfo.InvariantCulture);

    [GeneratedRegex(@"v(\d+)\.(\d+)\.(\d+)")]
    private static partial Regex VersionPattern();
}
