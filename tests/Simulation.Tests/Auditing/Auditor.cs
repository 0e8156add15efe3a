using Npgsql;
using Tensormesh.Billing;

namespace Tensormesh.Simulation.Tests;

/// <summary>The product did what must never be.</summary>
internal sealed class FoundException(string what) : Exception(what);

/// <summary>
/// Looks at a story's rows after every effect, and compares them with what is true in the model. It adds up entries by itself, prices GPU time by itself
/// (<see cref="Bill"/>), and knows the few reasons for which charging may stop before a pod ends.
/// </summary>
internal sealed class Auditor(World world, NpgsqlDataSource database, IReadOnlyList<AccountId> accounts, CreditPolicy policy, Action<string> count)
{
    private readonly string[] names = [.. accounts.Select(account => account.Value)];
    private readonly Dictionary<Guid, Bill> bills = [];
    private readonly Dictionary<Guid, long> chargedByPod = [];
    private readonly Dictionary<string, long> balances = accounts.ToDictionary(account => account.Value, _ => 0L);
    private readonly Dictionary<string, long> tokensSettled = accounts.ToDictionary(account => account.Value, _ => 0L);
    private readonly Dictionary<string, long> cashIn = accounts.ToDictionary(account => account.Value, _ => 0L);
    private readonly Dictionary<string, List<(DateTimeOffset From, long PerGpuHour)>> prices = [];
    /// <summary>When the last version of each product took effect, withdrawals too.</summary>
    private readonly Dictionary<string, DateTimeOffset> versions = [];
    private readonly Dictionary<long, string> customers = [];

    public Picture Last { get; private set; } = Picture.Empty;
    public long Charged => chargedByPod.Values.Sum();
    /// <summary>What tokens of each account cost, by the story's own count.</summary>
    public Dictionary<string, long> TokensCost { get; } = accounts.ToDictionary(account => account.Value, _ => 0L);

    /// <summary>What cards paid into an account.</summary>
    public long CashIn(AccountId account) => cashIn[account.Value];

    public long Balance(AccountId account) => balances[account.Value];

    public Bill? BillOf(Guid pod) => bills.GetValueOrDefault(pod);

    /// <summary>What a deployment has cost by an instant: what of it still accrues goes on, the rest is what it was.</summary>
    public long Cost(DeploymentId deployment, DateTimeOffset t) => Last.Runs.Values.Where(run => run.Deployment == deployment.Value)
        .Sum(run => run.Accrues && t > run.SettledUntil ? bills[run.Pod].Due(t) : run.Total);

    /// <summary>The first look: where the journal begins.</summary>
    public async Task OpenAsync(CancellationToken cancellation)
    {
        await using (var command = database.CreateCommand("select id, account from ledger_account where account = any ($1)"))
        {
            command.Parameters.Add(new NpgsqlParameter<string[]> { TypedValue = names });
            await using var reader = await command.ExecuteReaderAsync(cancellation);
            while (await reader.ReadAsync(cancellation)) customers[reader.GetInt64(0)] = reader.GetString(1);
        }

        await using var last = database.CreateCommand("select coalesce((select max(position) from ledger_transaction), 0), coalesce((select max(id) from suspension), 0)");
        await using var positions = await last.ExecuteReaderAsync(cancellation);
        await positions.ReadAsync(cancellation);
        Last = Picture.Empty with { LastPosition = positions.GetInt64(0), LastSuspension = positions.GetInt64(1) };
    }

    /// <exception cref="FoundException">What is stored is not what the effect may lead to.</exception>
    public async Task AfterAsync(Effect effect, CancellationToken cancellation)
    {
        var (before, after) = (Last, await Picture.TakeAsync(database, names, Last, cancellation));
        Last = after;
        if (effect is Effect.Nothing nothing && !after.SameAs(before)) throw new FoundException($"something was written although {nothing.Because}");
        var written = AddUp(after);
        foreach (var (account, balance) in after.Balances)
        {
            if (balance < 0) throw new FoundException($"the balance of {account} is {balance} nanos");
            if (balance != balances[account])
            {
                throw new FoundException($"the balance of {account} is {balance} nanos, and its entries come to {balances[account]}");
            }
        }

        if (effect is Effect.Publish publish) Publish(publish, before, after);
        foreach (var run in after.Runs.Values.Where(run => !before.Runs.ContainsKey(run.Pod))) Begin(run, Pod(run), effect);
        var lost = 0L;
        foreach (var run in after.Runs.Values) lost += Compare(before.Runs.GetValueOrDefault(run.Pod), run, effect, after);
        if (before.Runs.Keys.FirstOrDefault(pod => !after.Runs.ContainsKey(pod)) is var missing && missing != Guid.Empty)
        {
            throw new FoundException($"the run of {missing} is gone");
        }

        if (written != lost) throw new FoundException($"{written} nanos were written off as uncollected, and {lost} ran unpaid for too long");
        CompareHolds(before, after, effect);
        if (effect is Effect.Settle settle) CompareSettled(settle, before, after);
    }

    /// <summary>Adds the new transactions to the journal.</summary>
    /// <returns>What of them is uncollected.</returns>
    private long AddUp(Picture after)
    {
        var uncollected = 0L;
        foreach (var posted in after.Posted)
        {
            if (posted.Amounts.Aggregate(Int128.Zero, (sum, amount) => sum + amount) != 0)
            {
                throw new FoundException($"the entries of {posted.Key} do not sum to zero");
            }

            count($"posted: {posted.Type}");
            var mine = 0L;
            for (var i = 0; i < posted.Accounts.Length; i++)
            {
                if (!customers.TryGetValue(posted.Accounts[i], out var account)) continue;
                balances[account] = checked(balances[account] + posted.Amounts[i]);
                mine += posted.Amounts[i];
                if (posted.Type == nameof(MovementType.ServerlessUsage)) tokensSettled[account] -= posted.Amounts[i];
                if (posted.Type == nameof(MovementType.TopUp)) cashIn[account] += posted.Amounts[i];
            }

            if (posted.Type is nameof(MovementType.GpuUsage) or nameof(MovementType.GpuUsageCorrection) or nameof(MovementType.GpuFaultCredit))
            {
                chargedByPod[posted.Pod!.Value] = chargedByPod.GetValueOrDefault(posted.Pod.Value) - mine;
            }
            else if (posted.Type == nameof(MovementType.Uncollected))
            {
                uncollected += posted.Amounts.Max();
            }
        }

        return uncollected;
    }

    /// <summary>A price that is told late takes effect no earlier than what was said of the product last, be it that it is withdrawn.</summary>
    private void Publish(Effect.Publish publish, Picture before, Picture after)
    {
        var product = publish.Product.Name;
        var from = versions.TryGetValue(product, out var last) && last > publish.At ? last : publish.At;
        versions[product] = from;
        if (publish.PerGpuHour is not { } perGpuHour) return;
        Timeline(product).Add((from, perGpuHour));
        foreach (var run in after.Runs.Values.Where(run => run.Product == product && run.Accrues))
        {
            var settled = before.Runs[run.Pod].SettledUntil;
            bills[run.Pod].Reprice(settled > from ? settled : from, perGpuHour);
        }
    }

    /// <returns>What of the run has to be written off by this effect.</returns>
    private long Compare(RunRow? before, RunRow run, Effect effect, Picture after)
    {
        var pod = Pod(run);
        if (before is not null && before.Account != run.Account) throw new FoundException($"the run of {pod.Name} went over to {run.Account}");
        var due = bills[run.Pod].Due(run.SettledUntil);
        if (run.Total != due)
        {
            throw new FoundException($"{pod.Name} was charged {run.Total} nanos until {run.SettledUntil:O}, and its time costs {due}");
        }

        if (chargedByPod.GetValueOrDefault(run.Pod) != due)
        {
            throw new FoundException($"the ledger moved {chargedByPod.GetValueOrDefault(run.Pod)} nanos for {pod.Name}, and its time until {run.SettledUntil:O} costs {due}");
        }

        if (before == run) return 0;
        if (run.SettledUntil > world.Now) throw new FoundException($"{pod.Name} is settled until {run.SettledUntil:O}, which is ahead");
        if (!run.Accrues && run.SettledUntil != Earlier(run.EndedAt, run.ChargeUntil))
        {
            throw new FoundException($"{pod.Name} is settled until {run.SettledUntil:O}, and its charge ends at {Earlier(run.EndedAt, run.ChargeUntil):O}");
        }

        if (run.EndedAt != before?.EndedAt) CompareEnd(before, run, pod, effect);
        return run.ChargeUntil == before?.ChargeUntil ? 0 : WhatStopped(before, run, pod, effect, after);
    }

    private void Begin(RunRow run, ModelPod pod, Effect effect)
    {
        if (effect is not Effect.Start start || start.Pod.Value != run.Pod) throw new FoundException($"a run of {pod.Name} began by {effect}");
        if (run.StartedAt != pod.StartedAt || run.Gpus != pod.Gpus || $"{run.Gpus} x {run.Product}" != pod.Shape)
        {
            throw new FoundException($"{pod.Name} began at {pod.StartedAt:O} on {pod.Shape}, and {run} says otherwise");
        }

        bills[run.Pod] = new Bill(run.StartedAt, run.Gpus, Bill.PricesSince(Timeline(run.Product), run.StartedAt));
    }

    private static void CompareEnd(RunRow? before, RunRow run, ModelPod pod, Effect effect)
    {
        if (before?.EndedAt is not null || effect is not Effect.End end || end.Pod.Value != run.Pod)
        {
            throw new FoundException($"the end of {pod.Name} was changed to {run.EndedAt:O} by {effect}");
        }

        // Of one that vanished with nobody there to see it, nothing later than the truth may be taken.
        var traceless = pod is { VanishedAt: not null, KillingTold: false };
        if (run.EndedAt != pod.TrueEnd && !(traceless && run.EndedAt < pod.TrueEnd))
        {
            throw new FoundException($"{pod.Name} ended at {pod.TrueEnd:O}, and {run.EndedAt:O} was recorded");
        }
    }

    /// <summary>Charging stopped before the pod's end: there must be a reason, at that very instant.</summary>
    /// <returns>What is to be written off.</returns>
    private long WhatStopped(RunRow? before, RunRow run, ModelPod pod, Effect effect, Picture after)
    {
        if (run.ChargeUntil is not { } stop) throw new FoundException($"the charge of {pod.Name} was resumed");
        var settled = before?.SettledUntil ?? run.StartedAt;
        var suspension = after.Suspensions.LastOrDefault(row => row.Account == run.Account);
        switch (effect)
        {
            case Effect.GpuFault fault when fault.Pod.Value == run.Pod:
                var well = fault.WellUntil > run.StartedAt ? fault.WellUntil : run.StartedAt;
                if (stop == well) return 0;
                if (stop > well) throw new FoundException($"{pod.Name} is charged until {stop:O}, and its GPU was last seen well at {well:O}");
                ExpectUsedUp(run, stop, after);
                return Lost(run.Pod, stop, stop, well);
            case Effect.End end when end.Pod.Value == run.Pod:
                ExpectUsedUp(run, stop, after);
                return Lost(run.Pod, stop, stop, run.EndedAt!.Value);
            case Effect.SuspendDeployment suspend when suspend.Deployment.Value == run.Deployment && suspension is not null:
                if (stop != (suspend.At > settled ? suspend.At : settled)) ExpectUsedUp(run, suspension.At, after);
                return Lost(run.Pod, stop, suspension.At, suspension.DecidedAt);
            case Effect.Start start when suspension is not null && suspension.DecidedAt != (start.EndedAt ?? world.Now):
                throw new FoundException($"what was noticed by {effect} at {world.Now:O} is written off until {suspension.DecidedAt:O}");
            case Effect.SuspendAccount or Effect.Publish or Effect.Start when suspension is not null:
                ExpectUsedUp(run, suspension.At, after);
                return Lost(run.Pod, stop, suspension.At, suspension.DecidedAt);
            default:
                throw new FoundException($"the charge of {pod.Name} stopped at {stop:O} by {effect}");
        }
    }

    private long Lost(Guid pod, DateTimeOffset stop, DateTimeOffset at, DateTimeOffset until)
        => until - at <= policy.SuspensionTolerance || until <= stop ? 0 : bills[pod].Due(until) - bills[pod].Due(stop);

    /// <summary>A balance is used up at an instant when what is left then does not pay for one more microsecond of what runs.</summary>
    private void ExpectUsedUp(RunRow stopped, DateTimeOffset at, Picture after)
    {
        var (left, worth) = (Funds(stopped.Account), 0L);
        foreach (var run in after.Runs.Values.Where(run => run.Account == stopped.Account))
        {
            if (run.Accrues) left -= Math.Max(0, bills[run.Pod].Due(at) - run.Total);
            if (run.Accrues || run.ChargeUntil is not null) worth += bills[run.Pod].OneMicrosecond;
        }

        if (left >= worth) throw new FoundException($"{stopped.Account} was stopped at {at:O} for want of money, and {left} nanos were left");
    }

    private void CompareHolds(Picture before, Picture after, Effect effect)
    {
        foreach (var (deployment, hold) in after.Holds)
        {
            var was = before.Holds.GetValueOrDefault(deployment);
            if (was == hold || (was is not null && was.Gpus == hold.Gpus && was.Product == hold.Product && hold.Remaining <= was.Remaining && effect is not Effect.Hold)) continue;
            if (effect is not Effect.Hold { Admitted: true } placed || placed.Deployment.Value != deployment)
            {
                throw new FoundException($"a hold of {hold.Gpus} GPUs came by {effect}");
            }

            if (was is null || hold.Gpus > was.Gpus || hold.Product != was.Product) ExpectCovered(hold.Account, after);
        }

        foreach (var deployment in before.Holds.Keys.Where(deployment => !after.Holds.ContainsKey(deployment)))
        {
            var fits = effect is Effect.Release release && release.Deployment.Value == deployment
                || effect is Effect.SuspendAccount or Effect.SuspendDeployment or Effect.Publish or Effect.Start;
            if (!fits) throw new FoundException($"a hold went by {effect}");
        }
    }

    /// <summary>What was set aside, less what of it is used already, was there to be set aside.</summary>
    private void ExpectCovered(string account, Picture after)
    {
        var accrued = after.Runs.Values.Where(run => run.Account == account && run.Accrues)
            .ToLookup(run => run.Deployment, run => Math.Max(0, bills[run.Pod].Due(world.Now) - run.Total));
        var available = Funds(account) - accrued.Sum(each => each.Sum())
            - after.Holds.Where(hold => hold.Value.Account == account).Sum(hold => Math.Max(0, hold.Value.Remaining - accrued[hold.Key].Sum()));
        if (available < 0) throw new FoundException($"{account} has {-available} nanos less than is held on it");
    }

    private void CompareSettled(Effect.Settle settle, Picture before, Picture after)
    {
        foreach (var run in after.Runs.Values.Where(run => run.Account == settle.Account.Value && run.Accrues))
        {
            var until = before.Runs[run.Pod].SettledUntil is var was && was > settle.Until ? was : settle.Until;
            if (run.SettledUntil > until) throw new FoundException($"{run.Pod} was settled until {run.SettledUntil:O}, past {until:O}");
            if (run.SettledUntil < until) ExpectUsedUp(run, run.SettledUntil, after);
        }
    }

    public long Funds(string account) => balances[account] - (TokensCost[account] - tokensSettled[account]);

    private ModelPod Pod(RunRow run) => world.Deployments.SelectMany(deployment => deployment.Pods).First(pod => pod.Uid == run.Pod);

    private List<(DateTimeOffset From, long PerGpuHour)> Timeline(string product)
    {
        if (!prices.TryGetValue(product, out var timeline)) prices[product] = timeline = [];
        return timeline;
    }

    private static DateTimeOffset? Earlier(DateTimeOffset? left, DateTimeOffset? right) => left is null || right < left ? right : left;
}
