using Npgsql;

namespace Tensormesh.TestKit;

/// <summary>
/// The product as a cluster runs it: every executable as pods of its own image on the real node, installed by kubectl from manifests/overlays/dev with the committed
/// rights, services and policies. What is done to it is done by tests/walk-through.sh, as a person would on kind.
/// </summary>
public static class ProductPods
{
    /// <summary>Makes the images. The first time takes a few minutes.</summary>
    public static Task<IReadOnlyList<string>> PrepareAsync(Action<string> say, CancellationToken cancellation)
    {
        // What is published from one tree is published once by one process.
        lock (Only) return prepared ??= MakeAsync(say, cancellation);
    }

    private static readonly Lock Only = new();
    private static Task<IReadOnlyList<string>>? prepared;

    private static async Task<IReadOnlyList<string>> MakeAsync(Action<string> say, CancellationToken cancellation) =>
    [
        await ProductImages.EnsureAgentAsync(say, cancellation),
        await ProductImages.EnsureOperatorAsync(say, cancellation),
        await ProductImages.EnsureWebAsync(say, cancellation),
    ];

    /// <summary>Gives the node the images.</summary>
    /// <exception cref="NotSupportedException">gpu-a is not a real node here.</exception>
    public static async Task ImportAsync(DevCluster cluster, Action<string> say, CancellationToken cancellation)
    {
        ArgumentNullException.ThrowIfNull(cluster);
        if (!cluster.HasRealNode) throw new NotSupportedException($"pods of the product need {RealNode.Name} to be a real node");
        foreach (var archive in await PrepareAsync(say, cancellation)) await cluster.ImportImagesAsync(archive, cancellation);
    }

    /// <summary>Ends the operator's process of a pod with SIGKILL, which its container cannot do itself: nothing of it can say goodbye.</summary>
    public static void KillProcessOf(string pod)
    {
        var pid = Directory.EnumerateDirectories("/proc").Select(folder => Path.GetFileName(folder)).Where(name => int.TryParse(name, out _)).Single(name =>
            Read(name, "cmdline").Contains("/opt/tensormesh-operator/tensormesh-operator.dll", StringComparison.Ordinal)
            && Read(name, "environ").Split('\0').Contains($"HOSTNAME={pod}"));
        ProcFs.Signal(ProcFs.Identify(int.Parse(pid, System.Globalization.CultureInfo.InvariantCulture), pod)!, ProcFs.SigKill);

        static string Read(string process, string file)
        {
            try
            {
                return File.ReadAllText($"/proc/{process}/{file}");
            }
            catch (Exception gone) when (gone is IOException or UnauthorizedAccessException)
            {
                return "";
            }
        }
    }

    /// <summary>Makes an empty database that pods reach; one of before goes, with its sessions.</summary>
    /// <returns>The file that walk-through.sh reads.</returns>
    public static async Task<string> CreateDatabaseAsync(DevCluster cluster, CancellationToken cancellation)
    {
        ArgumentNullException.ThrowIfNull(cluster);
        var own = new NpgsqlConnectionStringBuilder(await cluster.Postgres.CreateDatabaseAsync("product", cancellation));
        // Pools of four processes on one server, which tests use as well.
        var pods = new NpgsqlConnectionStringBuilder(own.ConnectionString) { Host = cluster.AddressForPods!.ToString(), MaxPoolSize = 20 };
        var file = Path.Combine(cluster.StateDirectory, "walk-through.env");
        await File.WriteAllTextAsync(
            file,
            $"""
            export KUBECONFIG={cluster.KubeconfigPath}
            export DATABASE_URL=postgresql://{own.Username}@{own.Host}:{own.Port}/{own.Database}
            export POD_DATABASE='{pods.ConnectionString}'
            export STATE={cluster.StateDirectory}

            """, cancellation);
        return file;
    }
}
