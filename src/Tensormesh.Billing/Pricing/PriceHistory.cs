using Npgsql;

namespace Tensormesh.Billing;

/// <summary>One row of price_version for a GPU product; no rate when it withdraws the product from its book.</summary>
internal sealed record PriceRow(PriceVersionId Version, string Book, Money? PerGpuHour, DateTimeOffset EffectiveAt);

/// <summary>Which price applies to a run, from every version that its product ever had.</summary>
internal static class PriceHistory
{
    /// <summary>Taken shared by whoever opens a run, exclusive by whoever publishes: no run can begin on a price while it is being
    /// replaced.</summary>
    public const string LockShared = "select pg_advisory_xact_lock_shared(hashtext('tensormesh.prices'), hashtext(current_schema()))";
    public const string LockExclusive = "select pg_advisory_xact_lock(hashtext('tensormesh.prices'), hashtext(current_schema()))";

    public static NpgsqlBatchCommand Command(GpuProduct product) => Transact.Command(
        "select id, book, per_gpu_hour_nanos, effective_at from price_version where kind = 'gpu' and item = $1 order by effective_at, id",
        Transact.Value(product.Name));

    public static async Task<IReadOnlyList<PriceRow>> ReadAsync(NpgsqlDataReader reader, CancellationToken cancellation)
    {
        var rows = new List<PriceRow>();
        while (await reader.ReadAsync(cancellation))
        {
            rows.Add(new(
                new(reader.GetInt64(0)),
                reader.GetString(1),
                reader.IsDBNull(2) ? null : new Money(reader.GetInt64(2)),
                reader.GetFieldValue<DateTimeOffset>(3)));
        }

        return rows;
    }

    /// <summary>
    /// The version in force at <paramref name="startedAt"/>: of each book the newest by then, of those not withdrawn the newest. What was
    /// admitted just before
    /// a withdrawal keeps the last price; what began before there was any price takes the first.
    /// </summary>
    /// <param name="rows">In order of effective instant.</param>
    /// <returns>Null when the product never had a price.</returns>
    public static PriceRow? InForce(IReadOnlyList<PriceRow> rows, DateTimeOffset startedAt)
    {
        return At(rows, startedAt)
            ?? rows.LastOrDefault(row => row.EffectiveAt <= startedAt && row.PerGpuHour is not null)
            ?? rows.FirstOrDefault(row => row.PerGpuHour is not null);
    }

    /// <summary>The version at which something could start at <paramref name="t"/>; null when the product had no price then.</summary>
    /// <param name="rows">In order of effective instant.</param>
    public static PriceRow? At(IReadOnlyList<PriceRow> rows, DateTimeOffset t)
        => rows.Where(row => row.EffectiveAt <= t).GroupBy(row => row.Book).Select(book => book.Last())
            .Where(row => row.PerGpuHour is not null).MaxBy(row => (row.EffectiveAt, row.Version.Value));

    /// <summary>The changes that a run which began on <paramref name="first"/> has to follow: every price published after it.</summary>
    public static IEnumerable<PriceRow> ChangesAfter(IReadOnlyList<PriceRow> rows, PriceRow first, DateTimeOffset startedAt)
        => rows.Where(row => row.PerGpuHour is not null && row.Version != first.Version && row.EffectiveAt > startedAt
            && row.EffectiveAt >= first.EffectiveAt);
}
