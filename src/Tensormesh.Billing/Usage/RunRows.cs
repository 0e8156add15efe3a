using Npgsql;
using NpgsqlTypes;

namespace Tensormesh.Billing;

/// <summary>What a row of run_interval must still say when it is written.</summary>
internal readonly record struct Watermark(DateTimeOffset SettledUntil, DateTimeOffset? EndedAt)
{
    public static Watermark Of(Run run) => new(run.SettledUntil, run.EndedAt);
}

/// <summary>Runs to and from rows of run_interval.</summary>
internal static class RunRows
{
    /// <summary>A row with the columns of read_runs.sql.</summary>
    public static Run Read(NpgsqlDataReader row) => new()
    {
        Pod = new(row.GetGuid(0)),
        PodName = row.GetString(1),
        Deployment = new(row.GetGuid(2)),
        DeploymentName = row.GetString(3),
        Namespace = row.GetString(4),
        Account = new(row.GetString(5)),
        Node = row.GetString(6),
        Product = new(row.GetString(7)),
        Gpus = row.GetInt32(8),
        StartedAt = row.GetFieldValue<DateTimeOffset>(9),
        PriceVersion = new(row.GetInt64(10)),
        PerGpuHour = new(row.GetInt64(11)),
        RatedFrom = row.GetFieldValue<DateTimeOffset>(12),
        Rated = new(row.GetInt64(13)),
        Total = new(row.GetInt64(14)),
        SettledUntil = row.GetFieldValue<DateTimeOffset>(15),
        EndedAt = row.IsDBNull(16) ? null : row.GetFieldValue<DateTimeOffset>(16),
        ChargeUntil = row.IsDBNull(17) ? null : row.GetFieldValue<DateTimeOffset>(17),
        GpuUuids = row.IsDBNull(18) ? [] : row.GetFieldValue<string[]>(18),
    };

    public static NpgsqlBatchCommand Write(
        IReadOnlyList<(Run Run, Watermark Expected)> runs, IReadOnlyDictionary<PodId, List<RunRating>> ratings)
    {
        var totals = ratings.SelectMany(pod => pod.Value.Select(total => (Pod: pod.Key, Total: total))).ToList();
        return Transact.Command(
            SqlText.WriteRuns,
            Column(runs, one => one.Run.Pod.Value),
            Column(runs, one => one.Expected.SettledUntil),
            Times(runs, one => one.Expected.EndedAt),
            Column(runs, one => one.Run.PriceVersion.Value),
            Column(runs, one => one.Run.PerGpuHour.Nanos),
            Column(runs, one => one.Run.RatedFrom),
            Column(runs, one => one.Run.Rated.Nanos),
            Column(runs, one => one.Run.Total.Nanos),
            Column(runs, one => one.Run.SettledUntil),
            Times(runs, one => one.Run.EndedAt),
            Times(runs, one => one.Run.ChargeUntil),
            Column(totals, one => one.Pod.Value),
            Column(totals, one => one.Total.From),
            Column(totals, one => one.Total.Version.Value),
            Column(totals, one => one.Total.PerGpuHour.Nanos));
    }

    /// <summary>The running totals of each pod, from its start.</summary>
    public static async Task<ILookup<PodId, RunRating>> ReadRatingsAsync(
        NpgsqlConnection connection, IEnumerable<PodId> pods, CancellationToken cancellation)
    {
        await using var command = new NpgsqlCommand(
            "select pod, from_at, price_version, per_gpu_hour_nanos from run_interval_rating where pod = any ($1) order by from_at, price_version",
            connection)
        {
            Parameters = { Transact.Value(pods.Select(pod => pod.Value).ToArray()) },
        };
        await using var reader = await command.ExecuteReaderAsync(cancellation);
        var totals = new List<(PodId Pod, RunRating Total)>();
        while (await reader.ReadAsync(cancellation)) totals.Add((
            new(reader.GetGuid(0)), new(reader.GetFieldValue<DateTimeOffset>(1), new(reader.GetInt64(2)), new(reader.GetInt64(3)))));
        return totals.ToLookup(one => one.Pod, one => one.Total);
    }

    private static NpgsqlParameter Column<TRow, T>(IReadOnlyList<TRow> rows, Func<TRow, T> value)
        => Transact.Value(rows.Select(value).ToArray());

    private static NpgsqlParameter Times<TRow>(IReadOnlyList<TRow> rows, Func<TRow, DateTimeOffset?> value)
        => Transact.Value(rows.Select(value).ToArray(), NpgsqlDbType.Array | NpgsqlDbType.TimestampTz);
}
