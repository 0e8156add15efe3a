namespace Tensormesh.Integration.Tests.Billing;

/// <summary>Everything that the database knows of money and usage, as text: two dumps are equal when nothing was written in between.</summary>
internal static class Books
{
    public static readonly string[] Tables =
    [
        "account", "ledger_account", "ledger_transaction", "ledger_balance", "price_version", "run_interval",
        "run_interval_rating", "run_interval_gpus", "gpu_holder",
        "credit_hold", "suspension", "expired_grant", "ledger_seal", "payment_method", "top_up",
        "usage_event", "token_balance", "token_meter", "token_bucket", "serverless_month", "serverless_month_model",
    ];

    public static string Dump { get; } = "select " + string.Join(" || ", Tables.Select(table =>
        $"E'\\n{table}\\n' || coalesce((select string_agg(t::text, E'\\n' order by t::text) from {table} t{Moving(table)}), '')"));

    /// <summary>
    /// A row of zero in ledger_balance is no more than a place to lock, which may be made and stay. So is an attempt to top up that is only
    /// begun: it is written before the card is charged, and is how the same key finds the charge.
    /// </summary>
    private static string Moving(string table) => table switch
    {
        "ledger_balance" => " where amount_nanos <> 0",
        "top_up" => " where state <> 'started'",
        _ => "",
    };
}
