using Npgsql;

namespace Tensormesh.Billing;

/// <summary>Places and releases holds, each under the account's row lock, so that two starts never claim the same money.</summary>
public sealed class Holds(NpgsqlDataSource dataSource, OperatorEpoch? epoch = null)
{
    private readonly NpgsqlDataSource dataSource = dataSource;
    private readonly OperatorEpoch? epoch = epoch;
    private readonly StandingHints hints = StandingHints.Of(dataSource);

    /// <summary>
    /// Evaluates the start rule on the standing as locked and, when it admits, sets the hold to cover the request. A hold that already
    /// covers as many GPUs is left as it is; a larger request takes a hold for the difference. A smaller request shrinks it, and is asked the stop
    /// rule only: it starts nothing. Idempotent.
    /// </summary>
    /// <param name="quietly">True tells of the changed standing only when money was given back: less for the others lets none of them
    /// start.</param>
    /// <returns>The verdict of the gate under the lock; on Admit the hold is in place.</returns>
    public async Task<Verdict> PlaceAsync(
        LaunchRequest request, CreditPolicy policy, DateTimeOffset now, CancellationToken cancellation, bool quietly = false)
    {
        var at = now.ToLedgerTime();
        if (request.Account is not { } account) return BillingGate.EvaluateStart(request, null, policy, at);
        var (placed, gaveBack) = await Transact.RunAsync(dataSource, async connection =>
        {
            var standing = await LockAndReadAsync(connection, account, request.Deployment, cancellation);
            // Less than what is held asks for nothing: a card or a price that went keeps nobody from wanting less.
            var verdict = standing?.Hold is { } held && held.Product == request.Product && request.Gpus < held.Gpus
                ? BillingGate.EvaluateRunning(request, standing, policy, at)
                : BillingGate.EvaluateStart(request, standing, policy, at);
            if (verdict is not Verdict.Admit) return (verdict, false);
            var hold = HoldFor(request, standing!, policy, at);
            await SetAsync(connection, hold, cancellation);
            return (verdict, standing!.Hold is { } before && hold.Remaining < before.Remaining);
        }, cancellation);
        if (placed is Verdict.Admit && (gaveBack || !quietly)) hints.Tell(account);
        return placed;
    }

    /// <summary>Gives back what is left. Idempotent. Does not stop charging of pods that still run.</summary>
    public async Task ReleaseAsync(DeploymentId deployment, CancellationToken cancellation)
    {
        var account = await Transact.UseAsync(dataSource, async connection =>
        {
            await using var batch = new NpgsqlBatch(connection);
            batch.BatchCommands.Add(Transact.Command("delete from credit_hold where deployment = $1 returning account", Transact.Value(deployment.Value)));
            if (epoch is not null) batch.BatchCommands.Add(epoch.Check());
            await using var reader = await batch.ExecuteReaderAsync(cancellation);
            var of = await reader.ReadAsync(cancellation) ? reader.GetString(0) : null;
            // An epoch that is over is the next statement's error, which is met only when that is read.
            await reader.NextResultAsync(cancellation);
            return of;
        }, cancellation);
        if (account is not null) hints.Tell([account]);
    }

    /// <summary>How many holds were placed before an instant and are of deployments that have nothing open: what they were placed for never began, or is over.</summary>
    public Task<long> CountIdleAsync(DateTimeOffset placedBefore, CancellationToken cancellation) => Transact.UseAsync(dataSource, async connection =>
    {
        await using var command = new NpgsqlCommand(
            """
            select count(*) from credit_hold h where placed_at < $1
            and not exists (select from run_interval r where r.deployment = h.deployment and r.ended_at is null)
            """, connection)
        {
            Parameters = { Transact.Value(placedBefore.ToLedgerTime()) },
        };
        return (long)(await command.ExecuteScalarAsync(cancellation))!;
    }, cancellation);

    /// <summary>The hold that an admitted request ends with.</summary>
    internal static CreditHold HoldFor(LaunchRequest request, DeploymentStanding standing, CreditPolicy policy, DateTimeOffset now)
    {
        var full = BillingGate.HoldAmount(request.PerGpuHour ?? Money.Zero, request.Gpus, policy);
        var product = request.Product ?? standing.Hold?.Product ?? new GpuProduct("");
        var placed = new CreditHold(
            request.Deployment, standing.Account.Account, product, request.Gpus, request.PerGpuHour ?? Money.Zero,
            full + standing.Account.Accrued(request.Deployment, now), now);
        if (standing.Hold is not { } hold || (hold.Product != product && request.Gpus > 0)) return placed;

        placed = placed with { PlacedAt = hold.PlacedAt, PerGpuHour = hold.PerGpuHour };
        return request.Gpus.CompareTo(hold.Gpus) switch
        {
            > 0 => placed with
            {
                PerGpuHour = request.PerGpuHour ?? Money.Zero,
                Remaining = hold.Remaining + BillingGate.HoldAmount(request.PerGpuHour ?? Money.Zero, request.Gpus - hold.Gpus, policy),
            },
            < 0 => placed with { Remaining = Money.Min(hold.Remaining, BillingGate.HoldAmount(hold.PerGpuHour, request.Gpus, policy)) },
            _ => hold,
        };
    }

    private async Task<DeploymentStanding?> LockAndReadAsync(
        NpgsqlConnection connection, AccountId account, DeploymentId deployment, CancellationToken cancellation)
    {
        await using var batch = new NpgsqlBatch(connection)
        {
            BatchCommands = { Ledger.LockCommand([Movements.Customer(account)], epoch), StandingReader.Command(account, deployment) },
        };
        await using var reader = await batch.ExecuteReaderAsync(cancellation);
        await reader.NextResultAsync(cancellation);
        return await StandingReader.ReadAsync(reader, account, deployment, cancellation);
    }

    private static async Task SetAsync(NpgsqlConnection connection, CreditHold hold, CancellationToken cancellation)
    {
        await using var batch = new NpgsqlBatch(connection)
        {
            BatchCommands =
            {
                Transact.Command(
                    SqlText.PlaceHold,
                    Transact.Value(hold.Deployment.Value), Transact.Value(hold.Account.Value), Transact.Value(hold.Product.Name),
                    Transact.Value(hold.Gpus),
                    Transact.Value(hold.PerGpuHour.Nanos), Transact.Value(hold.Remaining.Nanos), Transact.Value(hold.PlacedAt)),
            },
        };
        await batch.ExecuteNonQueryAsync(cancellation);
    }
}
