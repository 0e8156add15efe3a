using System.Collections.Concurrent;
using Npgsql;
using Tensormesh.Billing;
using Tensormesh.Simulation.Tests;
using Tensormesh.TestKit;

[assembly: AssemblyFixture(typeof(StoriesFixture))]

namespace Tensormesh.Simulation.Tests;

/// <summary>
/// One Postgres for all stories. Those of a batch share a database, one after the other, each with its own accounts, deployments and products; the next
/// batch gets a fresh copy, so that tables stay small.
/// </summary>
public sealed class StoriesFixture : IAsyncLifetime
{
    private const string Template = "stories_template";
    private const int StoriesPerDatabase = 40;
    private const int AtOnce = 3;
    /// <summary>No story crashes Postgres, so that nothing need be on disk.</summary>
    private const string Settings = """

        fsync = off
        synchronous_commit = off
        full_page_writes = off
        autovacuum = off
        """;

    private readonly string directory = Path.Combine(Path.GetTempPath(), $"tensormesh-simulation-{Guid.NewGuid():n}");
    private readonly SemaphoreSlim oneAtATime = new(1);
    private PostgresServer? server;
    private int databases;

    public async ValueTask InitializeAsync()
    {
        server = await PostgresServer.StartAsync(directory, CancellationToken.None, Settings);
        await using var template = BillingServices.OpenDataSource(
            new NpgsqlConnectionStringBuilder(await server.CreateDatabaseAsync(Template, CancellationToken.None)) { Pooling = false }.ConnectionString);
        await Migrator.MigrateAsync(template, CancellationToken.None);
    }

    /// <summary>
    /// Tells the stories of these seeds. A batch ends at its first fault, and after one no other batch is begun. Every database is proved as a whole after
    /// its last story.
    /// </summary>
    internal async Task<IReadOnlyList<StoryEnd>> TellAsync(IEnumerable<int> seeds, Flaw flaw, CancellationToken cancellation)
    {
        var ends = new ConcurrentBag<StoryEnd>();
        var options = new ParallelOptions { MaxDegreeOfParallelism = AtOnce, CancellationToken = cancellation };
        await Parallel.ForEachAsync(seeds.Chunk(StoriesPerDatabase), options, async (batch, stop) =>
        {
            if (ends.Any(end => end.Fault is not null)) return;
            await using var database = await CreateAsync(stop);
            foreach (var seed in batch)
            {
                var end = await Story.TellAsync(seed, database, flaw, stop);
                ends.Add(end);
                if (end.Fault is not null) return;
            }

            await ProveAsync(database, stop);
        });
        return [.. ends.OrderBy(end => end.Seed)];
    }

    private static async Task ProveAsync(NpgsqlDataSource database, CancellationToken cancellation)
    {
        var report = await new LedgerVerifier(database).VerifyAsync(_ => { }, cancellation);
        Assert.True(report.Difference is null, $"the whole ledger: {report.Difference}");
        await using var command = database.CreateCommand("select coalesce(sum(balance), 0), count(*) filter (where difference_to_projection <> 0) from v_trial_balance");
        await using var reader = await command.ExecuteReaderAsync(cancellation);
        await reader.ReadAsync(cancellation);
        Assert.Equal((0m, 0L), (reader.GetDecimal(0), reader.GetInt64(1)));
    }

    /// <summary>Migrated and empty.</summary>
    internal async Task<NpgsqlDataSource> CreateAsync(CancellationToken cancellation)
    {
        await oneAtATime.WaitAsync(cancellation);
        try
        {
            var connection = await server!.CreateDatabaseAsync($"stories_{++databases}", Template, cancellation);
            return BillingServices.OpenDataSource(new NpgsqlConnectionStringBuilder(connection) { MaxPoolSize = 4 }.ConnectionString);
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
