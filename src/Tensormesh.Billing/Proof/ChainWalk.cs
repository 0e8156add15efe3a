using System.Globalization;
using Npgsql;

namespace Tensormesh.Billing;

/// <summary>
/// Goes through the ledger from its first transaction, seal by seal, and remembers where it is and what every account comes to up to there:
/// as much memory as there are accounts. Sealed rows do not change, so it can go on in another snapshot.
/// </summary>
internal sealed class ChainWalk
{
    private readonly Dictionary<long, Int128> sums = [];
    /// <summary>What accounts come to in transactions that are not sealed yet, as they were seen last.</summary>
    private readonly Dictionary<long, Int128> tail = [];
    private byte[] hash = LedgerSeals.Genesis;

    /// <summary>Of the last seal that was walked.</summary>
    public long Position { get; private set; }
    public long Seals { get; private set; }
    public long Sealed { get; private set; }
    public long Unsealed { get; private set; }

    /// <summary>Walks the next seals: that they continue the chain, and cover what is there and nothing else.</summary>
    /// <returns>The first difference; <c>AtEnd</c> when there are no more seals.</returns>
    public async Task<(LedgerDifference? Difference, bool AtEnd)> SealsAsync(
        NpgsqlConnection connection, LedgerAccounts accounts, int limit, CancellationToken cancellation)
    {
        var seals = await Seal.ReadAfterAsync(connection, Position, limit, cancellation);
        if (seals.Count == 0) return (null, true);
        await using var command = new NpgsqlCommand(
            $"select {TransactionRow.Columns} from ledger_transaction where position > $1 and position <= $2 order by position", connection)
        {
            Parameters = { Transact.Value(Position), Transact.Value(seals[^1].ToPosition) },
        };
        await using var reader = await command.ExecuteReaderAsync(cancellation);
        foreach (var seal in seals)
        {
            if (Continues(seal) is { } broken) return (broken, false);
            var (last, rows) = (hash, new List<TransactionRow>());
            for (var i = 0; i < seal.Positions.Length; i++)
            {
                var row = await reader.ReadAsync(cancellation) ? TransactionRow.Read(reader) : null;
                if (row is null || row.Position > seal.Positions[i])
                {
                    return (new($"transaction at position {seal.Positions[i]}", $"the one that was sealed, {Hex(seal.HashAt(i))}", "none: it was deleted"), false);
                }

                if (row.Position < seal.Positions[i]) return (new(Name(row), "no transaction at this position when it was sealed", "one that was inserted later"), false);
                if (Unsound(row, accounts) is { } unsound) return (unsound, false);
                var found = row.Hash(last, accounts.Name);
                if (!seal.HashAt(i).SequenceEqual(found)) return (new(Name(row), $"what was sealed, {Hex(seal.HashAt(i))}", $"other content, {Hex(found)}"), false);
                rows.Add(row);
                last = found;
            }

            // A seal is walked whole or not at all: whoever is interrupted goes on from the one before.
            foreach (var row in rows) Add(sums, row);
            hash = last;
            Position = seal.ToPosition;
            Seals++;
            Sealed += seal.Positions.Length;
        }

        return await reader.ReadAsync(cancellation)
            ? (new(Name(TransactionRow.Read(reader)), "no transaction at this position when it was sealed", "one that was inserted later"), false)
            : (null, false);
    }

    /// <summary>What came after the last seal, and then every balance: of the same snapshot as the last seals.</summary>
    public async Task<LedgerDifference?> RestAsync(NpgsqlConnection connection, LedgerAccounts accounts, CancellationToken cancellation)
    {
        tail.Clear();
        Unsealed = 0;
        await using (var command = new NpgsqlCommand(
            $"select {TransactionRow.Columns} from ledger_transaction where position > $1 order by position", connection)
        { Parameters = { Transact.Value(Position) } })
        await using (var reader = await command.ExecuteReaderAsync(cancellation))
        {
            while (await reader.ReadAsync(cancellation))
            {
                var row = TransactionRow.Read(reader);
                if (Unsound(row, accounts) is { } unsound) return unsound;
                Add(tail, row);
                Unsealed++;
            }
        }

        return await BalancesAsync(connection, accounts, cancellation);
    }

    private async Task<LedgerDifference?> BalancesAsync(NpgsqlConnection connection, LedgerAccounts accounts, CancellationToken cancellation)
    {
        var kept = new HashSet<long>();
        await using (var command = new NpgsqlCommand("select ledger_account, amount_nanos from ledger_balance order by ledger_account", connection))
        await using (var reader = await command.ExecuteReaderAsync(cancellation))
        {
            while (await reader.ReadAsync(cancellation))
            {
                var (account, projected) = (reader.GetInt64(0), reader.GetInt64(1));
                kept.Add(account);
                if (Sum(account) != projected) return Balance(account, Nanos(projected));
            }
        }

        // A customer's balance row is made before its first entry.
        var without = accounts.Rows.Where(one => one.Value.IsCustomer && !kept.Contains(one.Key) && Sum(one.Key) != 0).Select(one => one.Key).Order().ToList();
        return without.Count > 0 ? Balance(without[0], "no row") : null;

        LedgerDifference Balance(long account, string found)
            => new($"balance of {accounts.Name(account)} in ledger_balance", $"{Nanos(Sum(account))} by its entries", found);
    }

    private Int128 Sum(long account) => sums.GetValueOrDefault(account) + tail.GetValueOrDefault(account);

    private LedgerDifference? Continues(Seal seal)
    {
        var what = $"seal of positions {seal.FromPosition} to {seal.ToPosition}";
        if (seal.FromPosition != Position + 1) return new(what, $"one that begins at position {Position + 1}", "a gap in the chain");
        if (!seal.PreviousHash.AsSpan().SequenceEqual(hash)) return new(what, $"one that continues {Hex(hash)}", $"one that continues {Hex(seal.PreviousHash)}");
        if (seal.Hashes.Length != seal.Positions.Length * Seal.HashLength || seal.Positions.Length == 0) return new(what, "a hash for each transaction", $"{seal.Hashes.Length} bytes for {seal.Positions.Length}");
        if (seal.Stated is { } stated && !stated.AsSpan().SequenceEqual(seal.Hash)) return new(what, $"the hash {Hex(seal.Hash)}", Hex(stated));
        return seal.Positions[^1] == seal.ToPosition ? null : new(what, $"a transaction at position {seal.ToPosition}", $"the last at {seal.Positions[^1]}");
    }

    private static LedgerDifference? Unsound(TransactionRow row, LedgerAccounts accounts)
    {
        if (row.Accounts.Length < 2 || row.Accounts.Length != row.Amounts.Length)
        {
            return new(Name(row), "two entries or more, an amount for each", $"{row.Accounts.Length} accounts and {row.Amounts.Length} amounts");
        }

        if (row.Amounts.Aggregate(Int128.Zero, (sum, amount) => sum + amount) is var total && total != 0) return new($"sum of {Name(row)}", Nanos(0), Nanos(total));
        foreach (var account in row.Accounts)
        {
            if (!accounts.Rows.TryGetValue(account, out var known)) return new(Name(row), "accounts that the ledger has", accounts.Name(account));
            if (known.Currency != row.Currency) return new(Name(row), $"an entry of {known.Name} in {known.Currency}", row.Currency);
        }

        long[] customers = [.. row.Accounts.Where(account => accounts.Rows[account].IsCustomer).Distinct()];
        return customers.Length <= 1 && row.Customer == (customers.Length == 1 ? customers[0] : null) ? null : new(
            $"customer of {Name(row)}", customers.Length == 0 ? "none" : string.Join(", ", customers.Select(accounts.Name)),
            row.Customer is { } stated ? accounts.Name(stated) : "none");
    }

    private static void Add(Dictionary<long, Int128> to, TransactionRow row)
    {
        for (var i = 0; i < row.Accounts.Length; i++) to[row.Accounts[i]] = to.GetValueOrDefault(row.Accounts[i]) + row.Amounts[i];
    }

    private static string Name(TransactionRow row) => $"transaction {row.Id} at position {row.Position}";

    private static string Nanos(Int128 nanos) => $"{nanos.ToString(CultureInfo.InvariantCulture)} nanos";

    private static string Hex(ReadOnlySpan<byte> bytes) => Convert.ToHexStringLower(bytes);
}
