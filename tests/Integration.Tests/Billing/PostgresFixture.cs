using Npgsql;
using Tensormesh.Billing;
using Tensormesh.Integration.Tests.Billing;
using Tensormesh.TestKit;

[assembly: AssemblyFixture(typeof(PostgresFixture))]

namespace Tensormesh.Integration.Tests.Billing;

/// <summary>One Postgres for all tests of money, in a temp directory; each test class gets a database of its own.</summary>
public sealed class PostgresFixture : IAsyncLifetime
{
    private readonly string directory = Path.Combine(Path.GetTempPath(), $"tensormesh-billing-tests-{Guid.NewGuid():n}");
    private const string Template = "billing_template";
    private readonly SemaphoreSlim oneAtATime = new(1);
    private PostgresServer? server;

    public PostgresServer Server => server!;

    public async ValueTask InitializeAsync()
    {
        server = await PostgresServer.StartAsync(directory, CancellationToken.None);
        // Migrated once; every test gets a copy.
        await using var template = BillingServices.OpenDataSource(
            new NpgsqlConnectionStringBuilder(await server.CreateDatabaseAsync(Template, CancellationToken.None)) { Pooling = false }
                .ConnectionString);
        await Migrator.MigrateAsync(template, CancellationToken.None);
    }

    /// <summary>A migrated, empty database.</summary>
    public async Task<NpgsqlDataSource> CreateAsync(string name, CancellationToken cancellation)
    {
        await oneAtATime.WaitAsync(cancellation);
        try
        {
            return BillingServices.OpenDataSource(await server!.CreateDatabaseAsync(name.ToLowerInvariant(), Template, cancellation));
        }
        finally
        {
            oneAtATime.Release();
        }
    }

    public async ValueTask DisposeAsync()
    {
        if (server is not null) await server.DisposeAsync();
        if (Directory.Exists(directory)) Directory.Delete(directory, recursive: true);
        oneAtATime.Dispose();
    }
}
