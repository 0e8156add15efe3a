namespace Tensormesh.TestKit;

/// <summary>The Debian packages that the dev cluster is made of: found, or installed with a line that says so.</summary>
internal static class Prerequisites
{
    private const string ClusterSettings = "/etc/postgresql-common/createcluster.conf";
    private const string PgBouncerUnit = "/etc/systemd/system/pgbouncer.service";
    /// <summary>Asked before a package's init script is run; 101 forbids it.</summary>
    private const string ServicePolicy = "/usr/sbin/policy-rc.d";

    /// <summary>A package, and a file or folder that shows that it is installed (a bare name is looked up on the PATH).</summary>
    private sealed record Package(string Name, string Proof);

    private static readonly Package Postgres = new("postgresql", "/usr/lib/postgresql/*/bin/postgres");

    private static readonly Package[] Always =
    [
        Postgres, new("kubernetes-client", "kubectl"),
        new("curl", "curl"),
    ];

    private static readonly Package[] ControlPlane = [new("etcd-server", "etcd"), new("util-linux", "setpriv")];

    private static readonly Package[] RealNode =
    [
        new("containerd", "containerd"), new("runc", "runc"), new("containernetworking-plugins", "/usr/lib/cni/bridge"),
        new("iproute2", "ip"), new("iptables", "iptables"), new("conntrack", "conntrack"), new("busybox-static", "busybox"),
    ];

    private static readonly Package[] PgBouncer = [new("pgbouncer", "pgbouncer"), new("util-linux", "setpriv")];

    private static readonly Package[] Browser = [new("chromium", "chromium"), new("fonts-dejavu-core", "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf")];

    private static readonly Package[] SteppingClock = [new("libfaketime", "/usr/lib/*/faketime/libfaketimeMT.so.1")];

    private static readonly Package[] Compiler = [new("make", "make"), new("gcc", "cc"), new("libc6-dev", "/usr/include/stdlib.h")];

    private static readonly Package[] ImageBuild = [new("buildah", "buildah"), new("libc-bin", "ldd")];

    private static readonly Package[] Build =
    [
        new("golang-go", "go"), new("dpkg-dev", "dpkg-source"), new("rsync", "rsync"), new("jq", "jq"), new("make", "make"), new(
            "gcc", "gcc"),
        new("libc6-dev", "/usr/include/stdlib.h"), new("binutils", "strip"),
        new("golang-github-modern-go-reflect2-dev", "/usr/share/gocode/src/github.com/modern-go/reflect2"),
    ];

    public static Task EnsureCommonAsync(Action<string> say, CancellationToken cancellation) => EnsureAsync(Always, say, cancellation);

    /// <summary>Nothing to install where its programs are on the PATH.</summary>
    public static Task EnsurePostgresAsync(Action<string> say, CancellationToken cancellation) =>
        EnsureAsync(Command.Find("initdb") is null ? [Postgres] : [], say, cancellation);

    /// <param name="etcdComesWithBinaries">True when the folder of the control plane brings its own etcd.</param>
    public static Task EnsureControlPlaneAsync(bool etcdComesWithBinaries, Action<string> say, CancellationToken cancellation) =>
        EnsureAsync(ControlPlane.Where(package => !(etcdComesWithBinaries && package.Name == "etcd-server")), say, cancellation);

    public static Task EnsureBuildAsync(Action<string> say, CancellationToken cancellation) => EnsureAsync(Build, say, cancellation);

    public static Task EnsureCompilerAsync(Action<string> say, CancellationToken cancellation) => EnsureAsync(Compiler, say, cancellation);

    public static Task EnsureImageBuildAsync(Action<string> say, CancellationToken cancellation) => EnsureAsync(ImageBuild, say, cancellation);

    public static Task EnsurePgBouncerAsync(Action<string> say, CancellationToken cancellation) => EnsureAsync(PgBouncer, say, cancellation);

    public static Task EnsureBrowserAsync(Action<string> say, CancellationToken cancellation) => EnsureAsync(Browser, say, cancellation);

    public static Task EnsureSteppingClockAsync(Action<string> say, CancellationToken cancellation) =>
        EnsureAsync(SteppingClock, say, cancellation);

    public static Task EnsureRealNodeAsync(Action<string> say, CancellationToken cancellation) => EnsureAsync(RealNode, say, cancellation);

    private static async Task EnsureAsync(IEnumerable<Package> packages, Action<string> say, CancellationToken cancellation)
    {
        var missing = packages.Where(package => !IsPresent(package.Proof)).Select(package => package.Name).ToList();
        if (missing.Count == 0)
            return;

        var names = string.Join(' ', missing);
        if (Command.Find("apt-get") is not { } apt)
        {
            throw new InvalidOperationException(
                $"The dev cluster needs what these Debian packages hold: {names}. "
                + "This system has no apt-get: install them by its own means, "
                + "or name a cluster of your own (kind, for one) in TENSORMESH_KUBECONFIG.");
        }

        if (!Environment.IsPrivilegedProcess)
            throw new InvalidOperationException(
                $"The dev cluster needs packages that are not installed. Run: sudo apt-get install -y {names}");

        // Two starts at once would meet at dpkg's lock.
        await using var onlyOne = await StateRoot.LockAsync(
            Path.Combine(StateRoot.CacheDirectory, "apt.lock"), waiting: null, cancellation);
        say($"installing {names}");
        await RefuseMainPostgresClusterAsync(cancellation);
        if (missing.Contains("pgbouncer")) await RefusePgBouncerServiceAsync(cancellation);
        var (updated, updateOutput) = await Command.TryRunAsync(apt, ["update", "-q"], line: null, cancellation);
        var (installed, output) = await Command.TryRunAsync(
            apt, ["install", "-y", "-q", "--no-install-recommends", .. missing], line: null, cancellation);
        if (installed != 0)
        {
            throw new InvalidOperationException(
                $"apt-get could not install {names}: {Tail(output)}"
                + (updated == 0 ? "" : $"\napt-get update failed before: {Tail(updateOutput)}"));
        }
    }

    /// <summary>Debian starts a cluster of its own with the package unless told not to; ours is private and throwaway.</summary>
    private static async Task RefuseMainPostgresClusterAsync(CancellationToken cancellation)
    {
        if (File.Exists(ClusterSettings) || IsPresent("/usr/lib/postgresql/*/bin/postgres"))
            return;
        Directory.CreateDirectory(Path.GetDirectoryName(ClusterSettings)!);
        await File.WriteAllTextAsync(ClusterSettings, "create_main_cluster = false\n", cancellation);
    }

    /// <summary>Debian starts a pooler with the package, too, now and at each boot. A policy that is there already is the machine's own.</summary>
    private static async Task RefusePgBouncerServiceAsync(CancellationToken cancellation)
    {
        if (Directory.Exists("/run/systemd/system"))
        {
            if (!Path.Exists(PgBouncerUnit)) File.CreateSymbolicLink(PgBouncerUnit, "/dev/null");
        }
        else if (!File.Exists(ServicePolicy))
        {
            await File.WriteAllTextAsync(ServicePolicy, "#!/bin/sh\n[ \"$1\" != pgbouncer ] || exit 101\n", cancellation);
            File.SetUnixFileMode(ServicePolicy, (UnixFileMode)0b111_101_101);
        }
    }

    private static bool IsPresent(string proof)
    {
        if (!proof.StartsWith('/'))
            return Command.Find(proof) is not null;
        if (!proof.Contains('*', StringComparison.Ordinal))
            return Path.Exists(proof);
        var (before, after) = (
            proof[..proof.IndexOf('*', StringComparison.Ordinal)], proof[(proof.IndexOf('*', StringComparison.Ordinal) + 2)..]);
        return Directory.Exists(before) && Directory.EnumerateDirectories(before).Any(folder => Path.Exists(Path.Combine(folder, after)));
    }

    private static string Tail(string output) => string.Join('\n', output.Split('\n').TakeLast(12));
}
