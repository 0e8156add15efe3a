using Npgsql;

namespace Tensormesh.Billing;

/// <summary>How far a proof is.</summary>
/// <param name="Whole">This step came to the newest transaction: every balance was compared.</param>
public sealed record ProofStep(bool Whole, long Position, LedgerDifference? Difference);

/// <summary>
/// The same proof in small steps, for a process that goes on: each step walks the seals that came since, and a few of the oldest again, so
/// that a change of what was proven before is found too. Runs are compared by <see cref="LedgerVerifier"/> only. Not for two threads.
/// </summary>
public sealed class LedgerProof(NpgsqlDataSource dataSource)
{
    private const int SealsAtOnce = 20;
    /// <summary>Of a step. Where little is posted a seal is small, and there are many of them.</summary>
    private const int MaxTransactions = 20_000;
    private const int MaxSeals = 1_000;
    /// <summary>Steps are this much shorter where they walk what was walked before.</summary>
    private const int Again = 4;

    private readonly NpgsqlDataSource dataSource = dataSource;
    private ChainWalk newest = new();
    private ChainWalk again = new();

    /// <summary>After a difference the next step begins from the first transaction. After an exception it goes on.</summary>
    public Task<ProofStep> StepAsync(CancellationToken cancellation) => Transact.UseAsync(dataSource, async connection =>
    {
        await using var snapshot = await LedgerVerifier.OpenSnapshotAsync(connection, cancellation);
        var accounts = await LedgerAccounts.ReadAsync(connection, null, cancellation);
        var (difference, whole) = await WalkAsync(newest, 1);
        if (difference is null && whole) difference = await newest.RestAsync(connection, accounts, cancellation);
        var position = newest.Position;
        var ended = false;
        if (difference is null) (difference, ended) = await WalkAsync(again, Again);
        if (ended || difference is not null) again = new();
        if (difference is not null) newest = new();
        return new ProofStep(whole && difference is null, position, difference);

        async Task<(LedgerDifference? Difference, bool AtEnd)> WalkAsync(ChainWalk walk, int part)
        {
            var (seals, transactions) = (walk.Seals + MaxSeals / part, walk.Sealed + MaxTransactions / part);
            while (walk.Seals < seals && walk.Sealed < transactions)
            {
                if (await walk.SealsAsync(connection, accounts, SealsAtOnce, cancellation) is { } end && (end.Difference is not null || end.AtEnd)) return end;
            }

            return (null, false);
        }
    }, cancellation);
}
