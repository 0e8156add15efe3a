using Npgsql;

namespace Tensormesh.Billing;

public abstract record RememberedRequest
{
    private RememberedRequest() { }
    /// <summary>Do it, and end or forget it.</summary>
    public sealed record Begun : RememberedRequest;
    /// <summary>It was done, with this answer.</summary>
    public sealed record Answered(string Answer) : RememberedRequest;
    /// <summary>The key was used for something else.</summary>
    public sealed record Other : RememberedRequest;
}

/// <summary>
/// Answers by idempotency key, for requests that change nothing when they are done again: what stopped half way, or runs twice at once, is simply done again.
/// </summary>
public sealed class RememberedRequests(NpgsqlDataSource dataSource, TimeProvider time)
{
    public static readonly TimeSpan Kept = TimeSpan.FromHours(24);

    private readonly NpgsqlDataSource dataSource = dataSource;
    private readonly TimeProvider time = time;

    /// <param name="fingerprint">32 bytes: the same for the same request.</param>
    public Task<RememberedRequest> BeginAsync(string caller, string key, byte[] fingerprint, CancellationToken cancellation)
        => Transact.RunAsync<RememberedRequest>(dataSource, async connection =>
        {
            var now = time.GetUtcNow().ToLedgerTime();
            await using var batch = new NpgsqlBatch(connection)
            {
                BatchCommands =
                {
                    Transact.Command("delete from remembered_request where begun_at < $1", Transact.Value(now - Kept)),
                    Transact.Command(
                        "insert into remembered_request (caller, key, fingerprint, begun_at) values ($1, $2, $3, $4) on conflict do nothing",
                        Transact.Value(caller), Transact.Value(key), Transact.Value(fingerprint), Transact.Value(now)),
                    Transact.Command(
                        "select fingerprint, answer from remembered_request where caller = $1 and key = $2", Transact.Value(caller), Transact.Value(key)),
                },
            };
            await using var reader = await batch.ExecuteReaderAsync(cancellation);
            // None: whoever began it has forgotten it meanwhile.
            if (!await reader.ReadAsync(cancellation)) return new RememberedRequest.Begun();
            if (!reader.GetFieldValue<byte[]>(0).AsSpan().SequenceEqual(fingerprint)) return new RememberedRequest.Other();
            return reader.IsDBNull(1) ? new RememberedRequest.Begun() : new RememberedRequest.Answered(reader.GetString(1));
        }, cancellation);

    public Task EndAsync(string caller, string key, string answer, CancellationToken cancellation) => ExecuteAsync(
        "update remembered_request set answer = $3 where caller = $1 and key = $2 and answer is null", cancellation, caller, key, answer);

    /// <summary>It was refused: the key is as if it had never been used.</summary>
    public Task ForgetAsync(string caller, string key, CancellationToken cancellation) => ExecuteAsync(
        "delete from remembered_request where caller = $1 and key = $2 and answer is null", cancellation, caller, key);

    private Task<int> ExecuteAsync(string sql, CancellationToken cancellation, params string[] parameters) => Transact.UseAsync(dataSource, async connection =>
    {
        await using var command = new NpgsqlCommand(sql, connection);
        foreach (var parameter in parameters) command.Parameters.Add(Transact.Value(parameter));
        return await command.ExecuteNonQueryAsync(cancellation);
    }, cancellation);
}
