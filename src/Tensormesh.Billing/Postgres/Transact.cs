using Npgsql;

namespace Tensormesh.Billing;

/// <summary>Runs work in one SQL transaction, and again when Postgres rolled it back for the sake of another.</summary>
internal static class Transact
{
    private const int Attempts = 5;

    public static Task<T> RunAsync<T>(NpgsqlDataSource dataSource, Func<NpgsqlConnection, Task<T>> work, CancellationToken cancellation)
        => RetryAsync(async () =>
        {
            await using var connection = await dataSource.OpenConnectionAsync(cancellation);
            await using var transaction = await connection.BeginTransactionAsync(cancellation);
            var result = await work(connection);
            await transaction.CommitAsync(cancellation);
            return result;
        });

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
