using Npgsql;

namespace Tensormesh.Billing;

/// <summary>Runs work in one SQL transaction, and again when Postgres rolled it back for the sake of another.</summary>
internal static class Transact
{
    private const int Attempts = 5;

    public static async Task<T> RunAsync<T>(NpgsqlDataSource dataSource, Func<NpgsqlConnection, Task<T>> work, CancellationToken cancellation)
    {
        for (var attempt = 1; ; attempt++)
        {
            try
            {
                await using var connection = await dataSource.OpenConnectionAsync(cancellation);
                await using var transaction = await connection.BeginTransactionAsync(cancellation);
                var result = await work(connection);
                await transaction.CommitAsync(cancellation);
                return result;
            }
            catch (PostgresException error) when (attempt < Attempts && SqlStates.IsRetryable(error.SqlState))
            {
                // A deadlock's victim. Nothing was written, so the whole of it is done again.
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
    public static NpgsqlParameter Value(object? value, NpgsqlTypes.NpgsqlDbType type) => new() { Value = value ?? DBNull.Value, NpgsqlDbType = type };
}
