using Npgsql;

namespace Tensormesh.Billing;

/// <summary>Why a top-up was not attempted.</summary>
public enum TopUpRefusal
{
    AccountMissing,
    AmountOutOfRange,
    NotAttached,
    CardExpired,
    /// <summary>The idempotency key was used for another amount or card.</summary>
    KeyReusedWithOtherContent,
}

public abstract record TopUpResult
{
    private TopUpResult() { }
    public sealed record Credited(string TransactionId, string PaymentIntentId) : TopUpResult;
    /// <summary>The same key was credited before: nothing was charged now.</summary>
    public sealed record AlreadyCredited(string TransactionId, string PaymentIntentId) : TopUpResult;
    public sealed record Declined(string Code, string Message) : TopUpResult;
    public sealed record Refused(TopUpRefusal Reason, string Message) : TopUpResult;
}

/// <summary>Adds money from a card on file.</summary>
public sealed class TopUps(NpgsqlDataSource dataSource, IPaymentProvider provider, TimeProvider time)
{
    public static readonly Money Minimum = Money.FromUnits(1);
    public static readonly Money Maximum = Money.FromUnits(100_000);

    private readonly NpgsqlDataSource dataSource = dataSource;
    private readonly StandingHints hints = StandingHints.Of(dataSource);
    private readonly IPaymentProvider provider = provider;
    private readonly TimeProvider time = time;

    /// <summary>
    /// Charges the card and credits the account. The attempt is recorded before the card is charged, and credited in the SQL transaction
    /// that posts the
    /// money, so after a crash anywhere the same key finds the same charge and credits it once. A declined key stays declined: the card is
    /// not tried again.
    /// </summary>
    /// <param name="amount">From <see cref="Minimum"/> to <see cref="Maximum"/>.</param>
    public async Task<TopUpResult> ChargeAsync(
        AccountId account, Money amount, string paymentMethodId, string idempotencyKey, CancellationToken cancellation)
    {
        ArgumentException.ThrowIfNullOrEmpty(idempotencyKey);
        if (await RefuseAsync(account, amount, paymentMethodId, idempotencyKey, cancellation) is { } refused) return refused;

        var attempt = await BeginAsync(account, amount, paymentMethodId, idempotencyKey, cancellation);
        if (attempt.Amount != amount || attempt.PaymentMethodId != paymentMethodId)
        {
            return new TopUpResult.Refused(
                TopUpRefusal.KeyReusedWithOtherContent,
                $"account {account} used this idempotency key for {attempt.Amount} from {attempt.PaymentMethodId}: use a new key");
        }

        if (attempt.Declined is { } before) return before;
        var outcome = await provider.ChargeAsync(account, paymentMethodId, amount, $"{account}/{idempotencyKey}", cancellation);
        switch (outcome)
        {
            case PaymentOutcome.Succeeded paid:
                return await CreditAsync(
                    account, idempotencyKey, Movements.TopUp(account, amount, provider.Name, paid.PaymentIntentId, paymentMethodId), paid,
                    cancellation);
            case PaymentOutcome.Declined declined:
                await RecordDeclineAsync(account, idempotencyKey, declined, cancellation);
                return new TopUpResult.Declined(declined.Code, declined.Message);
            default:
                throw new InvalidOperationException($"payment provider {provider.Name} answered {outcome}");
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

        return card.ExpiresAt > time.GetUtcNow() ? null : new TopUpResult.Refused(
            TopUpRefusal.CardExpired,
            $"account {account}: {card.Brand} ending {card.Last4} has expired: add another card under Billing > Payment Methods");
    }

    private async Task<Attempt> BeginAsync(
        AccountId account, Money amount, string paymentMethodId, string idempotencyKey, CancellationToken cancellation)
    {
        await Transact.UseAsync(dataSource, async connection =>
        {
            await using var insert = new NpgsqlCommand(
                """
                insert into top_up (account, idempotency_key, amount_nanos, payment_method_id, state, created_at) values (
                    $1, $2, $3, $4, 'started', $5)
                on conflict (account, idempotency_key) do nothing
                """, connection);
            insert.Parameters.Add(Transact.Value(account.Value));
            insert.Parameters.Add(Transact.Value(idempotencyKey));
            insert.Parameters.Add(Transact.Value(amount.Nanos));
            insert.Parameters.Add(Transact.Value(paymentMethodId));
            insert.Parameters.Add(Transact.Value(time.GetUtcNow().ToLedgerTime()));
            return await insert.ExecuteNonQueryAsync(cancellation);
        }, cancellation);
        return (await FindAsync(account, idempotencyKey, cancellation))!;
    }

    private Task<Attempt?> FindAsync(AccountId account, string idempotencyKey, CancellationToken cancellation)
        => Transact.UseAsync<Attempt?>(dataSource, async connection =>
        {
            await using var find = new NpgsqlCommand(
                "select amount_nanos, payment_method_id, decline_code, decline_message from top_up where account = $1 and idempotency_key "
                    + "= $2", connection);
            find.Parameters.Add(Transact.Value(account.Value));
            find.Parameters.Add(Transact.Value(idempotencyKey));
            await using var reader = await find.ExecuteReaderAsync(cancellation);
            if (!await reader.ReadAsync(cancellation)) return null;
            return new(new(reader.GetInt64(0)), reader.GetString(1), reader.IsDBNull(2) ? null : new(reader.GetString(2), reader.GetString(3)));
        }, cancellation);

    private async Task<TopUpResult> CreditAsync(
        AccountId account, string idempotencyKey, Movement movement, PaymentOutcome.Succeeded paid, CancellationToken cancellation)
    {
        var result = await RecordCreditAsync(account, idempotencyKey, movement, paid, cancellation);
        if (result is TopUpResult.Credited) hints.Tell(account);
        return result;
    }

    private Task<TopUpResult> RecordCreditAsync(
        AccountId account, string idempotencyKey, Movement movement, PaymentOutcome.Succeeded paid, CancellationToken cancellation)
        => Transact.RunAsync<TopUpResult>(dataSource, async connection =>
        {
            await using var batch = new NpgsqlBatch(connection)
            {
                BatchCommands =
                {
                    Ledger.Command(movement),
                    Transact.Command(
                        "update top_up set state = 'credited', payment_intent_id = $3 where account = $1 and idempotency_key = $2 and "
                            + "state = 'started'",
                        Transact.Value(account.Value), Transact.Value(idempotencyKey), Transact.Value(paid.PaymentIntentId)),
                },
            };
            await using var reader = await batch.ExecuteReaderAsync(cancellation);
            return await Ledger.ReadAsync(reader, cancellation) switch
            {
                PostResult.Posted posted => new TopUpResult.Credited(posted.TransactionId, paid.PaymentIntentId),
                PostResult.AlreadyPosted posted => new TopUpResult.AlreadyCredited(posted.TransactionId, paid.PaymentIntentId),
                var other => throw new InvalidOperationException($"{movement.Key}: {other}"),
            };
        }, cancellation);

    private Task<int> RecordDeclineAsync(
        AccountId account, string idempotencyKey, PaymentOutcome.Declined declined, CancellationToken cancellation)
        => Transact.UseAsync(dataSource, async connection =>
        {
            await using var update = new NpgsqlCommand(
                "update top_up set state = 'declined', decline_code = $3, decline_message = $4 where account = $1 and idempotency_key = "
                    + "$2 and state = 'started'", connection);
            update.Parameters.Add(Transact.Value(account.Value));
            update.Parameters.Add(Transact.Value(idempotencyKey));
            update.Parameters.Add(Transact.Value(declined.Code));
            update.Parameters.Add(Transact.Value(declined.Message));
            return await update.ExecuteNonQueryAsync(cancellation);
        }, cancellation);

    private sealed record Attempt(Money Amount, string PaymentMethodId, TopUpResult.Declined? Declined);
}
