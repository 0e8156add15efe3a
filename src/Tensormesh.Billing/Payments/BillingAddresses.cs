using System.Text.Json.Nodes;
using Npgsql;

namespace Tensormesh.Billing;

/// <summary>The address on an account's statements. What is not needed is empty.</summary>
/// <param name="Name">Of the company or person.</param>
/// <param name="Region">State, province or county.</param>
/// <param name="Country">ISO 3166-1 alpha-2: <c>DE</c>.</param>
/// <param name="TaxId">As it is to be printed: <c>DE123456789</c>.</param>
public sealed record BillingAddress(string Name, string Line1, string Line2, string City, string Region, string PostalCode, string Country, string TaxId)
{
    private const int Longest = 200;

    /// <summary>What is wrong, and in which field (as the API names them); null when nothing is.</summary>
    public (string Field, string Message)? Refuse()
    {
        (string Field, string Words, string Text, int Most, bool Needed)[] fields =
        [
            ("name", "The name", Name, Longest, true), ("line1", "The first line", Line1, Longest, true), ("line2", "The second line", Line2, Longest, false),
            ("city", "The city", City, Longest, true), ("region", "The region", Region, Longest, false), ("postalCode", "The postal code", PostalCode, 20, false),
            ("taxId", "The tax id", TaxId, 40, false),
        ];
        foreach (var (field, words, text, most, needed) in fields)
        {
            if (needed && string.IsNullOrWhiteSpace(text)) return (field, $"{words} is missing.");
            if (text.Length > most || text.Any(char.IsControl)) return (field, $"{words} is one line of at most {most} characters.");
        }

        return Country is [>= 'A' and <= 'Z', >= 'A' and <= 'Z'] ? null : ("country", "The country is a code of two capital letters, such as DE or US.");
    }
}

/// <summary>Addresses for statements.</summary>
public sealed class BillingAddresses(NpgsqlDataSource dataSource)
{
    private readonly NpgsqlDataSource dataSource = dataSource;

    /// <summary>Null where none was given.</summary>
    public Task<BillingAddress?> ReadAsync(AccountId account, CancellationToken cancellation) => Transact.UseAsync<BillingAddress?>(dataSource, async connection =>
    {
        await using var read = new NpgsqlCommand(
            "select name, line1, line2, city, region, postal_code, country, tax_id from billing_address where account = $1", connection)
        {
            Parameters = { Transact.Value(account.Value) },
        };
        await using var reader = await read.ExecuteReaderAsync(cancellation);
        return await reader.ReadAsync(cancellation)
            ? new BillingAddress(
                reader.GetString(0), reader.GetString(1), reader.GetString(2), reader.GetString(3), reader.GetString(4), reader.GetString(5), reader.GetString(6),
                reader.GetString(7))
            : null;
    }, cancellation);

    /// <param name="address">One that <see cref="BillingAddress.Refuse"/> finds nothing wrong with.</param>
    /// <param name="by">Who asked for it, which is noted with it.</param>
    /// <returns>False when there is no such account.</returns>
    public Task<bool> SaveAsync(AccountId account, BillingAddress address, CancellationToken cancellation, Actor? by = null)
    {
        if (address.Refuse() is var (field, message)) throw new ArgumentException($"{field}: {message}", nameof(address));
        return Transact.RunAsync(dataSource, async connection =>
        {
            await using var save = new NpgsqlCommand(
                """
                insert into billing_address (account, name, line1, line2, city, region, postal_code, country, tax_id)
                select id, $2, $3, $4, $5, $6, $7, $8, $9 from account where id = $1
                on conflict (account) do update set name = $2, line1 = $3, line2 = $4, city = $5, region = $6, postal_code = $7, country = $8, tax_id = $9,
                  changed_at = clock_timestamp()
                """, connection)
            {
                Parameters =
                {
                    Transact.Value(account.Value), Transact.Value(address.Name), Transact.Value(address.Line1), Transact.Value(address.Line2),
                    Transact.Value(address.City), Transact.Value(address.Region), Transact.Value(address.PostalCode), Transact.Value(address.Country),
                    Transact.Value(address.TaxId),
                },
            };
            if (await save.ExecuteNonQueryAsync(cancellation) != 1) return false;
            // That it changed is noted, not what: an audit log is kept longer than an address may be.
            await AuditLog.NoteAsync(connection, by, AuditAction.BillingAddressSaved, account, null, new JsonObject { ["country"] = address.Country }, cancellation);
            return true;
        }, cancellation);
    }
}
