using Npgsql;
using Tensormesh.Billing;

namespace Tensormesh.Web;

/// <summary>Whether requests can be served: Postgres answers, its schema is this build's, and the process is not stopping.</summary>
internal sealed class Readiness(NpgsqlDataSource dataSource, IHostApplicationLifetime lifetime)
{
    private static readonly string[] Needed = [.. typeof(Migrator).Assembly.GetManifestResourceNames()
        .Where(name => name.StartsWith("Migrations/", StringComparison.Ordinal)).Order(StringComparer.Ordinal)];

    private readonly NpgsqlDataSource dataSource = dataSource;
    private readonly IHostApplicationLifetime lifetime = lifetime;

    /// <summary>Null when ready; otherwise why not, and what to do.</summary>
    /// <exception cref="NpgsqlException">Postgres cannot be reached.</exception>
    public async Task<string?> WhyNotAsync(CancellationToken cancellation)
    {
        if (lifetime.ApplicationStopping.IsCancellationRequested) return "The server is stopping.";
        var applied = await Migrator.AppliedAsync(dataSource, cancellation);
        var missing = Needed.Where(name => !applied.Contains(name)).ToArray();
        return missing.Length == 0
            ? null
            : $"The database lacks {missing.Length} migrations, the first of them {missing[0]}. Start the operator, or one server with "
                + $"Tensormesh__MigrateOnStart=true, to apply them.";
    }
}
