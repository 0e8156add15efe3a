using Npgsql;
using Tensormesh.Billing;

namespace Tensormesh.Operator.Proving;

/// <summary>
/// <c>tensormesh-operator ledger verify</c>: proves the whole ledger from what is stored, and writes nothing. It needs the connection string
/// (<c>ConnectionStrings__Billing</c>) and nothing else, and may run beside the operator or on a restored backup.
/// </summary>
internal static class LedgerCommand
{
    public const string Name = "ledger";

    private const int Sound = 0;
    private const int Unsound = 1;
    private const int Usage = 2;
    private const int Unreachable = 3;

    /// <returns>The exit code: 0 sound, 1 a difference, 2 wrongly called, 3 the database cannot be reached.</returns>
    public static async Task<int> RunAsync(
        string[] args, string? connection, TextWriter output, TextWriter error, CancellationToken cancellation)
    {
        if (args is not [Name, "verify"])
        {
            await error.WriteLineAsync("usage: tensormesh-operator ledger verify").ConfigureAwait(false);
            return Usage;
        }

        if (Open(connection) is not { } opened)
        {
            await error.WriteLineAsync("tensormesh-operator: ConnectionStrings__Billing does not name the ledger's Postgres database").ConfigureAwait(false);
            return Usage;
        }

        await using var dataSource = opened.ConfigureAwait(false);
        try
        {
            // A database that no operator of this version has migrated has no seals to look at.
            var missing = await Migrator.MissingAsync(opened, cancellation).ConfigureAwait(false);
            if (missing is not null)
            {
                await error.WriteLineAsync($"tensormesh-operator: this database is older than this program: it lacks {missing}. Start the operator on it once").ConfigureAwait(false);
                return Usage;
            }

            var report = await new LedgerVerifier(opened).VerifyAsync(output.WriteLine, cancellation).ConfigureAwait(false);
            return await TellAsync(report, output).ConfigureAwait(false);
        }
        catch (Exception away) when (LedgerAvailability.IsUnavailable(away) || away is PostgresException { SqlState: { } state } && IsDenied(state))
        {
            await error.WriteLineAsync($"tensormesh-operator: the ledger cannot be reached: {away.Message}").ConfigureAwait(false);
            return Unreachable;
        }
    }

    private static async Task<int> TellAsync(VerifyReport report, TextWriter output)
    {
        if (report.Difference is { } difference)
        {
            await output.WriteLineAsync($"NOT SOUND. The first difference: {difference}").ConfigureAwait(false);
            return Unsound;
        }

        await output.WriteLineAsync(
            $"Sound: {report.Transactions} transactions, {report.Seals} seals up to position {report.SealedPosition} ({report.Unsealed} transactions are not sealed yet), "
            + $"{report.Accounts} ledger accounts, {report.Runs} runs.").ConfigureAwait(false);
        return Sound;
    }

    /// <summary>No such database, no such user, a wrong password.</summary>
    private static bool IsDenied(string state) => state.StartsWith("28", StringComparison.Ordinal) || state == PostgresErrorCodes.InvalidCatalogName;

    private static NpgsqlDataSource? Open(string? connection)
    {
        if (string.IsNullOrWhiteSpace(connection)) return null;
        try
        {
            return BillingServices.OpenDataSource(connection);
        }
        catch (ArgumentException)
        {
            return null;
        }
    }
}
