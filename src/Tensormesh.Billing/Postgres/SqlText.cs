using System.Reflection;

namespace Tensormesh.Billing;

/// <summary>The embedded files of Postgres/Sql and Postgres/Migrations.</summary>
internal static class SqlText
{
    public static readonly string ReadStanding = Read("Sql/read_standing.sql");
    public static readonly string ReadRuns = Read("Sql/read_runs.sql");
    public static readonly string WriteRuns = Read("Sql/write_runs.sql");
    public static readonly string RecordGpus = Read("Sql/record_gpus.sql");
    public static readonly string FindFaultedRuns = Read("Sql/find_faulted_runs.sql");
    public static readonly string InsertRun = Read("Sql/insert_run.sql");
    public static readonly string DrawHolds = Read("Sql/draw_holds.sql");
    public static readonly string PlaceHold = Read("Sql/place_hold.sql");
    public static readonly string DeclareAccount = Read("Sql/declare_account.sql");
    public static readonly string CurrentPrices = Read("Sql/current_prices.sql");
    public static readonly string ListTransactions = Read("Sql/list_transactions.sql");
    public static readonly string ReadTransaction = Read("Sql/read_transaction.sql");
    public static readonly string ListCreditPostings = Read("Sql/list_credit_postings.sql");
    public static readonly string FindDueGrants = Read("Sql/find_due_grants.sql");
    public static readonly string ListRunsWithCharges = Read("Sql/list_runs_with_charges.sql");
    public static readonly string SpendingSummary = Read("Sql/spending_summary.sql");
    public static readonly string SpendingCalendar = Read("Sql/spending_calendar.sql");
    public static readonly string SumStatement = Read("Sql/sum_statement.sql");
    public static readonly string InsertStatement = Read("Sql/insert_statement.sql");
    public static readonly string ListAuditEvents = Read("Sql/list_audit_events.sql");
    public static readonly string ListRuns = Read("Sql/list_runs.sql");
    public static readonly string ListAccounts = Read("Sql/list_accounts.sql");
    public static readonly string ListStatements = Read("Sql/list_statements.sql");
    public static readonly string ExportTransactions = Read("Sql/export_transactions.sql");
    public static readonly string ExportFocus = Read("Sql/export_focus.sql");
    public static readonly string CompareSpending = Read("Sql/compare_spending.sql");
    public static readonly string SpendingHistory = Read("Sql/spending_history.sql");
    public static readonly string AttachPaymentMethod = Read("Sql/attach_payment_method.sql");
    public static readonly string DetachPaymentMethod = Read("Sql/detach_payment_method.sql");
    public static readonly string RefuseTopUp = Read("Sql/refuse_top_up.sql");
    public static readonly string FindLowBalances = Read("Sql/find_low_balances.sql");
    public static readonly string ReadAutoTopUp = Read("Sql/read_auto_top_up.sql");

    public static readonly string LockTokens = Read("Sql/lock_tokens.sql");
    public static readonly string ReadUnsettledTokens = Read("Sql/read_unsettled_tokens.sql");
    public static readonly string SettleTokens = Read("Sql/settle_tokens.sql");
    public static readonly string AddToServerlessMonth = Read("Sql/add_to_serverless_month.sql");
    public static readonly string ServerlessUsage = Read("Sql/serverless_usage.sql");
    public static readonly string CompareTokens = Read("Sql/compare_tokens.sql");
    public static readonly string CurrentTokenPrices = Read("Sql/current_token_prices.sql");

    public static string Read(string name)
    {
        using var stream = Assembly.GetExecutingAssembly().GetManifestResourceStream(name)
            ?? throw new InvalidOperationException($"the assembly embeds no {name}");
        using var reader = new StreamReader(stream);
        return reader.ReadToEnd();
    }

    /// <summary>Names of the migrations in the order of their numbers.</summary>
    public static IReadOnlyList<string> Migrations { get; } = [.. Assembly.GetExecutingAssembly().GetManifestResourceNames()
        .Where(name => name.StartsWith("Migrations/", StringComparison.Ordinal)).Order(StringComparer.Ordinal)];
}
