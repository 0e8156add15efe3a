using Npgsql;
using NpgsqlTypes;

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
public sealed class Prices(NpgsqlDataSource dataSource, OperatorEpoch? epoch = null)
{
    /// <summary>Two clocks that say the same differ by less.</summary>
    public static readonly TimeSpan ClockTolerance = TimeSpan.FromMinutes(1);

    private readonly NpgsqlDataSource dataSource = dataSource;
    private readonly StandingHints hints = StandingHints.Of(dataSource);
    private readonly OperatorEpoch? epoch = epoch;

    /// <summary>
    /// Makes the given set the prices in force from <paramref name="effectiveAt"/>: unchanged ones keep their version, changed and new
    /// ones get a new version, those absent are withdrawn (nothing new starts on them; what runs keeps its price).
    /// Idempotent. <paramref name="book"/> names the PriceBook for the record. An empty set withdraws everything that the book names.
    /// </summary>
    /// <param name="effectiveAt">Now, as the caller sees it. A run already settled past it takes the new price from there.</param>
    /// <returns>The versions written by this call, withdrawals included; empty when nothing changed.</returns>
    /// <exception cref="ArgumentOutOfRangeException">A price is negative.</exception>
    /// <exception cref="PriceInstantException">A change would take effect in the ledger's future, or before the version that it replaces:
    /// by more than <see cref="ClockTolerance"/>, within which it takes effect with that.</exception>
    public async Task<IReadOnlyList<PriceVersionId>> PublishAsync(
        string book, IReadOnlyDictionary<GpuProduct, Money> gpuPerHour, IReadOnlyList<TokenPrice> tokens, DateTimeOffset effectiveAt,
        CancellationToken cancellation)
    {
        var wanted = gpuPerHour.Select(price => new Item("gpu", price.Key.Name, price.Value.Nanos, null, null, null))
            .Concat(tokens.Select(
                price => new Item("token", price.Model, null, price.InputPerMillion.Nanos, price.OutputPerMillion.Nanos,
                    price.CachedPerMillion.Nanos)))
            .ToDictionary(item => (item.Kind, item.Name));
        foreach (var item in wanted.Values)
        {
            ArgumentOutOfRangeException.ThrowIfNegative(
                Math.Min(item.PerGpuHour ?? 0, Math.Min(item.Input ?? 0, Math.Min(item.Output ?? 0, item.Cached ?? 0))), item.Name);
        }

        var (versions, repriced) = await Transact.RunAsync(dataSource, async connection =>
        {
            var accounts = new HashSet<AccountId>();
            var (newest, now) = await LockAndReadNewestAsync(connection, book, cancellation);
            var changed = wanted.Values.Where(item => newest.GetValueOrDefault((item.Kind, item.Name)).Item != item)
                .Concat(newest.Values.Where(row => !row.Item.IsWithdrawn && !wanted.ContainsKey((row.Item.Kind, row.Item.Name)))
                    .Select(row => new Item(row.Item.Kind, row.Item.Name, null, null, null, null)))
                .ToList();

            var (written, priced) = (new List<PriceVersionId>(), new List<(string Model, PriceVersionId Version)>());
            foreach (var item in changed)
            {
                var from = effectiveAt.ToLedgerTime();
                if (from > now + ClockTolerance) throw PriceInstantException.InTheFuture(book, item.Name, from, now);
                if (newest.TryGetValue((item.Kind, item.Name), out var last))
                {
                    if (from < last.EffectiveAt - ClockTolerance) throw PriceInstantException.InThePast(book, item.Name, from, last.EffectiveAt);
                    // A clock that stepped back must not put a newer version before an older one.
                    from = Instants.Later(from, last.EffectiveAt);
                }

                var version = await InsertAsync(connection, book, item, from, cancellation);
                written.Add(version);
                if (item.PerGpuHour is { } perGpuHour) accounts.UnionWith(
                    await RepriceAsync(connection, new(item.Name), version, new(perGpuHour), from, cancellation));
                if (item.Input is not null) priced.Add((item.Name, version));
            }

            // After the ledger accounts are locked, as everywhere.
            foreach (var (model, version) in priced) accounts.UnionWith(await PriceUsageAsync(connection, model, version, effectiveAt, cancellation));
            return (written, accounts);
        }, cancellation);
        hints.Tell(repriced.Select(account => account.Value));
        return versions;
    }

    /// <summary>What a GPU-hour costs now. Withdrawn products are not in it.</summary>
    public Task<IReadOnlyDictionary<GpuProduct, GpuPrice>> CurrentAsync(CancellationToken cancellation)
        => Transact.UseAsync<IReadOnlyDictionary<GpuProduct, GpuPrice>>(dataSource, async connection =>
        {
            await using var command = new NpgsqlCommand(SqlText.CurrentPrices, connection);
            await using var reader = await command.ExecuteReaderAsync(cancellation);
            var prices = new Dictionary<GpuProduct, GpuPrice>();
            while (await reader.ReadAsync(cancellation))
            {
                var product = new GpuProduct(reader.GetString(1));
                prices[product] = new(new(reader.GetInt64(0)), product, new(reader.GetInt64(2)), reader.GetFieldValue<DateTimeOffset>(3));
            }

            return prices;
        }, cancellation);

    /// <summary>What tokens cost now, by model. Withdrawn models are not in it.</summary>
    public Task<IReadOnlyList<TokenPrice>> CurrentTokensAsync(CancellationToken cancellation)
        => Transact.UseAsync<IReadOnlyList<TokenPrice>>(dataSource, async connection =>
        {
            await using var command = new NpgsqlCommand(SqlText.CurrentTokenPrices, connection);
            await using var reader = await command.ExecuteReaderAsync(cancellation);
            var prices = new List<TokenPrice>();
            while (await reader.ReadAsync(cancellation))
            {
                prices.Add(new(reader.GetString(1), new(reader.GetInt64(2)), new(reader.GetInt64(3)), new(reader.GetInt64(4))));
            }

            return prices;
        }, cancellation);

    /// <summary>What a GPU-hour of the product cost for what started at <paramref name="t"/>, of every version that was ever published; null
    /// when it had no price then.</summary>
    public Task<GpuPrice?> AtAsync(GpuProduct product, DateTimeOffset t, CancellationToken cancellation)
        => Transact.UseAsync(dataSource, async connection =>
        {
            await using var batch = new NpgsqlBatch(connection) { BatchCommands = { PriceHistory.Command(product) } };
            await using var reader = await batch.ExecuteReaderAsync(cancellation);
            return PriceHistory.At(await PriceHistory.ReadAsync(reader, cancellation), t.ToLedgerTime()) is { } row
                ? new GpuPrice(row.Version, product, row.PerGpuHour!.Value, row.EffectiveAt)
                : null;
        }, cancellation);

    /// <summary>Which book has a price in force for which item, products and models alike: the one that was there first stands.</summary>
    public Task<IReadOnlySet<(string Book, string Item)>> InForceAsync(CancellationToken cancellation)
        => Transact.UseAsync<IReadOnlySet<(string Book, string Item)>>(dataSource, async connection =>
        {
            await using var command = new NpgsqlCommand(
                """
                select book, item from (
                  select distinct on (book, kind, item) book, item, withdrawn from price_version order by book, kind, item, effective_at desc, id desc) newest
                where not withdrawn
                """, connection);
            await using var reader = await command.ExecuteReaderAsync(cancellation);
            var published = new HashSet<(string, string)>();
            while (await reader.ReadAsync(cancellation)) published.Add((reader.GetString(0), reader.GetString(1)));
            return published;
        }, cancellation);

    /// <summary>The newest version of each item of the book, and the ledger's clock.</summary>
    private async Task<(Dictionary<(string Kind, string Name), (Item Item, DateTimeOffset EffectiveAt)> Newest, DateTimeOffset Now)> LockAndReadNewestAsync(
        NpgsqlConnection connection, string book, CancellationToken cancellation)
    {
        await using var batch = new NpgsqlBatch(connection)
        {
            BatchCommands =
            {
                Transact.Command(PriceHistory.LockExclusive),
                Transact.Command(
                    """
                    select distinct on (kind, item) kind, item, per_gpu_hour_nanos, input_per_million_nanos, output_per_million_nanos,
                    cached_per_million_nanos, effective_at
                    from price_version where book = $1 order by kind, item, effective_at desc, id desc
                    """, Transact.Value(book)),
                Transact.Command("select clock_timestamp()"),
            },
        };
        if (epoch is not null) batch.BatchCommands.Insert(1, epoch.Check());
        await using var reader = await batch.ExecuteReaderAsync(cancellation);
        for (var i = 2; i < batch.BatchCommands.Count; i++) await reader.NextResultAsync(cancellation);
        var newest = new Dictionary<(string, string), (Item, DateTimeOffset)>();
        while (await reader.ReadAsync(cancellation))
        {
            long? Nanos(int ordinal) => reader.IsDBNull(ordinal) ? null : reader.GetInt64(ordinal);
            var item = new Item(reader.GetString(0), reader.GetString(1), Nanos(2), Nanos(3), Nanos(4), Nanos(5));
            newest[(item.Kind, item.Name)] = (item, reader.GetFieldValue<DateTimeOffset>(6));
        }

        await reader.NextResultAsync(cancellation);
        await reader.ReadAsync(cancellation);
        return (newest, reader.GetFieldValue<DateTimeOffset>(0));
    }

    private static async Task<PriceVersionId> InsertAsync(
        NpgsqlConnection connection, string book, Item item, DateTimeOffset effectiveAt, CancellationToken cancellation)
    {
        await using var command = new NpgsqlCommand(
            """
            insert into price_version (
                book, kind, item, withdrawn, per_gpu_hour_nanos, input_per_million_nanos, output_per_million_nanos,
                cached_per_million_nanos, effective_at)
            values ($1, $2, $3, $4, $5, $6, $7, $8, $9) returning id
            """, connection)
        {
            Parameters =
            {
                Transact.Value(book), Transact.Value(item.Kind), Transact.Value(item.Name), Transact.Value(item.IsWithdrawn),
                Transact.Value(item.PerGpuHour, NpgsqlDbType.Bigint), Transact.Value(item.Input, NpgsqlDbType.Bigint),
                Transact.Value(item.Output, NpgsqlDbType.Bigint), Transact.Value(item.Cached, NpgsqlDbType.Bigint),
                Transact.Value(effectiveAt),
            },
        };
        return new((long)(await command.ExecuteScalarAsync(cancellation))!);
    }

    /// <summary>Every running interval of the product goes over to the new price, account by account, each under its lock.</summary>
    /// <returns>The accounts whose runs did.</returns>
    private async Task<IReadOnlyList<AccountId>> RepriceAsync(
        NpgsqlConnection connection, GpuProduct product, PriceVersionId version, Money perGpuHour, DateTimeOffset change,
        CancellationToken cancellation)
    {
        var accounts = new List<AccountId>();
        await using (var command = new NpgsqlCommand(
            "select distinct account from run_interval where product = $1 and ended_at is null and charge_until is null order by 1",
            connection)
        { Parameters = { new() { Value = product.Name } } })
        await using (var reader = await command.ExecuteReaderAsync(cancellation))
        {
            while (await reader.ReadAsync(cancellation)) accounts.Add(new(reader.GetString(0)));
        }

        string[] all = ["expense:uncollected", "revenue:gpu", .. accounts.Select(Movements.Customer)];
        foreach (var account in accounts)
        {
            if (await LockedAccount.LockAsync(connection, epoch, account, [], cancellation, all) is not { } locked) continue;
            if (locked.ExhaustsAt is { } exhausted && exhausted < change)
            {
                // The balance ran out at the old price, and nobody has seen it yet: the new price has nothing left to apply to.
                locked.SuspendExhausted(exhausted, change, new CreditPolicy());
            }

            foreach (var run in locked.Accruing.Where(run => run.Product == product).ToList()) locked.Reprice(
                run, version, perGpuHour, change);
            await locked.WriteAsync(cancellation);
        }

        return accounts;
    }

    /// <summary>Prices what was used of a model while it had no price.</summary>
    /// <returns>Whose usage that was.</returns>
    private static async Task<List<AccountId>> PriceUsageAsync(
        NpgsqlConnection connection, string model, PriceVersionId version, DateTimeOffset now, CancellationToken cancellation)
    {
        await using var command = new NpgsqlCommand(
            "select l.account from price_unpriced_usage($1, $2, $3) u join ledger_account l on l.id = u.customer", connection)
        {
            Parameters = { Transact.Value(now.ToLedgerTime()), Transact.Value(model), Transact.Value(version.Value) },
        };
        await using var reader = await command.ExecuteReaderAsync(cancellation);
        var accounts = new List<AccountId>();
        while (await reader.ReadAsync(cancellation)) accounts.Add(new(reader.GetString(0)));
        return accounts;
    }

    /// <summary>What a book says of a product or model; all null: withdrawn.</summary>
    private readonly record struct Item(string Kind, string Name, long? PerGpuHour, long? Input, long? Output, long? Cached)
    {
        public bool IsWithdrawn => PerGpuHour is null && Input is null;
    }
}
