using Npgsql;

namespace Tensormesh.Billing;

/// <summary>Which customer of the payment company is which account: one at a time, made when it is first needed.</summary>
public sealed class Customers(NpgsqlDataSource dataSource, IPaymentProvider provider, TimeProvider time)
{
    private const string Current = "account = $1 and provider = $2 and deleted_at is null";

    private readonly NpgsqlDataSource dataSource = dataSource;
    private readonly IPaymentProvider provider = provider;
    private readonly TimeProvider time = time;
    private readonly StandingHints hints = StandingHints.Of(dataSource);

    /// <summary>
    /// The account's customer. The payment company makes one for each number only, so that two at once get the same, and so does whoever
    /// comes after a crash between the company's answer and our record of it.
    /// </summary>
    public async Task<CustomerId> OpenAsync(AccountId account, CancellationToken cancellation)
    {
        if (await FindAsync(account, cancellation) is { } known) return known;
        var number = await Transact.UseAsync(dataSource, async connection =>
        {
            await using var next = new NpgsqlCommand(
                "select coalesce(max(number), 0) + 1 from payment_customer where account = $1 and provider = $2", connection);
            next.Parameters.Add(Transact.Value(account.Value));
            next.Parameters.Add(Transact.Value(provider.Name));
            return (int)(await next.ExecuteScalarAsync(cancellation))!;
        }, cancellation);
        var created = await provider.CreateCustomerAsync(account, number, cancellation);
        await Transact.UseAsync(dataSource, async connection =>
        {
            await using var insert = new NpgsqlCommand(
                "insert into payment_customer (account, provider, customer_id, number, created_at) values ($1, $2, $3, $4, $5) "
                    + "on conflict do nothing", connection);
            insert.Parameters.Add(Transact.Value(account.Value));
            insert.Parameters.Add(Transact.Value(provider.Name));
            insert.Parameters.Add(Transact.Value(created.Value));
            insert.Parameters.Add(Transact.Value(number));
            insert.Parameters.Add(Transact.Value(time.GetUtcNow().ToLedgerTime()));
            return await insert.ExecuteNonQueryAsync(cancellation);
        }, cancellation);
        return await FindAsync(account, cancellation)
            ?? throw new PaymentProviderException($"customer {created} of account {account} was deleted while it was made", isTransient: true);
    }

    /// <summary>
    /// Does something with the account's customer. One that was deleted over there without our hearing of it is forgotten, and it is done again
    /// with the next.
    /// </summary>
    internal async Task<T> WithAsync<T>(AccountId account, Func<CustomerId, Task<T>> work, CancellationToken cancellation)
    {
        var customer = await OpenAsync(account, cancellation);
        try
        {
            return await work(customer);
        }
        catch (CustomerGoneException)
        {
            await ForgetAsync(customer, null, cancellation);
            return await work(await OpenAsync(account, cancellation));
        }
    }

    /// <summary>Its cards went with it. Payments of a customer that is gone are still credited: its row stays.</summary>
    /// <param name="told">Recorded in the same SQL transaction; null when no event told.</param>
    internal async Task ForgetAsync(CustomerId customer, PaymentEvent? told, CancellationToken cancellation)
    {
        var account = await FindAccountAsync(customer, cancellation);
        await Transact.RunAsync(dataSource, async connection =>
        {
            await using var batch = new NpgsqlBatch(connection);
            var now = time.GetUtcNow().ToLedgerTime();
            if (account is { } owner)
            {
                batch.BatchCommands.Add(Transact.Command(PaymentMethods.LockAccount, Transact.Value(owner.Value)));
                batch.BatchCommands.Add(Transact.Command(
                    "update payment_method set detached_at = greatest($3, attached_at), is_default = false where account = $1 and provider = $2 and detached_at is null "
                        + "and exists (select from payment_customer c where c.provider = $2 and c.customer_id = $4 and c.deleted_at is null)",
                    Transact.Value(owner.Value), Transact.Value(provider.Name), Transact.Value(now), Transact.Value(customer.Value)));
            }

            batch.BatchCommands.Add(Transact.Command(
                "update payment_customer set deleted_at = $3 where provider = $1 and customer_id = $2 and deleted_at is null",
                Transact.Value(provider.Name), Transact.Value(customer.Value), Transact.Value(now)));
            if (told is not null) batch.BatchCommands.Add(told.Record(PaymentEffect.CustomerDeleted, time));
            return await batch.ExecuteNonQueryAsync(cancellation);
        }, cancellation);
        if (account is { } whose) hints.Tell(whose);
    }

    /// <summary>Null when none was made yet.</summary>
    public Task<CustomerId?> FindAsync(AccountId account, CancellationToken cancellation)
        => Transact.UseAsync<CustomerId?>(dataSource, async connection =>
        {
            await using var find = new NpgsqlCommand($"select customer_id from payment_customer where {Current}", connection);
            find.Parameters.Add(Transact.Value(account.Value));
            find.Parameters.Add(Transact.Value(provider.Name));
            return await find.ExecuteScalarAsync(cancellation) is string id ? new CustomerId(id) : null;
        }, cancellation);

    /// <summary>Whose customer it is or was; null when it is none of ours.</summary>
    public Task<AccountId?> FindAccountAsync(CustomerId customer, CancellationToken cancellation)
        => Transact.UseAsync<AccountId?>(dataSource, async connection =>
        {
            await using var find = new NpgsqlCommand(
                "select account from payment_customer where provider = $1 and customer_id = $2", connection);
            find.Parameters.Add(Transact.Value(provider.Name));
            find.Parameters.Add(Transact.Value(customer.Value));
            return await find.ExecuteScalarAsync(cancellation) is string id ? new AccountId(id) : null;
        }, cancellation);
}
