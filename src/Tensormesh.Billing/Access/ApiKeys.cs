using System.Buffers.Text;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json.Nodes;
using Npgsql;
using NpgsqlTypes;

namespace Tensormesh.Billing;

/// <summary>What a key may do, besides saying whose it is.</summary>
public enum ApiKeyScope
{
    /// <summary><c>billing:read</c>: read its account's billing.</summary>
    BillingRead,
    /// <summary><c>billing:write</c>: the same, and change it: cards, top-ups.</summary>
    BillingWrite,
    /// <summary><c>usage:write</c>: report usage of any account, as inference servers do. Platform operators alone give it.</summary>
    UsageWrite,
}

public static class ApiKeyScopes
{
    private static readonly (ApiKeyScope Scope, string Name)[] Names =
        [(ApiKeyScope.BillingRead, "billing:read"), (ApiKeyScope.BillingWrite, "billing:write"), (ApiKeyScope.UsageWrite, "usage:write")];

    public static IEnumerable<string> All => Names.Select(each => each.Name);

    public static string ToName(this ApiKeyScope scope) => Names.First(each => each.Scope == scope).Name;

    /// <summary>Null: there is no such scope.</summary>
    public static ApiKeyScope? Find(string? name) => Names.Where(each => each.Name == name).Select(each => (ApiKeyScope?)each.Scope).FirstOrDefault();
}

/// <summary>A key with which a machine acts for an account. Its secret is shown once and not kept.</summary>
/// <param name="ExpiresAt">Null: never.</param>
/// <param name="DeletedAt">Null: it is not deleted.</param>
public sealed record ApiKey(
    string Id, AccountId Account, string Name, IReadOnlyList<ApiKeyScope> Scopes, DateTimeOffset CreatedAt, DateTimeOffset? ExpiresAt,
    DateTimeOffset? DeletedAt);

/// <param name="RequestKey">The same is the same key.</param>
public sealed record ApiKeyRequest(AccountId Account, string Name, IReadOnlyList<ApiKeyScope> Scopes, DateTimeOffset? ExpiresAt, string RequestKey);

public abstract record ApiKeyResult
{
    private ApiKeyResult() { }
    /// <param name="Secret">The only time that it is seen.</param>
    public sealed record Created(ApiKey Key, string Secret) : ApiKeyResult;
    /// <summary>By the same request before.</summary>
    public sealed record AlreadyCreated(ApiKey Key) : ApiKeyResult;
    /// <summary>The request key was used for another account, name, scopes or expiry.</summary>
    public sealed record KeyReusedWithOtherContent : ApiKeyResult;
    public sealed record AccountMissing : ApiKeyResult;
    public sealed record TooMany : ApiKeyResult;
}

/// <summary>Keys for machines: 256 random bits each, of which only a hash is kept.</summary>
public sealed class ApiKeys(NpgsqlDataSource dataSource, TimeProvider time)
{
    /// <summary>What every key begins with, so that people and scanners know one when they see it.</summary>
    public const string Prefix = "ak-";

    /// <summary>Keys of one account that are not deleted.</summary>
    public const int MostLive = 100;

    public const int LongestName = 100;
    private const int SecretBytes = 32;
    private const int IdBytes = 12;
    private const string Columns = "id, account, name, scopes, created_at, expires_at, deleted_at";

    private readonly NpgsqlDataSource dataSource = dataSource;
    private readonly TimeProvider time = time;

    /// <param name="request">A name of at most <see cref="LongestName"/> characters, at least one scope, an expiry in the future or none.</param>
    public Task<ApiKeyResult> CreateAsync(ApiKeyRequest request, Actor by, CancellationToken cancellation)
    {
        var secret = Prefix + Base64Url.EncodeToString(RandomNumberGenerator.GetBytes(SecretBytes));
        var key = new ApiKey(
            $"key_{Convert.ToHexStringLower(RandomNumberGenerator.GetBytes(IdBytes))}", request.Account, request.Name,
            [.. request.Scopes.Distinct().Order()], time.GetUtcNow().ToLedgerTime(), request.ExpiresAt?.ToLedgerTime(), null);
        return Transact.RunAsync<ApiKeyResult>(dataSource, async connection =>
        {
            await using var account = new NpgsqlCommand(PaymentMethods.LockAccount, connection) { Parameters = { Transact.Value(request.Account.Value) } };
            if (await account.ExecuteScalarAsync(cancellation) is null) return new ApiKeyResult.AccountMissing();
            if (await FindAsync(connection, "request_key", Transact.Value(request.RequestKey), cancellation) is { } before)
            {
                return IsSame(before, key) ? new ApiKeyResult.AlreadyCreated(before) : new ApiKeyResult.KeyReusedWithOtherContent();
            }

            await using var count = new NpgsqlCommand("select count(*) from api_key where account = $1 and deleted_at is null", connection)
            {
                Parameters = { Transact.Value(request.Account.Value) },
            };
            if ((long)(await count.ExecuteScalarAsync(cancellation))! >= MostLive) return new ApiKeyResult.TooMany();
            await using var batch = new NpgsqlBatch(connection)
            {
                BatchCommands =
                {
                    Transact.Command(
                        "insert into api_key (id, account, name, scopes, hash, request_key, created_at, expires_at) values ($1, $2, $3, $4, $5, $6, $7, $8)",
                        Transact.Value(key.Id), Transact.Value(key.Account.Value), Transact.Value(key.Name),
                        Transact.Value(key.Scopes.Select(scope => scope.ToName()).ToArray()), Transact.Value(HashOf(secret)),
                        Transact.Value(request.RequestKey), Transact.Value(key.CreatedAt), Transact.Value(key.ExpiresAt, NpgsqlDbType.TimestampTz)),
                    AuditLog.Note(by, AuditAction.ApiKeyCreated, key.Account, key.Id, new JsonObject
                    {
                        ["name"] = key.Name,
                        ["scopes"] = new JsonArray([.. key.Scopes.Select(scope => JsonValue.Create(scope.ToName()))]),
                    }),
                },
            };
            try
            {
                await batch.ExecuteNonQueryAsync(cancellation);
            }
            catch (PostgresException taken) when (taken.SqlState == PostgresErrorCodes.UniqueViolation)
            {
                // By a request for another account, at the same time: this account's own wait for its lock.
                return new ApiKeyResult.KeyReusedWithOtherContent();
            }

            return new ApiKeyResult.Created(key, secret);
        }, cancellation);
    }

    /// <summary>Newest first.</summary>
    public Task<IReadOnlyList<ApiKey>> ListAsync(AccountId account, bool includeDeleted, CancellationToken cancellation)
        => Transact.UseAsync<IReadOnlyList<ApiKey>>(dataSource, async connection =>
        {
            await using var list = new NpgsqlCommand(
                $"select {Columns} from api_key where account = $1 and ($2 or deleted_at is null) order by created_at desc, id", connection)
            {
                Parameters = { Transact.Value(account.Value), Transact.Value(includeDeleted) },
            };
            await using var reader = await list.ExecuteReaderAsync(cancellation);
            var keys = new List<ApiKey>();
            while (await reader.ReadAsync(cancellation)) keys.Add(Read(reader));
            return keys;
        }, cancellation);

    /// <summary>From its commit on the key opens nothing. Idempotent.</summary>
    /// <returns>False when the account has no such key.</returns>
    public Task<bool> DeleteAsync(AccountId account, string id, Actor by, CancellationToken cancellation)
        => Transact.RunAsync(dataSource, async connection =>
        {
            await using var delete = new NpgsqlCommand(
                "update api_key set deleted_at = greatest($3, created_at) where account = $1 and id = $2 and deleted_at is null", connection)
            {
                Parameters = { Transact.Value(account.Value), Transact.Value(id), Transact.Value(time.GetUtcNow().ToLedgerTime()) },
            };
            if (await delete.ExecuteNonQueryAsync(cancellation) == 1)
            {
                await AuditLog.NoteAsync(connection, by, AuditAction.ApiKeyDeleted, account, id, [], cancellation);
                return true;
            }

            return await FindAsync(connection, "id", Transact.Value(id), cancellation) is { } known && known.Account == account;
        }, cancellation);

    /// <summary>Whose key this is, also where it is deleted or has expired. Null: nobody's.</summary>
    public Task<ApiKey?> FindAsync(string secret, CancellationToken cancellation)
        => IsWellFormed(secret)
            ? Transact.UseAsync(dataSource, connection => FindAsync(connection, "hash", Transact.Value(HashOf(secret)), cancellation), cancellation)
            : Task.FromResult<ApiKey?>(null);

    /// <summary>What cannot be a key is not looked for.</summary>
    private static bool IsWellFormed(string secret) => secret.StartsWith(Prefix, StringComparison.Ordinal)
        && secret.Length == Prefix.Length + Base64Url.GetEncodedLength(SecretBytes) && Base64Url.IsValid(secret.AsSpan(Prefix.Length));

    private static byte[] HashOf(string secret) => SHA256.HashData(Encoding.ASCII.GetBytes(secret));

    private static bool IsSame(ApiKey before, ApiKey asked) => before.Account == asked.Account && before.Name == asked.Name
        && before.ExpiresAt == asked.ExpiresAt && before.Scopes.SequenceEqual(asked.Scopes);

    private static async Task<ApiKey?> FindAsync(NpgsqlConnection connection, string column, NpgsqlParameter value, CancellationToken cancellation)
    {
        await using var find = new NpgsqlCommand($"select {Columns} from api_key where {column} = $1", connection) { Parameters = { value } };
        await using var reader = await find.ExecuteReaderAsync(cancellation);
        return await reader.ReadAsync(cancellation) ? Read(reader) : null;
    }

    private static ApiKey Read(NpgsqlDataReader reader) => new(
        reader.GetString(0), new(reader.GetString(1)), reader.GetString(2),
        [.. reader.GetFieldValue<string[]>(3).Select(name => ApiKeyScopes.Find(name) ?? throw new InvalidOperationException($"unknown scope {name}"))],
        reader.GetFieldValue<DateTimeOffset>(4), reader.IsDBNull(5) ? null : reader.GetFieldValue<DateTimeOffset>(5),
        reader.IsDBNull(6) ? null : reader.GetFieldValue<DateTimeOffset>(6));
}
