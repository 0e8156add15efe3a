using System.Text.Json.Nodes;
using Npgsql;
using NpgsqlTypes;

namespace Tensormesh.Billing;

/// <summary>Who acts, and in which request.</summary>
/// <param name="Subject">A person, as the identity provider names them, or an API key.</param>
/// <param name="Role"><c>USER</c>, <c>ADMIN</c> or <c>SUPER_ADMIN</c>.</param>
/// <param name="ApiKeyId">Null: with a token.</param>
/// <param name="TraceId">The trace of the request; null outside of one.</param>
public sealed record Actor(string Subject, string Role, string? ApiKeyId, string? TraceId);

/// <summary>What is audited: every write that a person or a key asks for. What the system does by itself is in the ledger.</summary>
public enum AuditAction
{
    BalanceAdded,
    BalanceAdjusted,
    TransactionReversed,
    TopUpAsked,
    CardAttached,
    CardDetached,
    CardMadeDefault,
    AutoTopUpSaved,
    AutoTopUpRemoved,
    BillingAddressSaved,
    ApiKeyCreated,
    ApiKeyDeleted,
}

/// <param name="Position">Later events have higher ones.</param>
/// <param name="Account">Whose money, cards or keys it was about.</param>
/// <param name="Details">JSON, by action.</param>
public sealed record AuditEvent(
    long Position, DateTimeOffset CreatedAt, Actor By, AuditAction Action, AccountId Account, string? Resource, string Details);

/// <summary>Which events: null leaves it open.</summary>
public sealed record AuditFilter(AccountId? Account = null, string? Actor = null, AuditAction? Action = null);

/// <summary>
/// Who did what. An event is written in the SQL transaction of what it tells of, and never changed: Postgres refuses that, whoever asks.
/// </summary>
public sealed class AuditLog(NpgsqlDataSource dataSource)
{
    private readonly NpgsqlDataSource dataSource = dataSource;

    /// <summary>Newest first.</summary>
    /// <param name="before">Only events before this position; null: from the newest.</param>
    public Task<IReadOnlyList<AuditEvent>> ListAsync(AuditFilter filter, long? before, int limit, CancellationToken cancellation)
        => Transact.UseAsync<IReadOnlyList<AuditEvent>>(dataSource, async connection =>
        {
            await using var list = new NpgsqlCommand(SqlText.ListAuditEvents, connection)
            {
                Parameters =
                {
                    Transact.Value(before, NpgsqlDbType.Bigint), Transact.Value(limit), Transact.Value(filter.Account?.Value, NpgsqlDbType.Text),
                    Transact.Value(filter.Actor, NpgsqlDbType.Text), Transact.Value(filter.Action?.ToString(), NpgsqlDbType.Text),
                },
            };
            await using var reader = await list.ExecuteReaderAsync(cancellation);
            var events = new List<AuditEvent>();
            while (await reader.ReadAsync(cancellation))
            {
                string? Text(int column) => reader.IsDBNull(column) ? null : reader.GetString(column);
                events.Add(new(
                    reader.GetInt64(0), reader.GetFieldValue<DateTimeOffset>(1), new(reader.GetString(2), reader.GetString(3), Text(4), Text(5)),
                    Enum.Parse<AuditAction>(reader.GetString(6)), new(reader.GetString(7)), Text(8), reader.GetString(9)));
            }

            return events;
        }, cancellation);

    /// <summary>Written by the SQL transaction that it is part of.</summary>
    internal static NpgsqlBatchCommand Note(Actor by, AuditAction action, AccountId account, string? resource, JsonObject details) => Transact.Command(
        "insert into audit_event (actor, role, api_key, trace_id, action, account, resource, details) values ($1, $2, $3, $4, $5, $6, $7, $8)",
        Transact.Value(by.Subject), Transact.Value(by.Role), Transact.Value(by.ApiKeyId, NpgsqlDbType.Text), Transact.Value(by.TraceId, NpgsqlDbType.Text),
        Transact.Value(action.ToString()), Transact.Value(account.Value), Transact.Value(resource, NpgsqlDbType.Text),
        Transact.Value(details.ToJsonString(), NpgsqlDbType.Jsonb));

    /// <inheritdoc cref="Note"/>
    /// <param name="by">Null: nobody asked for it, and nothing is noted.</param>
    internal static async Task NoteAsync(
        NpgsqlConnection connection, Actor? by, AuditAction action, AccountId account, string? resource, JsonObject details,
        CancellationToken cancellation)
    {
        if (by is null) return;
        await using var batch = new NpgsqlBatch(connection) { BatchCommands = { Note(by, action, account, resource, details) } };
        await batch.ExecuteNonQueryAsync(cancellation);
    }
}
