using System.Net.Sockets;
using Npgsql;

namespace Tensormesh.Billing;

/// <summary>The SQLSTATEs that this project raises (class TM) or reads, by name: the one place that classifies an error.</summary>
internal static class SqlStates
{
    public const string KeyReusedWithOtherContent = "TM001";
    public const string AccountUnknown = "TM002";
    public const string CurrencyMismatch = "TM003";
    public const string NotBalanced = "TM004";
    public const string AmountOverflow = "TM005";
    public const string InsufficientBalance = "TM006";
    public const string AppendOnly = "TM007";
    public const string EpochIsOver = "TM008";
    public const string CorrectionUnsound = "TM010";
    /// <summary>Postgres' own, which Npgsql has no name for: whoever was paused within a transaction finds it ended.</summary>
    public const string IdleInTransactionTimeout = "25P03";

    /// <summary>The refusal that an error of post_transaction stands for; null when it is not one.</summary>
    public static LedgerRefusal? Refusal(string sqlState) => sqlState switch
    {
        KeyReusedWithOtherContent => LedgerRefusal.KeyReusedWithOtherContent,
        AccountUnknown => LedgerRefusal.AccountUnknown,
        CurrencyMismatch => LedgerRefusal.CurrencyMismatch,
        NotBalanced => LedgerRefusal.NotBalanced,
        AmountOverflow => LedgerRefusal.AmountOverflow,
        InsufficientBalance => LedgerRefusal.InsufficientBalance,
        CorrectionUnsound => LedgerRefusal.CorrectionUnsound,
        _ => null,
    };

    /// <summary>The transaction was rolled back for the sake of another, and may succeed when it is run again.</summary>
    public static bool IsRetryable(string sqlState)
        => sqlState is PostgresErrorCodes.DeadlockDetected or PostgresErrorCodes.SerializationFailure;

    /// <summary>
    /// The session does not have the prepared statement, or has another of its name. The last is told by words alone: its state stands for
    /// whatever a pooler itself cannot do, such as reaching the server.
    /// </summary>
    public static bool IsMistakenStatement(string sqlState, string message)
        => sqlState is PostgresErrorCodes.InvalidSqlStatementName or PostgresErrorCodes.DuplicatePreparedStatement
            || (sqlState == PostgresErrorCodes.ProtocolViolation && message.Contains("prepared statement", StringComparison.Ordinal));

    /// <summary>The server cannot serve now: connection exceptions, resources, shutdown, a standby after a failover, a timeout.</summary>
    public static bool IsUnavailable(string sqlState) => IsRetryable(sqlState)
        || sqlState.StartsWith("08", StringComparison.Ordinal)
        || sqlState.StartsWith("53", StringComparison.Ordinal)
        || sqlState.StartsWith("57", StringComparison.Ordinal)
        || sqlState is PostgresErrorCodes.ReadOnlySqlTransaction or PostgresErrorCodes.LockNotAvailable
            or IdleInTransactionTimeout;
}

/// <summary>Answers the one question that a caller has about a failure: could the ledger not be reached?</summary>
public static class LedgerAvailability
{
    /// <summary>
    /// True for what the caller answers with <see cref="Verdict.Hold"/>: connection refused or lost, timeouts, an exhausted pool, a server
    /// that
    /// starts, stops or is read-only. False for everything else: a bug must not look like an outage.
    /// </summary>
    public static bool IsUnavailable(Exception exception) => exception switch
    {
        PostgresException error => SqlStates.IsUnavailable(error.SqlState),
        // It is there, and waiting for it would help nobody.
        LedgerPoolerException => false,
        NpgsqlException error => error.IsTransient || error.InnerException is null or SocketException or IOException or TimeoutException,
        TimeoutException or SocketException or EpochNotTakenException => true,
        AggregateException errors => errors.InnerExceptions.All(IsUnavailable),
        _ => false,
    };
}
