using Npgsql;

namespace Tensormesh.Billing;

public enum AttachResult { Attached, AlreadyAttached, AccountMissing, UnknownPaymentMethod, CardExpired, CardDeclined }

public enum DetachResult { Detached, NotAttached, AccountMissing }

/// <summary>Cards on file.</summary>
public sealed class PaymentMethods(NpgsqlDataSource dataSource, IPaymentProvider provider, TimeProvider time)
{
    private const string LockAccount = "select id from account where id = $1 for no key update";

    private readonly NpgsqlDataSource dataSource = dataSource;
    private readonly IPaymentProvider provider = provider;
    private readonly TimeProvider time = time;
    private readonly StandingHints hints = StandingHints.Of(dataSource);

    /// <summary>In the order in which they were attached. Null when there is no such account.</summary>
    public async Task<IReadOnlyList<Card>?> ListAsync(AccountId account, CancellationToken cancellation)
        => (await new Accounts(dataSource).ReadStandingAsync(account, cancellation))?.Cards.Cards;

    /// <summary>The first card becomes the default. The payment company is asked before anything is locked.</summary>
    public async Task<AttachResult> AttachAsync(AccountId account, string paymentMethodId, CancellationToken cancellation)
    {
        if (await ListAsync(account, cancellation) is not { } cards) return AttachResult.AccountMissing;
        if (cards.Any(card => card.PaymentMethodId == paymentMethodId)) return AttachResult.AlreadyAttached;
        if (await provider.FindCardAsync(paymentMethodId, cancellation) is not { } found) return AttachResult.UnknownPaymentMethod;

        var now = time.GetUtcNow().ToLedgerTime();
        if (new Card(found.PaymentMethodId, found.Brand, found.Last4, found.ExpMonth, found.ExpYear, IsDefault: false, now)
            .ExpiresAt <= now) return AttachResult.CardExpired;

        var result = await Transact.RunAsync(dataSource, async connection =>
        {
            var insert = Transact.Command(
                SqlText.AttachPaymentMethod,
                Transact.Value(account.Value), Transact.Value(found.PaymentMethodId), Transact.Value(provider.Name),
                Transact.Value(found.Brand),
                Transact.Value(found.Last4), Transact.Value(found.ExpMonth), Transact.Value(found.ExpYear), Transact.Value(now));
            await using var batch = new NpgsqlBatch(connection)
            {
                BatchCommands = { Transact.Command(LockAccount, Transact.Value(account.Value)), insert },
            };
            await batch.ExecuteNonQueryAsync(cancellation);
            return insert.RecordsAffected == 1 ? AttachResult.Attached : AttachResult.AlreadyAttached;
        }, cancellation);
        if (result == AttachResult.Attached) hints.Tell(account);
        return result;
    }

    /// <summary>When the default goes, the card that is valid longest takes its place.</summary>
    public async Task<DetachResult> DetachAsync(AccountId account, string paymentMethodId, CancellationToken cancellation)
    {
        var result = await RecordDetachAsync(account, paymentMethodId, cancellation);
        if (result == DetachResult.Detached) hints.Tell(account);
        return result;
    }

    /// <summary>False when it is not attached.</summary>
    public Task<bool> MakeDefaultAsync(AccountId account, string paymentMethodId, CancellationToken cancellation)
        => Transact.RunAsync(dataSource, async connection =>
        {
            // Two statements, because the index that allows one default looks at each row as it is written.
            const string attached = "account = $1 and detached_at is null";
            var promote = Transact.Command(
                $"update payment_method set is_default = true where {attached} and payment_method_id = $2", Transact.Value(account.Value),
                Transact.Value(paymentMethodId));
            await using var batch = new NpgsqlBatch(connection)
            {
                BatchCommands =
                {
                    Transact.Command(LockAccount, Transact.Value(account.Value)),
                    Transact.Command(
                        $"""
                        update payment_method set is_default = false where {attached} and is_default and payment_method_id <> $2
                          and exists (select from payment_method where {attached} and payment_method_id = $2)
                        """, Transact.Value(account.Value), Transact.Value(paymentMethodId)),
                    promote,
                },
            };
            await batch.ExecuteNonQueryAsync(cancellation);
            return promote.RecordsAffected == 1;
        }, cancellation);

    private Task<DetachResult> RecordDetachAsync(AccountId account, string paymentMethodId, CancellationToken cancellation)
        => Transact.RunAsync(dataSource, async connection =>
        {
            await using var batch = new NpgsqlBatch(connection)
            {
                BatchCommands =
                {
                    Transact.Command(LockAccount, Transact.Value(account.Value)),
                    Transact.Command(
                        SqlText.DetachPaymentMethod,
                        Transact.Value(account.Value), Transact.Value(paymentMethodId), Transact.Value(time.GetUtcNow().ToLedgerTime())),
                },
            };
            await using var reader = await batch.ExecuteReaderAsync(cancellation);
            if (!await reader.ReadAsync(cancellation)) return DetachResult.AccountMissing;
            await reader.NextResultAsync(cancellation);
            await reader.ReadAsync(cancellation);
            return reader.GetInt64(0) == 1 ? DetachResult.Detached : DetachResult.NotAttached;
        }, cancellation);
}
