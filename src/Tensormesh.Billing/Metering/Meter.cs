using Npgsql;

namespace Tensormesh.Billing;

/// <summary>What one settlement did.</summary>
/// <param name="Windows">Of GPU time, each a transaction.</param>
public sealed record Settlement(int Windows, Money Charged)
{
    public static readonly Settlement Nothing = new(0, Money.Zero);

    /// <summary>Whose GPU time was charged.</summary>
    public IReadOnlyCollection<(DeploymentId Deployment, string Namespace, string Name)> Deployments { get; init; } = [];

    /// <summary>Charged for serverless tokens.</summary>
    public Money Tokens { get; init; }

    public int TokenTransactions { get; init; }

    /// <summary>When the oldest of the tokens were used.</summary>
    public DateTimeOffset? OldestTokensAt { get; init; }

    /// <summary>Of the trace in which the last of the tokens were accepted.</summary>
    public string? Traceparent { get; init; }
}

/// <summary>What a suspension did.</summary>
/// <param name="At">The instant at which charging stopped.</param>
/// <param name="Uncollected">Cost between <paramref name="At"/> and the suspension that nobody pays: zero when it was in time.</param>
/// <param name="Deployments">The deployments that lost their hold.</param>
public sealed record Suspension(DateTimeOffset At, Money Uncollected, IReadOnlyList<DeploymentId> Deployments);

/// <summary>Usage since the watermark, rated, posted, and the watermark moved: one SQL transaction an account.</summary>
public sealed class Meter(NpgsqlDataSource dataSource, OperatorEpoch? epoch = null)
{
    private readonly NpgsqlDataSource dataSource = dataSource;
    private readonly StandingHints hints = StandingHints.Of(dataSource);
    private readonly OperatorEpoch? epoch = epoch;

    /// <summary>Posts every open interval of the account up to <paramref name="until"/> (never past its end, its charge-until or the
    /// balance), and the tokens that it used. Idempotent.</summary>
    /// <param name="tokensAfter">Tokens are left alone while the first of them were accepted less than this before <paramref name="until"/>.</param>
    public async Task<Settlement> SettleAsync(AccountId account, DateTimeOffset until, CancellationToken cancellation, TimeSpan tokensAfter = default)
    {
        var settled = await Transact.RunAsync(dataSource, async connection =>
        {
            if (await LockedAccount.LockAsync(connection, epoch, account, [], cancellation) is not { } locked) return Settlement.Nothing;
            locked.SettleAll(until.ToLedgerTime());
            if (locked.TokensUnsettledSince is { } since && since + tokensAfter <= until) await locked.SettleTokensAsync(cancellation);
            await locked.WriteAsync(cancellation);
            return locked.Settled;
        }, cancellation);
        BillingTrace.TellSettled(account, settled);
        return settled;
    }

    /// <summary>
    /// If the account is exhausted at <paramref name="now"/>: stops charging every open interval at the exact instant of exhaustion,
    /// settles to it, releases
    /// every hold, and writes off what ran later than the policy's tolerance. Null when the account is not exhausted. Idempotent.
    /// </summary>
    public async Task<Suspension?> SuspendIfExhaustedAsync(
        AccountId account, CreditPolicy policy, DateTimeOffset now, CancellationToken cancellation)
    {
        var (suspension, changed) = await Transact.RunAsync<(Suspension?, bool)>(dataSource, async connection =>
        {
            if (await LockedAccount.LockAsync(connection, epoch, account, [], cancellation) is not { } locked) return (null, false);
            var at = now.ToLedgerTime();
            if (locked.ExhaustsAt is { } exhausted)
            {
                if (exhausted > at) return (null, false);
                at = exhausted;
            }
            else if (locked.Funds > Money.Zero || locked.Holds.Values.All(price => price == Money.Zero))
            {
                return (null, false);
            }

            var result = locked.SuspendExhausted(at, now.ToLedgerTime(), policy);
            await locked.SettleTokensAsync(cancellation);
            await locked.WriteAsync(cancellation);
            return (result, locked.Suspended);
        }, cancellation);
        if (changed) hints.Tell(account);
        return suspension;
    }

    /// <summary>Stops charging one deployment at <paramref name="at"/>, settles to it and releases its hold (no card, budget spent, moved
    /// to another account). Idempotent.</summary>
    public Task<Suspension> SuspendAsync(DeploymentId deployment, DateTimeOffset at, CancellationToken cancellation)
        => SuspendAsync(deployment, at, "Suspended", new CreditPolicy(), at, cancellation);

    /// <summary>
    /// The same, with the reason for the record. What ran between <paramref name="at"/> and <paramref name="now"/> is written off when that
    /// is longer than the policy's
    /// tolerance. Charging never stops before what is settled, nor goes on past the end of the balance.
    /// </summary>
    public async Task<Suspension> SuspendAsync(
        DeploymentId deployment, DateTimeOffset at, string reason, CreditPolicy policy, DateTimeOffset now, CancellationToken cancellation)
    {
        var (suspension, changed) = await Transact.RunAsync(dataSource, async connection =>
        {
            var result = new Suspension(at.ToLedgerTime(), Money.Zero, []);
            var suspended = new List<string>();
            var accounts = await AccountsOfAsync(connection, deployment, cancellation);
            if (accounts.Count == 0) return (result, suspended);

            string[] all = ["expense:uncollected", "revenue:gpu", .. accounts.Select(Movements.Customer)];
            foreach (var account in accounts)
            {
                if (await LockedAccount.LockAsync(
                    connection, epoch, account, [], cancellation, accounts.Count > 1 ? all : null) is not { } locked) continue;
                var stop = locked.ExhaustsAt is { } exhausted ? Instants.Earlier(at.ToLedgerTime(), exhausted) : at.ToLedgerTime();
                var one = locked.Suspend(
                    [.. locked.Accruing.Where(run => run.Deployment == deployment)],
                    locked.Holds.ContainsKey(deployment) ? [deployment] : [],
                    stop, Instants.Later(now.ToLedgerTime(), stop), reason, policy, deployment);
                await locked.WriteAsync(cancellation);
                if (locked.Suspended) suspended.Add(account.Value);
                result = new(
                    Instants.Earlier(result.At, one.At), result.Uncollected + one.Uncollected, [.. result.Deployments, .. one.Deployments]);
            }

            return (result, suspended);
        }, cancellation);
        hints.Tell(changed);
        return suspension;
    }

    /// <summary>Accounts that pay for the deployment now: more than one only while it moves between them.</summary>
    private static async Task<List<AccountId>> AccountsOfAsync(
        NpgsqlConnection connection, DeploymentId deployment, CancellationToken cancellation)
    {
        await using var command = new NpgsqlCommand(
            """
            select account from run_interval where deployment = $1 and ended_at is null and charge_until is null
            union select account from credit_hold where deployment = $1 order by 1
            """, connection)
        {
            Parameters = { new() { Value = deployment.Value } },
        };
        await using var reader = await command.ExecuteReaderAsync(cancellation);
        var accounts = new List<AccountId>();
        while (await reader.ReadAsync(cancellation)) accounts.Add(new(reader.GetString(0)));
        return accounts;
    }
}
