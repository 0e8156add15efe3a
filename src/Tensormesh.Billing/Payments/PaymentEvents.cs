using Npgsql;

namespace Tensormesh.Billing;

/// <summary>What an event of the payment company led to.</summary>
public enum PaymentEffect
{
    /// <summary>Not a type that means anything here. Not recorded.</summary>
    Ignored,
    /// <summary>This event was here before.</summary>
    Repeated,
    /// <summary>What it tells is not, or no longer, so. Nothing was done.</summary>
    Outdated,
    Credited,
    Declined,
    CardDetached,
    CustomerDeleted,
    Refunded,
    Disputed,
    DisputeReversed,
    /// <summary>The company's books and ours disagree: see <see cref="MismatchKind"/>.</summary>
    Mismatch,
}

/// <summary>
/// Something that the payment company says happened. Believed is only that it happened to this object: what the object is now is asked
/// of the company, so that old, repeated and reordered events do no harm.
/// </summary>
public sealed record PaymentEvent(string Provider, string EventId, string Type, string ObjectId)
{
    /// <summary>Goes into the SQL transaction of the event's effect.</summary>
    internal NpgsqlBatchCommand Record(PaymentEffect effect, TimeProvider time) => Transact.Command(
        "insert into payment_event (provider, event_id, type, object_id, effect, received_at) values ($1, $2, $3, $4, $5, $6) "
            + "on conflict do nothing",
        Transact.Value(Provider), Transact.Value(EventId), Transact.Value(Type), Transact.Value(ObjectId), Transact.Value(effect.ToString()),
        Transact.Value(time.GetUtcNow().ToLedgerTime()));
}

/// <summary>What the payment company's events do.</summary>
public sealed class PaymentEvents(NpgsqlDataSource dataSource, IPaymentProvider provider, TimeProvider time)
{
    private readonly NpgsqlDataSource dataSource = dataSource;
    private readonly IPaymentProvider provider = provider;
    private readonly TimeProvider time = time;
    private readonly StandingHints hints = StandingHints.Of(dataSource);
    private readonly PaymentSettlement settlement = new(dataSource, provider, time);
    private readonly Customers customers = new(dataSource, provider, time);
    private readonly PaymentReturns returns = new(dataSource, provider, time);
    private readonly PaymentMismatches mismatches = new(dataSource, provider, time);

    /// <summary>The types that mean something here; a company need send no others.</summary>
    public static readonly IReadOnlyList<string> Types =
    [
        "payment_intent.succeeded", "payment_intent.payment_failed", "payment_method.detached", "customer.deleted", "charge.refunded", "refund.failed",
        "charge.dispute.created", "charge.dispute.updated", "charge.dispute.closed", "charge.dispute.funds_withdrawn",
        "charge.dispute.funds_reinstated",
    ];

    /// <exception cref="PaymentProviderException">The company could not be asked. Nothing is recorded: the event must come again.</exception>
    public async Task<PaymentEffect> HandleAsync(PaymentEvent told, CancellationToken cancellation)
    {
        if (!Types.Contains(told.Type)) return PaymentEffect.Ignored;
        if (await WasHereAsync(told, cancellation)) return PaymentEffect.Repeated;
        return told.Type switch
        {
            "payment_intent.succeeded" or "payment_intent.payment_failed" => await settlement.SettleAsync(told.ObjectId, told, cancellation),
            "payment_method.detached" => await DetachAsync(told, cancellation),
            "customer.deleted" => await DeleteCustomerAsync(told, cancellation),
            "charge.refunded" => await returns.RefundAsync(told, cancellation),
            "refund.failed" => await RefundFailedAsync(told, cancellation),
            _ => await returns.DisputeAsync(told, cancellation),
        };
    }

    private async Task<PaymentEffect> DetachAsync(PaymentEvent told, CancellationToken cancellation)
    {
        if (await provider.IsAttachedAsync(told.ObjectId, cancellation)) return await RecordAsync(told, PaymentEffect.Outdated, [], cancellation);
        var holders = await HoldersAsync(told.ObjectId, cancellation);
        await RecordAsync(told, PaymentEffect.CardDetached, holders.SelectMany(Detach), cancellation);
        foreach (var (account, _) in holders) hints.Tell(account);
        return PaymentEffect.CardDetached;
    }

    private async Task<PaymentEffect> DeleteCustomerAsync(PaymentEvent told, CancellationToken cancellation)
    {
        var customer = new CustomerId(told.ObjectId);
        if (await provider.HasCustomerAsync(customer, cancellation)) return await RecordAsync(told, PaymentEffect.Outdated, [], cancellation);
        await customers.ForgetAsync(customer, told, cancellation);
        return PaymentEffect.CustomerDeleted;
    }

    /// <summary>The money is with us again, and whose it is now is for a person to say: the bank did not take it, perhaps for a closed account.</summary>
    private Task<PaymentEffect> RefundFailedAsync(PaymentEvent told, CancellationToken cancellation)
        => RecordAsync(told, PaymentEffect.Mismatch, [mismatches.Add(told.ObjectId, MismatchKind.Refunded, "the bank did not take it")], cancellation);

    private IEnumerable<NpgsqlBatchCommand> Detach((AccountId Account, string PaymentMethodId) held) =>
    [
        Transact.Command(PaymentMethods.LockAccount, Transact.Value(held.Account.Value)),
        Transact.Command(
            SqlText.DetachPaymentMethod, Transact.Value(held.Account.Value), Transact.Value(held.PaymentMethodId),
            Transact.Value(time.GetUtcNow().ToLedgerTime())),
    ];

    private Task<List<(AccountId Account, string PaymentMethodId)>> HoldersAsync(string paymentMethodId, CancellationToken cancellation)
        => Transact.UseAsync(dataSource, async connection =>
        {
            await using var find = new NpgsqlCommand(
                "select account, payment_method_id from payment_method where provider = $1 and detached_at is null and payment_method_id = $2 order by 1, 2",
                connection);
            find.Parameters.Add(Transact.Value(provider.Name));
            find.Parameters.Add(Transact.Value(paymentMethodId));
            await using var reader = await find.ExecuteReaderAsync(cancellation);
            var holders = new List<(AccountId, string)>();
            while (await reader.ReadAsync(cancellation)) holders.Add((new(reader.GetString(0)), reader.GetString(1)));
            return holders;
        }, cancellation);

    private Task<bool> WasHereAsync(PaymentEvent told, CancellationToken cancellation) => Transact.UseAsync(dataSource, async connection =>
    {
        await using var find = new NpgsqlCommand("select from payment_event where provider = $1 and event_id = $2", connection);
        find.Parameters.Add(Transact.Value(told.Provider));
        find.Parameters.Add(Transact.Value(told.EventId));
        await using var reader = await find.ExecuteReaderAsync(cancellation);
        return await reader.ReadAsync(cancellation);
    }, cancellation);

    private Task<PaymentEffect> RecordAsync(
        PaymentEvent told, PaymentEffect effect, IEnumerable<NpgsqlBatchCommand> work, CancellationToken cancellation)
    {
        var commands = work.ToList();
        return Transact.RunAsync(dataSource, async connection =>
        {
            await using var batch = new NpgsqlBatch(connection);
            foreach (var command in commands) batch.BatchCommands.Add(Copy(command));
            batch.BatchCommands.Add(told.Record(effect, time));
            await batch.ExecuteNonQueryAsync(cancellation);
            return effect;
        }, cancellation);
    }

    /// <summary>A command belongs to one batch, and a deadlock's victim is run again in another.</summary>
    private static NpgsqlBatchCommand Copy(NpgsqlBatchCommand command)
        => Transact.Command(command.CommandText, [.. command.Parameters.Select(parameter => parameter.Clone())]);
}
