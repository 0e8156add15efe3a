using Tensormesh.Billing;

namespace Tensormesh.Web;

/// <summary>
/// One line for each movement of money that this API began. The ledger is the record; these lines say which request made which of its
/// rows.
/// </summary>
internal sealed partial class MoneyLog(ILogger<MoneyLog> logger)
{
    private readonly ILogger<MoneyLog> logger = logger;

    [LoggerMessage(Level = LogLevel.Information, Message = "Credit of {Amount} for {Account} by {By}: transaction {Transaction}")]
    public partial void Granted(Money amount, AccountId account, string by, string transaction);

    [LoggerMessage(Level = LogLevel.Information, Message = "Adjustment of {Amount} for {Account} by {By}: transaction {Transaction}")]
    public partial void Adjusted(Money amount, AccountId account, string by, string transaction);

    [LoggerMessage(Level = LogLevel.Information, Message = "{Reversed} of {Account} reversed by {By}: transaction {Transaction}")]
    public partial void Reversed(string reversed, AccountId account, string by, string transaction);

    [LoggerMessage(Level = LogLevel.Information,
        Message = "Top-up of {Amount} for {Account}: transaction {Transaction}, payment {Payment}")]
    public partial void ToppedUp(Money amount, AccountId account, string transaction, string payment);

    [LoggerMessage(Level = LogLevel.Information, Message = "Payment for {Account} declined: {Code}")]
    public partial void Declined(AccountId account, string code);

    [LoggerMessage(Level = LogLevel.Information, Message = "Automatic top-up of {Amount} below {Threshold} for {Account} saved by {By}")]
    public partial void AutoTopUpSaved(AccountId account, Money amount, Money threshold, string by);

    [LoggerMessage(Level = LogLevel.Information, Message = "Automatic top-up for {Account} turned off by {By}")]
    public partial void AutoTopUpRemoved(AccountId account, string by);

    [LoggerMessage(Level = LogLevel.Warning, Message = "Payment for {Account} is in doubt until it is asked for again: {Reason}")]
    public partial void InDoubt(AccountId account, string reason);
}
