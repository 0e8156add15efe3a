using Npgsql;

namespace Tensormesh.Billing;

/// <summary>The keys that seal sign-in cookies, kept where every server finds them. Each is an XML element that says when it begins and ends.</summary>
public sealed class SessionKeys(NpgsqlDataSource dataSource)
{
    private readonly NpgsqlDataSource dataSource = dataSource;

    /// <summary>In the order in which they were made.</summary>
    public Task<IReadOnlyList<string>> ListAsync(CancellationToken cancellation) => Transact.UseAsync<IReadOnlyList<string>>(dataSource, async connection =>
    {
        await using var list = new NpgsqlCommand("select element from session_key order by created_at, name", connection);
        await using var reader = await list.ExecuteReaderAsync(cancellation);
        var keys = new List<string>();
        while (await reader.ReadAsync(cancellation)) keys.Add(reader.GetString(0));
        return keys;
    }, cancellation);

    /// <summary>Idempotent by name: the first stays.</summary>
    public Task AddAsync(string name, string element, CancellationToken cancellation) => Transact.UseAsync(dataSource, async connection =>
    {
        await using var add = new NpgsqlCommand("insert into session_key (name, element) values ($1, $2) on conflict do nothing", connection)
        {
            Parameters = { Transact.Value(name), Transact.Value(element) },
        };
        return await add.ExecuteNonQueryAsync(cancellation);
    }, cancellation);
}
