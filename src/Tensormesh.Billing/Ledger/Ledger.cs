using Npgsql;

namespace Tensormesh.Billing;

/// <summary>The double-entry ledger: append only, exact, idempotent by key.</summary>
public sealed class Ledger(NpgsqlDataSource dataSource)
{
    private readonly NpgsqlDataSource dataSource = dataSource;

    public Task<PostResult> PostAsync(Movement movement, CancellationToken cancellation) => throw new NotImplementedException();
}
