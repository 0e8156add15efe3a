using Npgsql;

namespace Tensormesh.Billing;

/// <summary>A pooler stands before the ledger's database, and statements are prepared through it that it does not keep apart.</summary>
public sealed class LedgerPoolerException(string message, Exception? cause = null) : NpgsqlException(message, cause);

/// <summary>
/// A pooler in transaction mode gives each transaction any session that is free. Every connection of the driver numbers its prepared
/// statements from one, so that behind such a pooler a number may name no statement, or that of another: the first fails, and the second
/// may run what nobody asked for. PgBouncer gives statements names of its own from 1.21 on.
/// </summary>
internal static class Poolers
{
    private const string AskForPid = "select pg_backend_pid()";

    /// <summary>For connections whose string leaves open whether to prepare: a pooler shows by giving out a process id of its own.</summary>
    /// <exception cref="LedgerPoolerException">There is one.</exception>
    public static async Task RefuseAsync(NpgsqlConnection connection)
    {
        await using var command = new NpgsqlCommand(AskForPid, connection);
        Refuse(connection, await command.ExecuteScalarAsync());
    }

    /// <inheritdoc cref="RefuseAsync"/>
    public static void Refuse(NpgsqlConnection connection)
    {
        using var command = new NpgsqlCommand(AskForPid, connection);
        Refuse(connection, command.ExecuteScalar());
    }

    /// <summary>What to throw instead of a failure; null where no prepared statement was mistaken.</summary>
    public static LedgerPoolerException? Explain(Exception failure)
        => failure is PostgresException error && SqlStates.IsMistakenStatement(error.SqlState, error.MessageText)
            ? new LedgerPoolerException(
                $"A pooler between this program and Postgres mistook a prepared statement ({error.MessageText}), and nothing was written. Add "
                + "'Max Auto Prepare=0' to the connection string, or set the pooler to session mode, or use PgBouncer 1.21 or newer with "
                + "max_prepared_statements above 0.", error)
            : null;

    private static void Refuse(NpgsqlConnection connection, object? pid)
    {
        if (connection.ProcessID.Equals(pid)) return;
        throw new LedgerPoolerException(
            "A pooler stands between this program and Postgres, and the connection string does not say whether to prepare statements "
            + "through it. Add 'Max Auto Prepare=0' to it where the pooler is in transaction mode; 'Max Auto Prepare=64' where it is in session mode, "
            + "or is PgBouncer 1.21 or newer with max_prepared_statements above 0.");
    }
}
