using System.Security.Cryptography;
using System.Text;
using Npgsql;

namespace Tensormesh.Billing;

/// <summary>
/// Brings a database to this version: numbered migrations, forward only, one transaction each, then the functions and views, which
/// are installed again whenever their text changes. Safe to run from several processes at once, and each time a process starts.
/// </summary>
public static class Migrator
{
    /// <summary>The lock is held by the transaction, not the session, so that a pooler in transaction mode may stand in between.</summary>
    private const string Lock = "select pg_advisory_xact_lock(hashtext('tensormesh.migrate'), hashtext(current_schema()))";

    private static readonly string[] Repeatable = ["Sql/post_transaction.sql", "Sql/check_operator_epoch.sql", "Sql/spending_functions.sql", "Sql/usage_functions.sql", "Sql/views.sql"];

    /// <exception cref="InvalidOperationException">A migration that was applied has another text now, or the database is newer than this
    /// program.</exception>
    public static async Task MigrateAsync(NpgsqlDataSource dataSource, CancellationToken cancellation)
    {
        await Transact.RunAsync(dataSource, async connection =>
        {
            await ExecuteAsync(connection, Lock, cancellation);
            await ExecuteAsync(connection, """
                create table if not exists schema_migration (
                  name text primary key, checksum text not null, applied_at timestamptz not null default clock_timestamp())
                """, cancellation);
            return true;
        }, cancellation);

        foreach (var name in SqlText.Migrations) await ApplyAsync(dataSource, name, repeatable: false, cancellation);
        foreach (var name in Repeatable) await ApplyAsync(dataSource, name, repeatable: true, cancellation);
        await RefuseNewerAsync(dataSource, cancellation);
    }

    private static Task<bool> ApplyAsync(NpgsqlDataSource dataSource, string name, bool repeatable, CancellationToken cancellation)
    {
        var text = SqlText.Read(name);
        var checksum = Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(text.ReplaceLineEndings("\n"))));
        return Transact.RunAsync(dataSource, async connection =>
        {
            await ExecuteAsync(connection, Lock, cancellation);
            await using var find = new NpgsqlCommand(
                "select checksum from schema_migration where name = $1", connection)
            { Parameters = { new() { Value = name } } };
            var applied = (string?)await find.ExecuteScalarAsync(cancellation);
            if (applied == checksum) return false;
            if (applied is not null && !repeatable)
            {
                throw new InvalidOperationException(
                    $"{name} was applied to this database with another text: write a new migration instead of editing an old one");
            }

            await ExecuteAsync(connection, text, cancellation);
            await using var record = new NpgsqlCommand(
                "insert into schema_migration (name, checksum) values ($1, $2) on conflict (name) do update set checksum = $2, "
                    + "applied_at = clock_timestamp()", connection)
            {
                Parameters = { new() { Value = name }, new() { Value = checksum } },
            };
            await record.ExecuteNonQueryAsync(cancellation);
            return true;
        }, cancellation);
    }

    private static async Task RefuseNewerAsync(NpgsqlDataSource dataSource, CancellationToken cancellation)
    {
        var unknown = (await AppliedAsync(dataSource, cancellation))
            .Where(name => name.StartsWith("Migrations/", StringComparison.Ordinal)).Except(SqlText.Migrations).Min(StringComparer.Ordinal);
        if (unknown is not null) throw new InvalidOperationException($"this database is newer than this program: it has {unknown}");
    }

    /// <summary>The first migration of this program that the database has not seen; null: it has seen them all.</summary>
    public static async Task<string?> MissingAsync(NpgsqlDataSource dataSource, CancellationToken cancellation)
    {
        var applied = await AppliedAsync(dataSource, cancellation);
        return SqlText.Migrations.FirstOrDefault(name => !applied.Contains(name));
    }

    /// <summary>The names of what was applied; none in a database that no migration has ever touched.</summary>
    public static async Task<IReadOnlySet<string>> AppliedAsync(NpgsqlDataSource dataSource, CancellationToken cancellation)
    {
        try
        {
            return await Transact.UseAsync(dataSource, async connection =>
            {
                var applied = new HashSet<string>(StringComparer.Ordinal);
                await using var command = new NpgsqlCommand("select name from schema_migration", connection);
                await using var reader = await command.ExecuteReaderAsync(cancellation);
                while (await reader.ReadAsync(cancellation)) applied.Add(reader.GetString(0));
                return applied;
            }, cancellation);
        }
        catch (PostgresException error) when (error.SqlState == PostgresErrorCodes.UndefinedTable)
        {
            return new HashSet<string>();
        }
    }

    private static async Task ExecuteAsync(NpgsqlConnection connection, string sql, CancellationToken cancellation)
    {
        await using var command = new NpgsqlCommand(sql, connection);
        await command.ExecuteNonQueryAsync(cancellation);
    }
}
