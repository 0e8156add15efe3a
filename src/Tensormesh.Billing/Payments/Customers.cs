using Npgsql;

namespace Tensormesh.Billing;

/// <summary>Which customer of the payment company is which account: one at a time, made when it is first needed.</summary>
public sealed class Customers(NpgsqlDataSource dataSource, IPaymentProvider provider, TimeProvider time)
{
    private const string Current = "account = $1 and provider = $2 and deleted_at is null";

    private readonly NpgsqlDataSource dataSource = dataSource;
    private readonly IPaymentProvider provider = provider;
    private readonly TimeProvider time = time;

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
