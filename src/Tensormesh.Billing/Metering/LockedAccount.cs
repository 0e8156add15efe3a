using Npgsql;
using NpgsqlTypes;

namespace Tensormesh.Billing;

/// <summary>
/// An account under its row lock: what runs on it, what is left, and the changes computed so far. Changes are made in
/// memory and written together by <see cref="WriteAsync"/>, in one round trip of the SQL transaction that holds the lock.
/// </summary>
internal sealed class LockedAccount
{
    private readonly NpgsqlConnection connection;
    private readonly Dictionary<PodId, Run> runs;
    private readonly Dictionary<PodId, Watermark> expected;
    private readonly HashSet<PodId> changed = [];
    private readonly Dictionary<PodId, List<RunRating>> ratings = [];
    private readonly Dictionary<DeploymentId, Money> drawn = [];
    private readonly HashSet<(DeploymentId, string, string)> charged = [];
    private readonly List<Movement> movements = [];
    private readonly List<NpgsqlBatchCommand> commands = [];
    private readonly Dictionary<DeploymentId, Money> holds;

    private LockedAccount(
        NpgsqlConnection connection, AccountId account, Money posted, TokensDue tokens, DateTimeOffset? unsettledSince,
        Dictionary<DeploymentId, Money> holds, IEnumerable<Run> runs)
    {
        this.connection = connection;
        Account = account;
        Posted = posted;
        Tokens = tokens;
        TokensUnsettledSince = unsettledSince;
        this.holds = holds;
        this.runs = runs.ToDictionary(run => run.Pod);
        expected = this.runs.ToDictionary(run => run.Key, run => Watermark.Of(run.Value));
    }

    public AccountId Account { get; }

    /// <summary>The ledger's balance, less what was settled since it was read.</summary>
    public Money Posted { get; private set; }

    /// <summary>What tokens cost that were accepted when the lock was taken, less what was settled since.</summary>
    public TokensDue Tokens { get; private set; }

    /// <summary>When the first tokens were accepted that the ledger is not told of; null: it knows all.</summary>
    public DateTimeOffset? TokensUnsettledSince { get; }

    public Money Funds => Posted - Tokens.Amount;

    public IEnumerable<Run> Accruing => runs.Values.Where(run => run.Accrues);

    /// <summary>Deployments that may run, and the price per GPU-hour at which their hold was placed.</summary>
    public IReadOnlyDictionary<DeploymentId, Money> Holds => holds;

    public Settlement Settled { get; private set; } = Settlement.Nothing;

    /// <summary>True when charging stopped or a hold was released: whoever commits tells of it.</summary>
    public bool Suspended { get; private set; }

    public DateTimeOffset? ExhaustsAt => Exhaustion.At(Accruing.Select(run => run.Accruing), Posted, Tokens);

    /// <summary>Takes the account's lock and reads, in one round trip.</summary>
    /// <param name="epoch">The operator that writes, which is refused when another has taken over.</param>
    /// <param name="pods">Also read these runs, whether or not they accrue.</param>
    /// <param name="more">Other ledger accounts to lock with it, where several accounts are changed in one SQL transaction.</param>
    /// <returns>Null when the ledger knows no such account.</returns>
    public static async Task<LockedAccount?> LockAsync(
        NpgsqlConnection connection, OperatorEpoch? epoch, AccountId account, IReadOnlyCollection<PodId> pods, CancellationToken cancellation,
        IEnumerable<string>? more = null)
    {
        await using var batch = new NpgsqlBatch(connection)
        {
            BatchCommands =
            {
                Ledger.LockCommand([Movements.Customer(account), .. more ?? []], epoch),
                Transact.Command(
                    "select b.amount_nanos, coalesce(k.rated_nanos - k.settled_nanos, 0), k.accepted_at, k.unsettled_since from ledger_balance b "
                        + "join ledger_account a on a.id = b.ledger_account left join token_balance k on k.customer = a.id where a.account = $1",
                    Transact.Value(account.Value)),
                Transact.Command("select deployment, per_gpu_hour_nanos from credit_hold where account = $1",
                    Transact.Value(account.Value)),
                Transact.Command(SqlText.ReadRuns, Transact.Value(account.Value), Transact.Value(pods.Select(pod => pod.Value).ToArray())),
            },
        };
        await using var reader = await batch.ExecuteReaderAsync(cancellation);
        await reader.NextResultAsync(cancellation);
        if (!await reader.ReadAsync(cancellation)) return null;
        var posted = new Money(reader.GetInt64(0));
        var tokens = new TokensDue(new(reader.GetInt64(1)), reader.IsDBNull(2) ? null : reader.GetFieldValue<DateTimeOffset>(2));
        DateTimeOffset? unsettledSince = reader.IsDBNull(3) ? null : reader.GetFieldValue<DateTimeOffset>(3);

        await reader.NextResultAsync(cancellation);
        var holds = new Dictionary<DeploymentId, Money>();
        while (await reader.ReadAsync(cancellation)) holds[new(reader.GetGuid(0))] = new(reader.GetInt64(1));

        await reader.NextResultAsync(cancellation);
        var runs = new List<Run>();
        while (await reader.ReadAsync(cancellation)) runs.Add(RunRows.Read(reader));
        return new LockedAccount(connection, account, posted, tokens, unsettledSince, holds, runs);
    }

    public Run? Find(PodId pod) => runs.GetValueOrDefault(pod);

    /// <summary>A run that was inserted under this lock.</summary>
    public void Add(Run run)
    {
        runs[run.Pod] = run;
        expected[run.Pod] = Watermark.Of(run);
    }

    /// <summary>Charges a run up to an instant at or after where it is settled.</summary>
    public Run Settle(Run run, DateTimeOffset until)
    {
        var amount = run.Accruing.Accrued(until);
        if (amount > Money.Zero)
        {
            movements.Add(Movements.GpuUsage(run, until, amount));
            drawn[run.Deployment] = drawn.GetValueOrDefault(run.Deployment) + amount;
            Posted -= amount;
            charged.Add((run.Deployment, run.Namespace, run.DeploymentName));
            Settled = Settled with { Windows = Settled.Windows + 1, Charged = Settled.Charged + amount, Deployments = charged };
        }

        return Change(run with
        {
            Rated = run.Rated + amount,
            Total = run.Total + amount,
            SettledUntil = Instants.Later(until, run.SettledUntil),
        });
    }

    /// <summary>Charges all that accrues up to an instant, but not past the end of the balance.</summary>
    public void SettleAll(DateTimeOffset until)
    {
        if (ExhaustsAt is { } exhausted) until = Instants.Earlier(until, exhausted);
        foreach (var run in Accruing.Where(run => run.SettledUntil < until).ToList()) Settle(run, until);
    }

    /// <summary>
    /// Tells the ledger of the tokens that were accepted, as far as the balance goes: after what ran before they came, which was covered then.
    /// What it does not cover stays owed. Changes neither what the account can spend nor when it ends.
    /// </summary>
    public async Task SettleTokensAsync(CancellationToken cancellation)
    {
        if (await LockedTokens.LockAsync(connection, Account, cancellation) is not { UnsettledFrom: not null } tokens) return;
        Tokens = tokens.Due;
        var money = Posted;
        if (tokens.Due.At is { } accepted)
        {
            var until = ExhaustsAt is { } exhausted ? Instants.Earlier(exhausted, accepted) : accepted;
            money -= Accruing.Aggregate(Money.Zero, (sum, run) => sum + run.Accruing.Accrued(until));
        }

        var settlement = TokenSettlement.Of(await tokens.ReadUnsettledAsync(connection, cancellation), Money.Max(money, Money.Zero));
        if (settlement.Drawn.Count == 0) return;
        var from = tokens.Settled;
        foreach (var charge in settlement.Charges)
        {
            var movement = Movements.ServerlessUsage(Account, charge, from, from + charge.Amount, tokens.Traceparent);
            movements.Add(movement);
            commands.Add(TokenSettlement.AddToMonth(tokens.Customer, charge, movement.Key));
            from += charge.Amount;
        }

        var settled = from - tokens.Settled;
        commands.Add(settlement.Note(tokens.Customer));
        Posted -= settled;
        Tokens = Tokens with { Amount = Tokens.Amount - settled };
        Settled = Settled with
        {
            Tokens = settled,
            TokenTransactions = settlement.Charges.Count,
            OldestTokensAt = settlement.Drawn.Min(one => one.Row.LastAt),
            Traceparent = tokens.Traceparent,
        };
    }

    /// <summary>Settles to a price change and begins a new running total. A run that is settled past the change takes the new price from
    /// there.</summary>
    public void Reprice(Run run, PriceVersionId version, Money perGpuHour, DateTimeOffset change)
    {
        var from = Instants.Later(change, run.SettledUntil);
        var settled = Settle(run, from);
        Change(settled with { PriceVersion = version, PerGpuHour = perGpuHour, RatedFrom = from, Rated = Money.Zero });
        if (!ratings.TryGetValue(run.Pod, out var totals)) ratings[run.Pod] = totals = [];
        totals.Add(new(from, version, perGpuHour));
    }

    /// <summary>Records the end of a run and charges to it, or gives back what was charged past it.</summary>
    /// <param name="totals">The running totals of the run, from its start.</param>
    public void Close(Run run, DateTimeOffset endedAt, IReadOnlyList<RunRating> totals, CreditPolicy policy)
    {
        if (run.Accrues && endedAt >= run.SettledUntil) run = SettleWithinBalance(run, endedAt, endedAt, policy);
        if (endedAt < run.SettledUntil)
        {
            (run, _) = GiveBack(run, endedAt, totals, (charged, excess) => Movements.GpuUsageCorrection(charged, endedAt, excess));
        }

        Change(run with { EndedAt = endedAt });
    }

    /// <summary>
    /// Ends the charge of a run where its GPU was last seen well, and gives back what was charged past it. What it ran until the fault
    /// was seen is charged first, so that the statement shows both.
    /// </summary>
    /// <param name="totals">The running totals of the run, from its start.</param>
    /// <returns>Null when nothing was, or would be, charged past that instant.</returns>
    public FaultedRun? EndWithGpu(Run run, GpuFault fault, IReadOnlyList<RunRating> totals, CreditPolicy policy, DateTimeOffset now)
    {
        if (!fault.Ends(run)) return null;
        var healthyUntil = fault.HealthyUntil(run.StartedAt);
        if (run.Accrues)
        {
            var seen = Instants.Later(Instants.Earlier(fault.SeenAt.ToLedgerTime(), now), healthyUntil);
            run = SettleWithinBalance(run, Instants.Later(seen, run.SettledUntil), healthyUntil, policy);
        }

        var credited = Money.Zero;
        if (healthyUntil < run.SettledUntil)
        {
            (run, credited) = GiveBack(
                run, healthyUntil, totals, (charged, excess) => Movements.GpuFaultCredit(charged, fault, healthyUntil, excess));
        }

        run = Change(run with { ChargeUntil = run.SettledUntil });
        return new(
            run.Pod, run.PodName, run.Deployment, run.DeploymentName, run.Namespace, run.Account, fault, run.SettledUntil, credited);
    }

    /// <summary>
    /// Charges a run up to an instant. The balance may have run out before, without anyone there to see it: then charging stops where it
    /// did, and what was used after that is written off.
    /// </summary>
    /// <param name="used">Until when the GPUs were of use, at or before the instant.</param>
    private Run SettleWithinBalance(Run run, DateTimeOffset until, DateTimeOffset used, CreditPolicy policy)
    {
        var stop = ExhaustsAt is { } exhausted ? Instants.Earlier(until, Instants.Later(exhausted, run.SettledUntil)) : until;
        run = Settle(run, stop);
        if (stop >= used) return run;
        WriteOff([run], stop, used, policy, run.Pod.ToString());
        return run with { ChargeUntil = stop };
    }

    /// <summary>Sets a run back to an earlier instant, and moves what was charged past it.</summary>
    private (Run Run, Money Amount) GiveBack(Run run, DateTimeOffset to, IReadOnlyList<RunRating> totals, Func<Run, Money, Movement> move)
    {
        var (total, rated, due) = RatingHistory.At(totals, run.Gpus, to);
        var excess = run.Total - due;
        if (excess > Money.Zero)
        {
            movements.Add(move(run, excess));
            Posted += excess;
        }

        return (run with
        {
            Total = due,
            Rated = rated,
            RatedFrom = total.From,
            PriceVersion = total.Version,
            PerGpuHour = total.PerGpuHour,
            SettledUntil = to,
        }, excess);
    }

    /// <summary>
    /// Stops charging the given runs at an instant (or where they are settled, if that is later: what was used and paid is not given
    /// back), and releases the holds of the given deployments.
    /// </summary>
    public Suspension Suspend(
        IReadOnlyList<Run> stopped, IReadOnlyCollection<DeploymentId> released, DateTimeOffset at, DateTimeOffset now, string reason,
        CreditPolicy policy, DeploymentId? only)
    {
        var ended = stopped.Select(run =>
        {
            var settled = Settle(run, Instants.Later(at, run.SettledUntil));
            return Change(settled with { ChargeUntil = settled.SettledUntil });
        }).ToList();
        var uncollected = WriteOff(ended, at, now, policy, only?.ToString() ?? Account.Value);
        if (ended.Count == 0 && released.Count == 0) return new Suspension(at, uncollected, []);

        Suspended = true;
        foreach (var deployment in released) holds.Remove(deployment);
        var ids = released.Select(deployment => deployment.Value).ToArray();
        commands.Add(Transact.Command(
            "delete from credit_hold where account = $1 and deployment = any ($2)", Transact.Value(Account.Value), Transact.Value(ids)));
        commands.Add(Transact.Command(
            "insert into suspension (account, deployment, at, decided_at, reason, uncollected_nanos, deployments) values ($1, $2, $3, "
                + "$4, $5, $6, $7)",
            Transact.Value(Account.Value), Transact.Value(only?.Value, NpgsqlDbType.Uuid), Transact.Value(at), Transact.Value(now),
            Transact.Value(reason),
            Transact.Value(uncollected.Nanos), Transact.Value(ids)));
        return new Suspension(at, uncollected, [.. released]);
    }

    /// <summary>Everything of the account that costs money, from the exact end of its balance.</summary>
    public Suspension SuspendExhausted(DateTimeOffset at, DateTimeOffset now, CreditPolicy policy) => Suspend(
        [.. Accruing.Where(run => run.PerGpuHour > Money.Zero)],
        [.. holds.Where(hold => hold.Value > Money.Zero).Select(hold => hold.Key)],
        at, now, nameof(RefusalReason.InsufficientBalance), policy, only: null);

    /// <summary>Writes every change in one round trip, the ledger accounts locked first and in order.</summary>
    /// <exception cref="InvalidOperationException">A row was not as read, or usage was posted before: the lock was not held.</exception>
    public async Task WriteAsync(CancellationToken cancellation)
    {
        if (changed.Count == 0 && movements.Count == 0 && commands.Count == 0) return;
        await using var batch = new NpgsqlBatch(connection);
        if (movements.Count > 0) batch.BatchCommands.Add(
            Ledger.LockCommand(movements.SelectMany(movement => movement.Entries).Select(entry => entry.LedgerAccount).Distinct()));
        foreach (var movement in movements) batch.BatchCommands.Add(Ledger.Command(movement));
        var written = RunRows.Write([.. changed.Select(pod => (runs[pod], expected[pod]))], ratings);
        if (changed.Count > 0) batch.BatchCommands.Add(written);
        if (drawn.Count > 0)
        {
            batch.BatchCommands.Add(Transact.Command(
                SqlText.DrawHolds, Transact.Value(drawn.Keys.Select(key => key.Value).ToArray()),
                Transact.Value(drawn.Values.Select(value => value.Nanos).ToArray())));
        }

        foreach (var command in commands) batch.BatchCommands.Add(command);

        await using (var reader = await batch.ExecuteReaderAsync(cancellation))
        {
            if (movements.Count > 0) await reader.NextResultAsync(cancellation);
            foreach (var movement in movements)
            {
                if (await Ledger.ReadAsync(reader, cancellation) is not PostResult.Posted)
                {
                    throw new InvalidOperationException(
                        $"{movement.Key} was posted before, but what it charges was not settled to there");
                }

                await reader.NextResultAsync(cancellation);
            }

            while (await reader.NextResultAsync(cancellation)) { }
        }

        if (changed.Count > 0 && written.RecordsAffected != changed.Count)
        {
            throw new InvalidOperationException(
                $"{written.RecordsAffected} of {changed.Count} runs of account {Account} were as read under its lock");
        }
    }

    private Run Change(Run run)
    {
        changed.Add(run.Pod);
        return runs[run.Pod] = run;
    }

    /// <summary>What ran from where each run's charging stopped until now is lost to us, when that is more than draining takes.</summary>
    private Money WriteOff(List<Run> ended, DateTimeOffset at, DateTimeOffset now, CreditPolicy policy, string subject)
    {
        if (now - at <= policy.SuspensionTolerance) return Money.Zero;
        var lost = ended.Select(run => (Run: run, Amount: run.Cost(run.SettledUntil, Instants.Later(now, run.SettledUntil))))
            .Where(one => one.Amount > Money.Zero).ToList();
        if (lost.Count == 0) return Money.Zero;
        movements.Add(Movements.Uncollected(Account, subject, at, now, lost));
        return lost.Aggregate(Money.Zero, (sum, one) => sum + one.Amount);
    }
}
