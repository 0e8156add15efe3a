using System.Text.Json.Nodes;
using Npgsql;
using NpgsqlTypes;

namespace Tensormesh.Billing;

/// <summary>Why a top-up was not attempted.</summary>
public enum TopUpRefusal
{
    AccountMissing,
    /// <summary>Too little, too much, or no whole cents.</summary>
    AmountOutOfRange,
    NotAttached,
    CardExpired,
    /// <summary>The idempotency key was used for another amount or card.</summary>
    KeyReusedWithOtherContent,
}

public abstract record TopUpResult
{
    private TopUpResult() { }
    public sealed record Credited(string TransactionId, string PaymentIntentId, string ClientSecret) : TopUpResult;
    /// <summary>The same key was credited before: nothing was charged now.</summary>
    public sealed record AlreadyCredited(string TransactionId, string PaymentIntentId, string ClientSecret) : TopUpResult;
    public sealed record Declined(string Code, string Message) : TopUpResult;
    /// <summary>Nothing is charged yet: the holder's browser finishes the payment with the secret, and it is credited when it has succeeded.</summary>
    public sealed record AuthenticationRequired(string PaymentIntentId, string ClientSecret) : TopUpResult;
    /// <summary>Charged or not: the payment company did not say. The same key again finds out, and charges once.</summary>
    public sealed record InDoubt(string Reason) : TopUpResult;
    public sealed record Refused(TopUpRefusal Reason, string Message) : TopUpResult;
}

/// <summary>Adds money from a card on file.</summary>
public sealed class TopUps(NpgsqlDataSource dataSource, IPaymentProvider provider, TimeProvider time)
{
    public static readonly Money Minimum = Money.FromUnits(1);
    public static readonly Money Maximum = Money.FromUnits(100_000);
    private const long CentNanos = Money.NanosPerUnit / 100;

    private readonly NpgsqlDataSource dataSource = dataSource;
    private readonly StandingHints hints = StandingHints.Of(dataSource);
    private readonly IPaymentProvider provider = provider;
    private readonly Customers customers = new(dataSource, provider, time);
    private readonly TimeProvider time = time;

    /// <summary>
    /// Charges the card and credits the account. The attempt is recorded before the card is charged, and credited in the SQL transaction
    /// that posts the money, so after a crash anywhere the same key finds the same charge and credits it once. A declined key stays
    /// declined: the card is not tried again.
    /// </summary>
    /// <param name="amount">From <see cref="Minimum"/> to <see cref="Maximum"/>.</param>
    /// <param name="by">Who asked for it, which is noted before the card is charged.</param>
    /// <exception cref="PaymentProviderException">The payment company refused our request as such: a fault of ours, never a decline.</exception>
    public async Task<TopUpResult> ChargeAsync(
        AccountId account, Money amount, string paymentMethodId, string idempotencyKey, CancellationToken cancellation,
        ChargeMode mode = ChargeMode.OnSession, Actor? by = null)
    {
        ArgumentException.ThrowIfNullOrEmpty(idempotencyKey);
        if (await RefuseAsync(account, amount, paymentMethodId, idempotencyKey, cancellation) is { } refused) return refused;

        var (attempt, isNew) = await BeginAsync(account, amount, paymentMethodId, idempotencyKey, by, cancellation);
        if (attempt.Amount != amount || attempt.PaymentMethodId != paymentMethodId)
        {
            return new TopUpResult.Refused(
                TopUpRefusal.KeyReusedWithOtherContent,
                $"account {account} used this idempotency key for {attempt.Amount} from {attempt.PaymentMethodId}: use a new key");
        }

        if (attempt.Declined is { } before) return before;
        var outcome = await AskAsync(account, attempt, isNew, idempotencyKey, mode, cancellation);
        switch (outcome)
        {
            case PaymentOutcome.Succeeded paid:
                var credit = new Credit(
                    account, amount, paid.PaymentIntentId, paymentMethodId, TopUpId.Of(account, idempotencyKey), idempotencyKey);
                return await CreditAsync(credit, null, cancellation) switch
                {
                    PostResult.Posted posted => new TopUpResult.Credited(posted.TransactionId, paid.PaymentIntentId, paid.ClientSecret),
                    PostResult.AlreadyPosted posted =>
                        new TopUpResult.AlreadyCredited(posted.TransactionId, paid.PaymentIntentId, paid.ClientSecret),
                    var other => throw new InvalidOperationException($"{credit.PaymentIntentId}: {other}"),
                };
            case PaymentOutcome.Declined declined:
                await RecordRefusalAsync(TopUpId.Of(account, idempotencyKey), account, idempotencyKey, declined, mode, cancellation);
                return new TopUpResult.Declined(declined.Code, declined.Message);
            case PaymentOutcome.AuthenticationRequired asked:
                await RecordRefusalAsync(TopUpId.Of(account, idempotencyKey), account, idempotencyKey, asked, mode, cancellation);
                return new TopUpResult.AuthenticationRequired(asked.PaymentIntentId, asked.ClientSecret);
            case PaymentOutcome.InDoubt unknown:
                return new TopUpResult.InDoubt(unknown.Reason);
            default:
                throw new InvalidOperationException($"payment provider {provider.Name} answered {outcome}");
        }
    }

    /// <summary>An attempt that was begun before is looked for first: its charge may be older than the company remembers its key.</summary>
    private async Task<PaymentOutcome> AskAsync(
        AccountId account, Attempt attempt, bool isNew, string idempotencyKey, ChargeMode mode, CancellationToken cancellation)
    {
        try
        {
            if (attempt.PaymentIntentId is { } begun)
            {
                if (await provider.FindPaymentAsync(begun, cancellation) is { } known) return known.Outcome;
                // A company that keeps nothing: what we have on record stands.
                if (attempt.IsCredited) return new PaymentOutcome.Succeeded(begun, $"{begun}_secret_{provider.Name}");
            }

            var customer = await customers.OpenAsync(account, cancellation);
            var charge = new Charge(
                TopUpId.Of(account, idempotencyKey), account, customer, attempt.PaymentMethodId, attempt.Amount, mode);
            if (!isNew && await provider.FindChargeAsync(charge, attempt.BegunAt, cancellation) is { } found) return found.Outcome;
            try
            {
                return await provider.ChargeAsync(charge, cancellation);
            }
            catch (CustomerGoneException)
            {
                await customers.ForgetAsync(customer, null, cancellation);
                return new PaymentOutcome.Declined("card_gone", "The payment company no longer has this card. Add it again under Billing > Payment Methods.");
            }
        }
        catch (PaymentProviderException lost) when (lost.IsTransient)
        {
            return new PaymentOutcome.InDoubt(lost.Message);
        }
    }

    private async Task<TopUpResult?> RefuseAsync(
        AccountId account, Money amount, string paymentMethodId, string idempotencyKey, CancellationToken cancellation)
    {
        if (amount < Minimum || amount > Maximum)
        {
            return new TopUpResult.Refused(
                TopUpRefusal.AmountOutOfRange, $"account {account} can add from {Minimum} to {Maximum} at a time, not {amount}");
        }

        if (await new Accounts(dataSource).ReadStandingAsync(account, cancellation) is not { } standing)
        {
            return new TopUpResult.Refused(TopUpRefusal.AccountMissing, $"account {account} does not exist");
        }

        // A key that was begun is answered as it ended, even when its card is gone by now.
        if (await FindAsync(account, idempotencyKey, cancellation) is not null) return null;
        if (standing.Cards.Cards.FirstOrDefault(card => card.PaymentMethodId == paymentMethodId) is not { } card)
        {
            return new TopUpResult.Refused(
                TopUpRefusal.NotAttached,
                $"account {account} has no card {paymentMethodId} on file: add it under Billing > Payment Methods");
        }

        if (amount.Nanos % CentNanos != 0)
        {
            return new TopUpResult.Refused(TopUpRefusal.AmountOutOfRange, $"a card is charged in whole cents, not {amount.ToDecimalString()}");
        }

        return card.ExpiresAt > time.GetUtcNow() ? null : new TopUpResult.Refused(
            TopUpRefusal.CardExpired,
            $"account {account}: {card.Brand} ending {card.Last4} has expired: add another card under Billing > Payment Methods");
    }

    private async Task<(Attempt Attempt, bool IsNew)> BeginAsync(
        AccountId account, Money amount, string paymentMethodId, string idempotencyKey, Actor? by, CancellationToken cancellation)
    {
        var begun = await Transact.RunAsync(dataSource, async connection =>
        {
            // The id is of the account and its key, so that the same attempt meets both constraints, and of two at once the later may meet either first.
            await using var insert = new NpgsqlCommand(
                """
                insert into top_up (account, idempotency_key, amount_nanos, payment_method_id, state, created_at, top_up_id) values (
                    $1, $2, $3, $4, 'started', $5, $6)
                on conflict do nothing
                """, connection);
            insert.Parameters.Add(Transact.Value(account.Value));
            insert.Parameters.Add(Transact.Value(idempotencyKey));
            insert.Parameters.Add(Transact.Value(amount.Nanos));
            insert.Parameters.Add(Transact.Value(paymentMethodId));
            insert.Parameters.Add(Transact.Value(time.GetUtcNow().ToLedgerTime()));
            insert.Parameters.Add(Transact.Value(TopUpId.Of(account, idempotencyKey).Value));
            if (await insert.ExecuteNonQueryAsync(cancellation) == 0) return false;
            var details = new JsonObject { ["amount"] = amount.ToDecimalString(), ["paymentMethodId"] = paymentMethodId };
            await AuditLog.NoteAsync(connection, by, AuditAction.TopUpAsked, account, TopUpId.Of(account, idempotencyKey).Value, details, cancellation);
            return true;
        }, cancellation);
        return ((await FindAsync(account, idempotencyKey, cancellation))!, begun);
    }

    private Task<Attempt?> FindAsync(AccountId account, string idempotencyKey, CancellationToken cancellation)
        => Transact.UseAsync<Attempt?>(dataSource, async connection =>
        {
            await using var find = new NpgsqlCommand(
                "select amount_nanos, payment_method_id, decline_code, decline_message, payment_intent_id, created_at, state from top_up "
                    + "where account = $1 and idempotency_key = $2", connection);
            find.Parameters.Add(Transact.Value(account.Value));
            find.Parameters.Add(Transact.Value(idempotencyKey));
            await using var reader = await find.ExecuteReaderAsync(cancellation);
            if (!await reader.ReadAsync(cancellation)) return null;
            return new(
                new(reader.GetInt64(0)), reader.GetString(1), reader.IsDBNull(2) ? null : new(reader.GetString(2), reader.GetString(3)),
                reader.IsDBNull(4) ? null : reader.GetString(4), reader.GetFieldValue<DateTimeOffset>(5),
                reader.GetString(6) == "credited");
        }, cancellation);

    /// <summary>
    /// Posts the money of a payment that succeeded: once, by the payment's own id, whoever comes with it. What told of it, if it was an
    /// event, is recorded in the same SQL transaction, which either has both or neither.
    /// </summary>
    /// <returns>A refusal when the ledger has this payment with another amount or account.</returns>
    internal async Task<PostResult> CreditAsync(Credit credit, PaymentEvent? told, CancellationToken cancellation)
    {
        var movement = Movements.TopUp(credit.Account, credit.Amount, provider.Name, credit.PaymentIntentId, credit.PaymentMethodId);
        PostResult result;
        try
        {
            result = await Transact.RunAsync(dataSource, async connection =>
            {
                await using var batch = new NpgsqlBatch(connection);
                batch.BatchCommands.Add(Ledger.Command(movement));
                batch.BatchCommands.Add(Transact.Command(
                    "update top_up set state = 'credited', payment_intent_id = $2, decline_code = null, decline_message = null "
                        + "where account = $3 and (top_up_id = $1 or idempotency_key = $4) and state <> 'credited'",
                    Transact.Value(credit.TopUp.Value), Transact.Value(credit.PaymentIntentId), Transact.Value(credit.Account.Value),
                    Transact.Value(credit.IdempotencyKey, NpgsqlDbType.Text)));
                batch.BatchCommands.Add(Transact.Command(
                    "update payment_method set off_session_declined_at = null where account = $1 and payment_method_id = $2 "
                        + "and detached_at is null and off_session_declined_at is not null",
                    Transact.Value(credit.Account.Value), Transact.Value(credit.PaymentMethodId)));
                if (told is not null) batch.BatchCommands.Add(told.Record(PaymentEffect.Credited, time));
                await using var reader = await batch.ExecuteReaderAsync(cancellation);
                var posted = await Ledger.ReadAsync(reader, cancellation);
                // What the statements after it refuse is seen only by reading on.
                while (await reader.NextResultAsync(cancellation)) { }
                return posted;
            }, cancellation);
        }
        catch (PostgresException error) when (SqlStates.Refusal(error.SqlState) is { } reason)
        {
            return new PostResult.Refused(reason, error.MessageText);
        }

        hints.Tell(credit.Account);
        return result;
    }

    /// <summary>Records that a payment did not succeed, or not yet. One that was credited stays so.</summary>
    internal async Task RecordRefusalAsync(
        TopUpId topUp, AccountId account, string? idempotencyKey, PaymentOutcome outcome, ChargeMode mode, CancellationToken cancellation,
        PaymentEvent? told = null)
    {
        var (paymentIntentId, code, message) = outcome switch
        {
            PaymentOutcome.Declined declined => (declined.PaymentIntentId, declined.Code, declined.Message),
            PaymentOutcome.AuthenticationRequired asked => (asked.PaymentIntentId, null, (string?)null),
            _ => throw new ArgumentException($"{outcome} is no refusal", nameof(outcome)),
        };
        await Transact.RunAsync(dataSource, async connection =>
        {
            await using var batch = new NpgsqlBatch(connection);
            batch.BatchCommands.Add(Transact.Command(
                SqlText.RefuseTopUp,
                Transact.Value(topUp.Value), Transact.Value(account.Value), Transact.Value(paymentIntentId, NpgsqlDbType.Text),
                Transact.Value(code, NpgsqlDbType.Text), Transact.Value(message, NpgsqlDbType.Text),
                Transact.Value(idempotencyKey, NpgsqlDbType.Text), Transact.Value(time.GetUtcNow().ToLedgerTime()),
                Transact.Value(mode == ChargeMode.OffSession)));
            if (told is not null) batch.BatchCommands.Add(told.Record(PaymentEffect.Declined, time));
            return await batch.ExecuteNonQueryAsync(cancellation);
        }, cancellation);
        if (mode == ChargeMode.OffSession) hints.Tell(account);
    }

    internal sealed record Credit(AccountId Account, Money Amount, string PaymentIntentId, string PaymentMethodId, TopUpId TopUp, string? IdempotencyKey = null);

    private sealed record Attempt(
        Money Amount, string PaymentMethodId, TopUpResult.Declined? Declined, string? PaymentIntentId, DateTimeOffset BegunAt,
        bool IsCredited);
}
