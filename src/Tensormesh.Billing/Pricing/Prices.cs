using Npgsql;

namespace Tensormesh.Billing;

/// <summary>A price version in force: dollars per GPU-hour of one product.</summary>
public sealed record GpuPrice(PriceVersionId Version, GpuProduct Product, Money PerGpuHour, DateTimeOffset EffectiveAt);

/// <summary>Dollars per million tokens of one model.</summary>
public sealed record TokenPrice(string Model, Money InputPerMillion, Money OutputPerMillion, Money CachedPerMillion);

/// <summary>
/// Prices as published from PriceBooks. Each change becomes an immutable version; nothing is ever edited.
/// Publishing settles every open interval of the product up to the change and starts a new running total at the
/// new price, in the same SQL transaction: a window never spans two prices.
/// </summary>
public sealed class Prices(NpgsqlDataSource dataSource)
{
    private readonly NpgsqlDataSource dataSource = dataSource;

    /// <summary>
    /// Makes the given set the prices in force from <paramref name="effectiveAt"/>: unchanged ones keep their version, changed and new
    /// ones get a new version, those absent are withdrawn (nothing new starts on them; what runs keeps its price).
    /// Idempotent. <paramref name="book"/> names the PriceBook for the record.
    /// </summary>
    /// <returns>The versions written by this call; empty when nothing changed.</returns>
    public Task<IReadOnlyList<PriceVersionId>> PublishAsync(
        string book, IReadOnlyDictionary<GpuProduct, Money> gpuPerHour, IReadOnlyList<TokenPrice> tokens, DateTimeOffset effectiveAt, CancellationToken cancellation)
        => throw new NotImplementedException();

    public Task<IReadOnlyDictionary<GpuProduct, GpuPrice>> CurrentAsync(CancellationToken cancellation) => throw new NotImplementedException();
}
