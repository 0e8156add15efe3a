using System.Buffers.Binary;
using System.Security.Cryptography;
using System.Text;
using Npgsql;

namespace Tensormesh.Billing;

/// <summary>A row of ledger_transaction, in full.</summary>
internal sealed record TransactionRow(
    long Position, string Id, string Type, string Key, DateTimeOffset EffectiveAt, DateTimeOffset CreatedAt, string Description, string Details,
    string Currency, long[] Accounts, long[] Amounts, long? Customer, long? Corrects)
{
    /// <summary>The columns, in the order in which <see cref="Read"/> takes them.</summary>
    public const string Columns =
        "position, id, type, idempotency_key, effective_at, created_at, description, details::text, currency, accounts, amounts, customer, corrects";

    public static TransactionRow Read(NpgsqlDataReader row) => new(
        row.GetInt64(0), row.GetString(1), row.GetString(2), row.GetString(3), row.GetFieldValue<DateTimeOffset>(4), row.GetFieldValue<DateTimeOffset>(5),
        row.GetString(6), row.GetString(7), row.GetString(8), row.GetFieldValue<long[]>(9), row.GetFieldValue<long[]>(10),
        row.IsDBNull(11) ? null : row.GetInt64(11), row.IsDBNull(12) ? null : row.GetInt64(12));

    /// <summary>
    /// The transaction's hash: SHA-256 of the hash before it and of everything in the row, each part with its length in front, so that
    /// nothing can move from one part to the next. Accounts count by name. What it is computed from never changes: seals of years would no
    /// longer fit.
    /// </summary>
    public byte[] Hash(ReadOnlySpan<byte> previous, Func<long, string> accountName)
    {
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        hash.AppendData(previous);
        Number(hash, Position);
        Text(hash, Id);
        Text(hash, Type);
        Text(hash, Key);
        Number(hash, EffectiveAt.ToMicroseconds());
        Number(hash, CreatedAt.ToMicroseconds());
        Text(hash, Description);
        Text(hash, Details);
        Text(hash, Currency);
        Number(hash, Accounts.Length);
        foreach (var account in Accounts) Text(hash, accountName(account));
        Number(hash, Amounts.Length);
        foreach (var amount in Amounts) Number(hash, amount);
        Text(hash, Customer is { } customer ? accountName(customer) : "");
        Number(hash, Corrects ?? 0);
        return hash.GetHashAndReset();
    }

    private static void Number(IncrementalHash hash, long value)
    {
        Span<byte> bytes = stackalloc byte[sizeof(long)];
        BinaryPrimitives.WriteInt64BigEndian(bytes, value);
        hash.AppendData(bytes);
    }

    private static void Text(IncrementalHash hash, string value)
    {
        var bytes = Encoding.UTF8.GetBytes(value);
        Number(hash, bytes.Length);
        hash.AppendData(bytes);
    }
}
