using System.Text.Json.Nodes;
using Npgsql;

namespace Tensormesh.Billing;

public enum AttachResult { Attached, AlreadyAttached, AccountMissing, UnknownPaymentMethod, CardExpired, CardDeclined }

public enum DetachResult { Detached, NotAttached, AccountMissing }

/// <summary>Cards on file.</summary>
public sealed class PaymentMethods(NpgsqlDataSource dataSource, IPaymentProvider provider, TimeProvider time)
{
    internal const string LockAccount = "select id from account where id = $1 for no key update";

    private readonly NpgsqlDataSource dataSource = dataSource;
    private readonly IPaymentProvider provider = provider;
    private readonly TimeProvider time = time;
    private readonly Customers customers = new(dataSource, provider, time);
    private readonly StandingHints hints = StandingHints.Of(dataSource);

    /// <summary>In the order in which they were attached. Null when there is no such account.</summary>
    public async Task<IReadOnlyList<Card>?> ListAsync(AccountId account, CancellationToken cancellation)
        => (await new Accounts(dataSource).ReadStandingAsync(account, cancellation))?.Cards.Cards;

    /// <summary>What the customer's browser needs to enter a card at the payment company; the card is then attached here.</summary>
    /// <returns>Null when there is no such account.</returns>
    /// <param name="key">The same key is the same setup.</param>
    public async Task<CardSetup?> BeginSetupAsync(AccountId account, string key, CancellationToken cancellation)
        => await ListAsync(account, cancellation) is null
        ? null
        : await customers.WithAsync(account, customer => provider.BeginCardSetupAsync(customer, key, cancellation), cancellation);

    /// <summary>
    /// The first card becomes the default. The payment company is asked before anything is locked. Attaching a test token twice may make two
    /// cards of it; a card that was entered in a browser is attached once.
    /// </summary>
    /// <param name="by">Who asked for it, which is noted with it.</param>
    public async Task<AttachResult> AttachAsync(AccountId account, string paymentMethodId, CancellationToken cancellation, Actor? by = null)
    {
        if (await ListAsync(account, cancellation) is not { } cards) return AttachResult.AccountMissing;
        if (cards.Any(card => card.PaymentMethodId == paymentMethodId)) return AttachResult.AlreadyAttached;
        if (await provider.FindCardAsync(paymentMethodId, cancellation) is not { } card) return AttachResult.UnknownPaymentMethod;

        var now = time.GetUtcNow().ToLedgerTime();
        if (new Card(card.PaymentMethodId, card.Brand, card.Last4, card.ExpMonth, card.ExpYear, IsDefault: false, now)
            .ExpiresAt <= now) return AttachResult.CardExpired;

        ProviderCard found;
        switch (await customers.WithAsync(account, customer => provider.AttachCardAsync(customer, paymentMethodId, cancellation), cancellation))
        {
            case CardAttachment.Attached attached:
                found = attached.Card;
                break;
            case CardAttachment.Declined:
                return AttachResult.CardDeclined;
            case CardAttachment.Unknown:
                return AttachResult.UnknownPaymentMethod;
            case var other:
                throw new InvalidOperationException($"payment provider {provider.Name} answered {other}");
        }

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
            if (insert.RecordsAffected != 1) return AttachResult.AlreadyAttached;
            await AuditLog.NoteAsync(connection, by, AuditAction.CardAttached, account, found.PaymentMethodId, [], cancellation);
            return AttachResult.Attached;
        }, cancellation);
        if (result == AttachResult.Attached) hints.Tell(account);
        return result;
    }

    /// <summary>
    /// When the default goes, the card that is valid longest takes its place. It goes at the payment company first: a card that is gone here
    /// could still be charged there.
    /// </summary>
    /// <inheritdoc cref="AttachAsync" path="/param"/>
    public async Task<DetachResult> DetachAsync(AccountId account, string paymentMethodId, CancellationToken cancellation, Actor? by = null)
    {
        if (await ListAsync(account, cancellation) is not { } cards) return DetachResult.AccountMissing;
        if (cards.All(card => card.PaymentMethodId != paymentMethodId)) return DetachResult.NotAttached;
        await provider.DetachCardAsync(paymentMethodId, cancellation);
        var result = await RecordDetachAsync(account, paymentMethodId, by, cancellation);
        if (result == DetachResult.Detached) hints.Tell(account);
        return result;
    }

    /// <summary>False when it is not attached.</summary>
    /// <inheritdoc cref="AttachAsync" path="/param"/>
    public async Task<bool> MakeDefaultAsync(AccountId account, string paymentMethodId, CancellationToken cancellation, Actor? by = null)
    {
        if (await ListAsync(account, cancellation) is not { } cards || cards.All(card => card.PaymentMethodId != paymentMethodId)) return false;
        var customer = await customers.OpenAsync(account, cancellation);
        try
        {
            await provider.MakeDefaultAsync(customer, paymentMethodId, cancellation);
        }
        catch (CustomerGoneException)
        {
            await customers.ForgetAsync(customer, null, cancellation);
            return false;
        }

        return await RecordDefaultAsync(account, paymentMethodId, by, cancellation);
    }

    /// <summary>
    /// Takes off file what other payment companies knew, after a change of the company: it cannot be charged any more, so that it is no valid
    /// card. Idempotent.
    /// </summary>
    /// <returns>How many cards went.</returns>
    public async Task<int> RetireOthersAsync(CancellationToken cancellation)
    {
        var accounts = await Transact.RunAsync(dataSource, async connection =>
        {
            await using var retire = new NpgsqlCommand(
                "update payment_method set detached_at = greatest($2, attached_at), is_default = false where provider <> $1 and detached_at is null "
                    + "returning account", connection)
            { Parameters = { Transact.Value(provider.Name), Transact.Value(time.GetUtcNow().ToLedgerTime()) } };
            await using var reader = await retire.ExecuteReaderAsync(cancellation);
            var retired = new List<AccountId>();
            while (await reader.ReadAsync(cancellation)) retired.Add(new(reader.GetString(0)));
            return retired;
        }, cancellation);
        foreach (var account in accounts.Distinct()) hints.Tell(account);
        return accounts.Count;
    }

    private Task<bool> RecordDefaultAsync(AccountId account, string paymentMethodId, Actor? by, CancellationToken cancellation)
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
            if (promote.RecordsAffected != 1) return false;
            await AuditLog.NoteAsync(connection, by, AuditAction.CardMadeDefault, account, paymentMethodId, [], cancellation);
            return true;
        }, cancellation);

    private Task<DetachResult> RecordDetachAsync(AccountId account, string paymentMethodId, Actor? by, CancellationToken cancellation)
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
            await using (var reader = await batch.ExecuteReaderAsync(cancellation))
            {
                if (!await reader.ReadAsync(cancellation)) return DetachResult.AccountMissing;
                await reader.NextResultAsync(cancellation);
                await reader.ReadAsync(cancellation);
                if (reader.GetInt64(0) != 1) return DetachResult.NotAttached;
            }

            await AuditLog.NoteAsync(connection, by, AuditAction.CardDetached, account, paymentMethodId, [], cancellation);
            return DetachResult.Detached;
        }, cancellation);
}
