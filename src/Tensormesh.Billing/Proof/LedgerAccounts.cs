using System.Globalization;
using Npgsql;
using NpgsqlTypes;

namespace Tensormesh.Billing;

/// <summary>Ledger accounts by id: there are as many as customers, not as many as transactions.</summary>
internal sealed class LedgerAccounts
{
    public sealed record Row(string Name, string Currency, bool IsCustomer);

    private readonly Dictionary<long, Row> rows = [];

    public IReadOnlyDictionary<long, Row> Rows => rows;

    /// <summary>A name for what is not there as well: the hash then fits nothing that was ever sealed.</summary>
    public string Name(long id) => rows.TryGetValue(id, out var row) ? row.Name : $"?{id.ToString(CultureInfo.InvariantCulture)}";

    /// <param name="ids">Null: all.</param>
    public static async Task<LedgerAccounts> ReadAsync(NpgsqlConnection connection, long[]? ids, CancellationToken cancellation)
    {
        await using var command = new NpgsqlCommand(
            "select id, name, currency, account is not null from ledger_account where $1 is null or id = any ($1)", connection)
        {
            Parameters = { Transact.Value(ids, NpgsqlDbType.Array | NpgsqlDbType.Bigint) },
        };
        await using var reader = await command.ExecuteReaderAsync(cancellation);
        var accounts = new LedgerAccounts();
        while (await reader.ReadAsync(cancellation)) accounts.rows[reader.GetInt64(0)] = new(reader.GetString(1), reader.GetString(2), reader.GetBoolean(3));
        return accounts;
    }
}
