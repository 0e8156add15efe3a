using Npgsql;

namespace Tensormesh.Billing;

/// <summary>A row of ledger_seal.</summary>
/// <param name="FromPosition">The first position that it covers, whether or not there is a transaction.</param>
/// <param name="Hashes">Of each transaction, 32 bytes each.</param>
/// <param name="PreviousHash">Of the last transaction of the seal before.</param>
internal sealed record Seal(long FromPosition, long ToPosition, long[] Positions, byte[] Hashes, byte[] PreviousHash)
{
    public const int HashLength = 32;

    private const string Columns = "from_position, to_position, positions, hashes, previous_hash, hash";

    /// <summary>Where the chain begins.</summary>
    public static readonly Seal BeforeAll = new(0, 0, [], LedgerSeals.Genesis, LedgerSeals.Genesis);

    public byte[] Hash => Hashes[^HashLength..];

    /// <summary>What the row says that its last hash is.</summary>
    public byte[]? Stated { get; init; }

    public ReadOnlySpan<byte> HashAt(int index) => Hashes.AsSpan(index * HashLength, HashLength);

    public static async Task<Seal?> ReadLastAsync(NpgsqlConnection connection, CancellationToken cancellation)
        => (await ReadAsync(connection, $"select {Columns} from ledger_seal order by to_position desc limit 1", cancellation)).SingleOrDefault();

    /// <summary>Seals after a position, in order.</summary>
    public static Task<List<Seal>> ReadAfterAsync(NpgsqlConnection connection, long position, int limit, CancellationToken cancellation)
        => ReadAsync(
            connection, $"select {Columns} from ledger_seal where to_position > $1 order by to_position limit $2", cancellation, Transact.Value(position),
            Transact.Value(limit));

    private static async Task<List<Seal>> ReadAsync(NpgsqlConnection connection, string sql, CancellationToken cancellation, params NpgsqlParameter[] parameters)
    {
        await using var command = new NpgsqlCommand(sql, connection);
        command.Parameters.AddRange(parameters);
        await using var reader = await command.ExecuteReaderAsync(cancellation);
        var seals = new List<Seal>();
        while (await reader.ReadAsync(cancellation))
        {
            seals.Add(new(
                reader.GetInt64(0), reader.GetInt64(1), reader.GetFieldValue<long[]>(2), reader.GetFieldValue<byte[]>(3), reader.GetFieldValue<byte[]>(4))
            { Stated = reader.GetFieldValue<byte[]>(5) });
        }

        return seals;
    }

    public async Task InsertAsync(NpgsqlConnection connection, CancellationToken cancellation)
    {
        await using var command = new NpgsqlCommand(
            "insert into ledger_seal (from_position, to_position, positions, hashes, hash, previous_hash) values ($1, $2, $3, $4, $5, $6)", connection)
        {
            Parameters =
            {
                Transact.Value(FromPosition), Transact.Value(ToPosition), Transact.Value(Positions), Transact.Value(Hashes), Transact.Value(Hash),
                Transact.Value(PreviousHash),
            },
        };
        await command.ExecuteNonQueryAsync(cancellation);
    }
}
