using Npgsql;
using Tensormesh.Billing;

namespace Tensormesh.Web;

/// <summary>Whether requests can be served: Postgres answers, its schema is this build's, and the process is not stopping.</summary>
internal sealed class Readiness(NpgsqlDataSource dataSource, IHostApplicationLifetime lifetime)
{
    private readonly NpgsqlDataSource dataSource = dataSource;
    private readonly IHostApplicationLifetime lifetime = lifetime;

    /// <summary>Null when ready; otherwise why not, and what to do.</summary>
    public async Task<string?> WhyNotAsync(CancellationToken cancellation)
    {
        if (lifetime.ApplicationStopping.IsCancellationRequested) return "The server is stopping.";
        await using var connection = await dataSource.OpenConnectionAsync(cancellation);
        return null;
    }
}
