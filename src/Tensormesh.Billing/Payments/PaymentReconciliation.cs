using Npgsql;

namespace Tensormesh.Billing;

/// <param name="Compared">Payments looked at.</param>
/// <param name="Credited">Payments that had succeeded over there and were not in the ledger.</param>
/// <param name="Mismatches">Where the two disagree, in all, until somebody has looked into it.</param>
public sealed record PaymentComparison(int Compared, int Credited, long Mismatches);

/// <summary>
/// Compares the payment company's books with the ledger, both ways, from where the last comparison ended: no event need arrive for money
/// to be credited.
/// </summary>
public sealed class PaymentReconciliation(NpgsqlDataSource dataSource, IPaymentProvider provider, TimeProvider time)
{
    /// <summary>Looked at again each time: an entry may show up in the company's books after one that is younger.</summary>
    public static readonly TimeSpan Overlap = TimeSpan.FromHours(2);
    /// <summary>How far back the first comparison looks.</summary>
    public static readonly TimeSpan FirstLook = TimeSpan.FromDays(30);

    private const string KeyPrefix = "topup/";

    private readonly NpgsqlDataSource dataSource = dataSource;
    private readonly IPaymentProvider provider = provider;
    private readonly TimeProvider time = time;
    private readonly PaymentSettlement settlement = new(dataSource, provider, time);
    private readonly PaymentMismatches mismatches = new(dataSource, provider, time);

    /// <summary>
    /// Null when another process compares now. That none runs beside another saves requests and is not what keeps a credit single: the
    /// ledger's key is. The lock is the SQL transaction's, so that it ends with this process, and works through any pooler.
    /// </summary>
    /// <exception cref="PaymentProviderException">The company could not be asked: the next comparison begins where this one did.</exception>
    public Task<PaymentComparison?> CompareAsync(CancellationToken cancellation) => Transact.UseAsync<PaymentComparison?>(dataSource, async connection =>
    {
        await using var transaction = await connection.BeginTransactionAsync(cancellation);
        await using var claim = new NpgsqlCommand("select pg_try_advisory_xact_lock(hashtext('tensormesh.payments'), hashtext($1))", connection);
        claim.Parameters.Add(Transact.Value(provider.Name));
        if (await claim.ExecuteScalarAsync(cancellation) is not true) return null;

        var now = time.GetUtcNow().ToLedgerTime();
        var from = (await WatermarkAsync(connection, cancellation) ?? now - FirstLook) - Overlap;
        var posted = await PostedAsync(connection, from, cancellation);
        var (compared, credited) = (new HashSet<string>(StringComparer.Ordinal), 0);
        await foreach (var payment in provider.ListPaidAsync(from, cancellation))
        {
            if (!compared.Add(payment.PaymentIntentId)) continue;
            var isPosted = posted.TryGetValue(payment.PaymentIntentId, out var amount);
            if (isPosted && amount == payment.Received) continue;
            var effect = await settlement.SettleAsync(payment.PaymentIntentId, null, cancellation);
            if (effect == PaymentEffect.Credited && !isPosted) credited++;
        }

        // What the ledger has and the list had not: credited late, long after it was paid, or never paid.
        foreach (var payment in posted.Keys.Where(payment => !compared.Contains(payment)))
        {
            if (await provider.FindPaymentAsync(payment, cancellation) is { Outcome: PaymentOutcome.Succeeded }) continue;
            await Transact.UseAsync(dataSource, async other =>
            {
                await using var batch = new NpgsqlBatch(other);
                batch.BatchCommands.Add(mismatches.Add(payment, MismatchKind.NotPaid, "credited here, and not paid there"));
                return await batch.ExecuteNonQueryAsync(cancellation);
            }, cancellation);
        }

        await using var keep = new NpgsqlCommand(
            "insert into payment_watermark (provider, reconciled_until) values ($1, $2) "
                + "on conflict (provider) do update set reconciled_until = greatest(payment_watermark.reconciled_until, $2)", connection);
        keep.Parameters.Add(Transact.Value(provider.Name));
        keep.Parameters.Add(Transact.Value(now));
        await keep.ExecuteNonQueryAsync(cancellation);
        await transaction.CommitAsync(cancellation);
        return new PaymentComparison(compared.Count, credited, await mismatches.CountAsync(cancellation));
    }, cancellation);

    private async Task<DateTimeOffset?> WatermarkAsync(NpgsqlConnection connection, CancellationToken cancellation)
    {
        await using var read = new NpgsqlCommand("select reconciled_until from payment_watermark where provider = $1", connection);
        read.Parameters.Add(Transact.Value(provider.Name));
        return await read.ExecuteScalarAsync(cancellation) is DateTime until ? new DateTimeOffset(until) : null;
    }

    /// <summary>The payments of this company that the ledger has since then, and what each brought.</summary>
    private async Task<Dictionary<string, Money>> PostedAsync(NpgsqlConnection connection, DateTimeOffset from, CancellationToken cancellation)
    {
        var prefix = $"{KeyPrefix}{provider.Name}/";
        await using var read = new NpgsqlCommand(
            "select substr(idempotency_key, length($1) + 1), (select max(amount) from unnest(amounts) as a(amount)) from ledger_transaction "
                + "where idempotency_key >= $1 and idempotency_key < $1 || '~' and created_at >= $2", connection);
        read.Parameters.Add(Transact.Value(prefix));
        read.Parameters.Add(Transact.Value(from));
        await using var reader = await read.ExecuteReaderAsync(cancellation);
        var posted = new Dictionary<string, Money>(StringComparer.Ordinal);
        while (await reader.ReadAsync(cancellation)) posted.Add(reader.GetString(0), new(reader.GetInt64(1)));
        return posted;
    }
}
