using Npgsql;
using NpgsqlTypes;

namespace Tensormesh.Billing;

/// <summary>One pod's hold on its GPUs as its customer reads it.</summary>
/// <param name="GpuUuids">UUIDs of the GPUs or MIG instances; empty: its node has not told yet.</param>
/// <param name="PerGpuHour">The price in force, or at its end.</param>
/// <param name="SuspendedBecause">The reason for which charging was stopped before its end; null: it was not.</param>
public sealed record RunRecord(
    PodId Pod, string PodName, DeploymentId Deployment, string DeploymentName, string Namespace, string Node, GpuProduct Product, int Gpus,
    IReadOnlyList<string> GpuUuids, Money PerGpuHour, DateTimeOffset StartedAt, DateTimeOffset? EndedAt, DateTimeOffset? ChargeUntil, Money Settled,
    AccruingInterval? Accruing, string? SuspendedBecause)
{
    /// <summary>While it accrues: of all its GPUs.</summary>
    public Money BurnPerHour => Accruing?.BurnPerHour ?? Money.Zero;

    /// <summary>Charged and accrued by then.</summary>
    public Money Cost(DateTimeOffset t) => Settled + (Accruing?.Accrued(t) ?? Money.Zero);

    /// <summary>For how long it is charged, up to <paramref name="t"/> while it accrues.</summary>
    public TimeSpan Charged(DateTimeOffset t)
    {
        var end = (EndedAt, ChargeUntil) switch
        {
            ({ } ended, { } stopped) => Instants.Earlier(ended, stopped),
            (var ended, var stopped) => ended ?? stopped ?? t,
        };
        return end > StartedAt ? end - StartedAt : TimeSpan.Zero;
    }
}

/// <summary>Where a page of runs ends.</summary>
public readonly record struct RunPosition(DateTimeOffset StartedAt, PodId Pod);

/// <summary>What ran for an account, newest first.</summary>
public sealed class RunHistory(NpgsqlDataSource dataSource)
{
    private readonly NpgsqlDataSource dataSource = dataSource;

    /// <summary>What is charged now, newest first.</summary>
    /// <inheritdoc cref="ListAsync"/>
    public Task<IReadOnlyList<RunRecord>> ListAccruingAsync(AccountId account, int limit, CancellationToken cancellation)
        => ReadAsync(account, null, limit, isAccruing: true, cancellation);

    /// <param name="before">Only runs that come after this one in the list; null for the newest page.</param>
    /// <param name="limit">1 to 1000.</param>
    /// <returns>Empty for an account that the ledger does not know.</returns>
    public Task<IReadOnlyList<RunRecord>> ListAsync(AccountId account, RunPosition? before, int limit, CancellationToken cancellation)
        => ReadAsync(account, before, limit, isAccruing: false, cancellation);

    private Task<IReadOnlyList<RunRecord>> ReadAsync(AccountId account, RunPosition? before, int limit, bool isAccruing, CancellationToken cancellation)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(limit, 1);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(limit, 1000);
        return Transact.UseAsync<IReadOnlyList<RunRecord>>(dataSource, async connection =>
        {
            await using var list = new NpgsqlCommand(SqlText.ListRuns, connection)
            {
                Parameters =
                {
                    Transact.Value(account.Value), Transact.Value(before?.StartedAt.ToLedgerTime(), NpgsqlDbType.TimestampTz),
                    Transact.Value(before?.Pod.Value, NpgsqlDbType.Uuid), Transact.Value(limit), Transact.Value(isAccruing),
                },
            };
            await using var reader = await list.ExecuteReaderAsync(cancellation);
            var runs = new List<RunRecord>();
            while (await reader.ReadAsync(cancellation)) runs.Add(Row(reader));
            return runs;
        }, cancellation);
    }

    private static RunRecord Row(NpgsqlDataReader reader)
    {
        DateTimeOffset? At(int column) => reader.IsDBNull(column) ? null : reader.GetFieldValue<DateTimeOffset>(column);
        var (pod, deployment, product, gpus, price) = (
            new PodId(reader.GetGuid(0)), new DeploymentId(reader.GetGuid(2)), new GpuProduct(reader.GetString(6)), reader.GetInt32(7), new Money(reader.GetInt64(8)));
        var (ended, stopped) = (At(14), At(15));
        var accruing = ended is null && stopped is null
            ? new AccruingInterval(
                pod, deployment, product, gpus, price, reader.GetFieldValue<DateTimeOffset>(9), new(reader.GetInt64(10)), reader.GetFieldValue<DateTimeOffset>(12))
            : null;
        return new(
            pod, reader.GetString(1), deployment, reader.GetString(3), reader.GetString(4), reader.GetString(5), product, gpus,
            reader.IsDBNull(16) ? [] : reader.GetFieldValue<string[]>(16), price, reader.GetFieldValue<DateTimeOffset>(13), ended, stopped,
            new(reader.GetInt64(11)), accruing, reader.IsDBNull(17) ? null : reader.GetString(17));
    }
}
