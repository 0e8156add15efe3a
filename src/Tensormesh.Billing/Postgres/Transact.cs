using System.Data;
using Npgsql;

namespace Tensormesh.Billing;

/// <summary>The one way to a connection, and to a SQL transaction that is run again when Postgres rolled it back for the sake of another.</summary>
internal static class Transact
{
    private const int Attempts = 5;

    public static Task<T> RunAsync<T>(NpgsqlDataSource dataSource, Func<NpgsqlConnection, Task<T>> work, CancellationToken cancellation)
        => RetryAsync(() => UseAsync(dataSource, async connection =>
        {
            await using var transaction = await connection.BeginTransactionAsync(cancellation);
            var result = await work(connection);
            await transaction.CommitAsync(cancellation);
            return result;
        }, cancellation));

    /// <summary>
    /// Lends a connection of the pool. After a failure it forgets the statements that it had prepared: one that the server could read, and
    /// then not its values (or that was cancelled between the two), Npgsql 10.0.3 keeps as a statement without an answer, and breaks at the
    /// next answer to it. Nothing else may take a connection of the ledger's pool.
    /// </summary>
    /// <exception cref="LedgerPoolerException">A pooler mistook a prepared statement.</exception>
    public static async Task<T> UseAsync<T>(NpgsqlDataSource dataSource, Func<NpgsqlConnection, Task<T>> work, CancellationToken cancellation)
    {
        await using var connection = await dataSource.OpenConnectionAsync(cancellation);
        try
        {
            return await work(connection);
        }
        catch (Exception failure) when (failure is NpgsqlException or OperationCanceledException)
        {
            ForgetStatements(connection);
            if (Poolers.Explain(failure) is { } explained) throw explained;
            throw;
        }
    }

    private static void ForgetStatements(NpgsqlConnection connection)
    {
        if (connection.State != ConnectionState.Open) return;
        try
        {
            connection.UnprepareAll();
        }
        catch (NpgsqlException)
        {
            // It was lost, and its statements with it.
        }
    }

    /// <summary>Runs again what a deadlock ended. Nothing was written, so the whole of it is done again.</summary>
    public static async Task<T> RetryAsync<T>(Func<Task<T>> work)
    {
        for (var attempt = 1; ; attempt++)
        {
            try
            {
                return await work();
            }
            catch (PostgresException error) when (attempt < Attempts && SqlStates.IsRetryable(error.SqlState))
            {
            }
        }
    }

    /// <summary>A command of a batch, with positional parameters.</summary>
    public static NpgsqlBatchCommand Command(string sql, params NpgsqlParameter[] parameters)
    {
        var command = new NpgsqlBatchCommand(sql);
        foreach (var parameter in parameters) command.Parameters.Add(parameter);
        return command;
    }

    public static NpgsqlParameter Value<T>(T value) => new NpgsqlParameter<T> { TypedValue = value };

    /// <summary>A parameter that may be null, which needs its type said.</summary>
    public static NpgsqlParameter Value(object? value, NpgsqlTypes.NpgsqlDbType type)
        => new() { Value = value ?? DBNull.Value, NpgsqlDbType = type };
}
