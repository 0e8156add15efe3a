using Npgsql;

namespace Tensormesh.Billing;

/// <summary>Accounts as the ledger knows them, their policies and their standings.</summary>
public sealed class Accounts(NpgsqlDataSource dataSource)
{
    private readonly NpgsqlDataSource dataSource = dataSource;

    /// <summary>Opens the account if new, and records its policy. Called for every BillingAccount; idempotent.</summary>
    public Task DeclareAsync(AccountId account, AccountPolicy policy, CancellationToken cancellation) => throw new NotImplementedException();

    /// <summary>One round trip. Null when the ledger knows no such account.</summary>
    public Task<Standing?> ReadStandingAsync(AccountId account, CancellationToken cancellation) => throw new NotImplementedException();

    /// <summary>One round trip. Null when the ledger knows no such account.</summary>
    public Task<DeploymentStanding?> ReadStandingAsync(AccountId account, DeploymentId deployment, CancellationToken cancellation) => throw new NotImplementedException();

    public Task<IReadOnlyList<AccountId>> ListAsync(CancellationToken cancellation) => throw new NotImplementedException();
}
