using Npgsql;

namespace Tensormesh.TestKit;

/// <summary>
/// The product as a cluster runs it: every executable as pods of its own image on the real node, installed by kubectl from manifests/overlays/dev with the committed
/// rights, services and policies. What is done to it is done by tests/walk-through.sh, as a person would on kind.
/// </summary>
public static class ProductPods
{
    /// <summary>Makes the images. The first time takes a few minutes.</summary>
    public static async Task<IReadOnlyList<string>> PrepareAsync(Action<string> say, CancellationToken cancellation) =>
    [
        await ProductImages.EnsureAgentAsync(say, cancellation),
        await ProductImages.EnsureOperatorAsync(say, cancellation),
        await ProductImages.EnsureWebAsync(say, cancellation),
    ];

    /// <summary>Gives the node the images, and makes a database that pods reach.</summary>
    /// <returns>The file that walk-through.sh reads.</returns>
    /// <exception cref="NotSupportedException">gpu-a is not a real node here.</exception>
    public static async Task<string> PrepareClusterAsync(DevCluster cluster, Action<string> say, CancellationToken cancellation)
    {
        ArgumentNullException.ThrowIfNull(cluster);
        if (!cluster.HasRealNode || cluster.AddressForPods is not { } address) throw new NotSupportedException($"pods of the product need {RealNode.Name} to be a real node");
        foreach (var archive in await PrepareAsync(say, cancellation)) await cluster.ImportImagesAsync(archive, cancellation);
        var own = new NpgsqlConnectionStringBuilder(await cluster.Postgres.CreateDatabaseAsync("product", cancellation));
        var pods = new NpgsqlConnectionStringBuilder(own.ConnectionString) { Host = address.ToString() };
        // Pools of four processes on one server, which tests use as well.
        pods.MaxPoolSize = 20;
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
