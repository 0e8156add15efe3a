using System.Globalization;
using Npgsql;
using Tensormesh.Billing;
using Tensormesh.TestKit;

namespace Tensormesh.Benchmarks;

/// <summary>What a group of figures runs in: a private Postgres with the product's schema, and where figures are written.</summary>
internal sealed class Workplace(string group) : IAsyncDisposable
{
    private readonly string directory = Path.Combine(Path.GetTempPath(), $"tensormesh-bench-{Guid.NewGuid():n}");
    private PostgresServer? server;

    /// <summary>Started with the first use; durable, as the product's must be.</summary>
    /// <param name="settings">Lines of postgresql.conf, of the first use.</param>
    public async Task<PostgresServer> PostgresAsync(CancellationToken cancellation, string? settings = null)
        => server ??= await PostgresServer.StartAsync(directory, cancellation, settings);

    /// <summary>A migrated, empty database on the given server, opened as the product opens it.</summary>
    public static async Task<NpgsqlDataSource> OpenBillingAsync(PostgresServer server, string name, CancellationToken cancellation)
    {
        var database = BillingServices.OpenDataSource(await server.CreateDatabaseAsync(name, cancellation));
        await Migrator.MigrateAsync(database, cancellation);
        return database;
    }

    /// <summary>Writes one figure as a JSON line.</summary>
    /// <param name="goal">Such as <c>&gt;=1.0</c>; null when the figure only informs.</param>
    /// <param name="of">What was measured, and against what.</param>
    public void Report(string figure, double value, string unit, string? goal, string of) => new Figure(group, figure, value, unit, goal, of).Write();

    public static void Say(FormattableString line) => Console.Error.WriteLine(FormattableString.Invariant(line));

    public static string LoadAverage()
        => File.Exists("/proc/loadavg") ? string.Join(' ', File.ReadAllText("/proc/loadavg").Split(' ').Take(3)) : "unknown";

    public async ValueTask DisposeAsync()
    {
        if (server is not null) await server.DisposeAsync();
        if (Directory.Exists(directory)) Directory.Delete(directory, recursive: true);
    }
}

/// <summary>Order statistics of a few rounds or many samples.</summary>
internal static class Samples
{
    public static double Median(IEnumerable<double> values) => Quantile(values, 0.5);

    /// <summary>The smallest value that at least this share of the values does not exceed.</summary>
    public static double Quantile(IEnumerable<double> values, double share)
    {
        var sorted = values.Order().ToArray();
        return sorted.Length == 0
            ? throw new InvalidOperationException("nothing was measured")
            : sorted[Math.Clamp((int)Math.Ceiling(share * sorted.Length) - 1, 0, sorted.Length - 1)];
    }

    public static string List(IEnumerable<double> values)
        => string.Join(' ', values.Select(value => value.ToString("0.###", CultureInfo.InvariantCulture)));
}
