using System.Text.RegularExpressions;
using Tensormesh.Billing;

namespace Tensormesh.Web;

/// <summary>Reads accounts for the routes.</summary>
internal sealed partial class AccountLookup(Accounts accounts, Spending spending, TimeProvider time)
{
    private readonly Accounts accounts = accounts;
    private readonly Spending spending = spending;
    private readonly TimeProvider time = time;

    /// <summary>Null when the ledger knows no such account. A name that no BillingAccount can have never reaches the database.</summary>
    public Task<Standing?> FindAsync(AccountId account, CancellationToken cancellation) =>
        AccountName().IsMatch(account.Value) ? accounts.ReadStandingAsync(account, cancellation) : Task.FromResult<Standing?>(null);

    /// <summary>Null when the ledger knows no such account.</summary>
    public Task<SpendingSummary?> FindSpendingAsync(AccountId account, CancellationToken cancellation) =>
        AccountName().IsMatch(account.Value)
        ? spending.SummaryAsync(account, time.GetUtcNow(), cancellation)
        : Task.FromResult<SpendingSummary?>(null);

    /// <summary>Null when the ledger knows no such account.</summary>
    public Task<AccountOverview?> FindOverviewAsync(AccountId account, CancellationToken cancellation) =>
        AccountName().IsMatch(account.Value)
        ? spending.OverviewAsync(account, time.GetUtcNow(), cancellation)
        : Task.FromResult<AccountOverview?>(null);

    /// <summary>Null when the ledger knows no such account.</summary>
    public Task<IReadOnlyList<SpendingDay>?> FindHistoryAsync(AccountId account, int days, CancellationToken cancellation) =>
        AccountName().IsMatch(account.Value)
        ? spending.HistoryAsync(account, time.GetUtcNow(), days, cancellation)
        : Task.FromResult<IReadOnlyList<SpendingDay>?>(null);

    /// <inheritdoc cref="Standing.Remaining"/>
    public Money BalanceOf(Standing standing) => standing.Remaining(time.GetUtcNow());

    /// <summary>Whether a BillingAccount can have this name.</summary>
    public static bool IsName(string name) => AccountName().IsMatch(name);

    /// <summary>A Kubernetes object name: the name of a BillingAccount.</summary>
    [GeneratedRegex(@"\A[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?\z", RegexOptions.CultureInvariant)]
    private static partial Regex AccountName();
}
