using Npgsql;
using Tensormesh.Billing;

namespace Tensormesh.Soak;

/// <summary>What the database says, read as it stands.</summary>
internal sealed class Books(NpgsqlDataSource database)
{
    private static readonly string Runs = Resource("booked_runs.sql"), Contradictions = Resource("self_contradictions.sql");

    public Task<IReadOnlyList<string>> ContradictionsAsync(CancellationToken cancellation) => ReadAsync(Contradictions, reader => reader.GetString(0), cancellation);

    public Task<IReadOnlyList<Paid>> PaymentsAsync(CancellationToken cancellation) => ReadAsync(
        """
        select t.details->>'paymentIntentId', e.amount_nanos from ledger_transaction t join ledger_entry e on e.transaction_position = t.position
        join ledger_account a on a.id = e.ledger_account and a.account is not null where t.type = 'TopUp'
        """,
        reader => new Paid(reader.GetString(0), reader.GetInt64(1)), cancellation);

    /// <summary>By the meters; each event's own row is counted beside them, so that neither hides what the other lacks.</summary>
    public Task<IReadOnlyList<Used>> UsageAsync(CancellationToken cancellation) => ReadAsync(
        """
        select a.account, m.model, least(sum(m.events), e.events)::bigint, sum(m.input_tokens)::bigint, sum(m.cached_tokens)::bigint, sum(m.output_tokens)::bigint
        from token_meter m join ledger_account a on a.id = m.customer
        left join (select customer, model, count(*) as events from usage_event group by 1, 2) e on e.customer = m.customer and e.model = m.model
        group by a.account, m.model, e.events
        """,
        reader => new Used(reader.GetString(0), reader.GetString(1), reader.GetInt64(2), new(reader.GetInt64(3), reader.GetInt64(4), reader.GetInt64(5))), cancellation);

    public async Task<IReadOnlyDictionary<string, long>> TokenMoneyAsync(CancellationToken cancellation) => (await ReadAsync(
        """
        select a.account, -sum(e.amount_nanos)::bigint from ledger_transaction t join ledger_entry e on e.transaction_position = t.position
        join ledger_account a on a.id = e.ledger_account and a.account is not null where t.type = 'ServerlessUsage' group by 1
        """,
        reader => (reader.GetString(0), reader.GetInt64(1)), cancellation)).ToDictionary(StringComparer.Ordinal);

    public Task<IReadOnlyList<BookedRun>> RunsAsync(CancellationToken cancellation) => ReadAsync(
        Runs,
        reader => new BookedRun(
            reader.GetGuid(0), reader.GetString(1), reader.GetString(2), reader.GetInt32(3), Instant(reader, 4)!.Value, Instant(reader, 5), Instant(reader, 6),
            reader.GetBoolean(7), [.. reader.GetFieldValue<DateTimeOffset[]>(8).Zip(reader.GetFieldValue<long[]>(9))], reader.GetInt64(10)),
        cancellation);

    /// <summary>What is not at rest yet; empty: all of it is.</summary>
    public Task<IReadOnlyList<string>> UnfinishedAsync(CancellationToken cancellation) => ReadAsync(
        """
        select count(*) || ' runs are open' from run_interval where ended_at is null having count(*) > 0
        union all select count(*) || ' holds are there' from credit_hold having count(*) > 0
        union all select count(*) || ' accounts have unsettled tokens' from token_balance where rated_nanos <> settled_nanos having count(*) > 0
        union all select count(*) || ' payments are begun' from top_up where state = 'started' having count(*) > 0
        """,
        reader => reader.GetString(0), cancellation);

    /// <summary>Server processes that serve the product.</summary>
    public async Task<long> ConnectionsAsync(CancellationToken cancellation)
        => (await ReadAsync("select count(*) from pg_stat_activity where datname = current_database()", reader => reader.GetInt64(0), cancellation))[0];

    private async Task<IReadOnlyList<T>> ReadAsync<T>(string sql, Func<NpgsqlDataReader, T> row, CancellationToken cancellation)
    {
        await using var command = database.CreateCommand(sql);
        await using var reader = await command.ExecuteReaderAsync(cancellation);
        var rows = new List<T>();
        while (await reader.ReadAsync(cancellation)) rows.Add(row(reader));
        return rows;
    }

    private static DateTimeOffset? Instant(NpgsqlDataReader reader, int ordinal) => reader.IsDBNull(ordinal) ? null : reader.GetFieldValue<DateTimeOffset>(ordinal);

    private static string Resource(string name)
    {
        using var stream = typeof(Books).Assembly.GetManifestResourceStream(name) ?? throw new InvalidOperationException($"{name} is not embedded");
        using var reader = new StreamReader(stream);
        return reader.ReadToEnd();
    }
}
