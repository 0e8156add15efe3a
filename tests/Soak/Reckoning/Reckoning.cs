using System.Globalization;
using Tensormesh.Billing;
using Tensormesh.Simulation.Tests;

namespace Tensormesh.Soak;

/// <summary>A pod as its kubelet knows it; what did not happen is null.</summary>
internal sealed record SeenPod(Guid Uid, string Name, string Account, string Product, int Gpus, DateTimeOffset? StartedAt, DateTimeOffset? FinishedAt);

/// <summary>A pod as the ledger has it.</summary>
/// <param name="Moved">Nanos that its movements took from the customer, less what they gave back.</param>
internal sealed record BookedRun(
    Guid Pod, string Account, string Product, int Gpus, DateTimeOffset StartedAt, DateTimeOffset? EndedAt, DateTimeOffset? ChargeUntil, bool IsSuspended,
    IReadOnlyList<(DateTimeOffset From, long PerGpuHour)> Prices, long Moved);

/// <summary>A payment that took money from a card, or that the ledger credited.</summary>
internal sealed record Paid(string PaymentIntentId, long Nanos);

/// <summary>What one account used of one model.</summary>
internal sealed record Used(string Account, string Model, long Events, TokenTotals Tokens);

/// <summary>
/// The world's evidence beside the books, once everything has come to rest: what of it is missing there, and what is there more than once. No input of it is
/// something that the product said of itself, but the books.
/// </summary>
internal static class Reckoning
{
    /// <summary>Each payment once.</summary>
    public static IEnumerable<Finding> OfPayments(IReadOnlyCollection<Paid> taken, IReadOnlyCollection<Paid> credited)
    {
        var books = credited.ToLookup(paid => paid.PaymentIntentId, StringComparer.Ordinal);
        foreach (var paid in taken)
        {
            var booked = books[paid.PaymentIntentId].ToList();
            if (booked.Count == 0) yield return new(FindingKind.Lost, $"the payment {paid.PaymentIntentId} of {Dollars(paid.Nanos)} was not credited");
            if (booked.Count > 1) yield return new(FindingKind.Doubled, $"the payment {paid.PaymentIntentId} was credited {booked.Count} times");
            if (booked.Count == 1 && booked[0].Nanos != paid.Nanos)
            {
                yield return new(FindingKind.Wrong, $"the payment {paid.PaymentIntentId} took {Dollars(paid.Nanos)} from the card, and {Dollars(booked[0].Nanos)} were credited");
            }
        }

        var known = taken.Select(paid => paid.PaymentIntentId).ToHashSet(StringComparer.Ordinal);
        foreach (var paid in credited.Where(paid => !known.Contains(paid.PaymentIntentId)))
        {
            yield return new(FindingKind.Doubled, $"{Dollars(paid.Nanos)} were credited for {paid.PaymentIntentId}, which took nothing from a card");
        }
    }

    /// <summary>Each wish to pay took money from the card once.</summary>
    /// <param name="wishes">Amounts by account, each with the payment that the customer was told of.</param>
    public static IEnumerable<Finding> OfWishes(IReadOnlyCollection<Paid> wishes, IReadOnlyCollection<Paid> taken)
    {
        foreach (var twice in wishes.GroupBy(wish => wish.PaymentIntentId, StringComparer.Ordinal).Where(group => group.Count() > 1))
        {
            yield return new(FindingKind.Lost, $"{twice.Count()} wishes to pay were answered with the one payment {twice.Key}");
        }

        var told = wishes.Select(wish => wish.PaymentIntentId).ToHashSet(StringComparer.Ordinal);
        foreach (var paid in taken.Where(paid => !told.Contains(paid.PaymentIntentId)))
        {
            yield return new(FindingKind.Doubled, $"the card paid {Dollars(paid.Nanos)} as {paid.PaymentIntentId}, of which no customer was told");
        }
    }

    /// <summary>Each event once, and all of it.</summary>
    public static IEnumerable<Finding> OfUsage(IReadOnlyCollection<Used> reported, IReadOnlyCollection<Used> booked)
    {
        var books = booked.ToDictionary(used => (used.Account, used.Model));
        foreach (var used in reported)
        {
            var found = books.GetValueOrDefault((used.Account, used.Model)) ?? used with { Events = 0, Tokens = default };
            var whose = $"of {used.Account} with {used.Model}";
            if (found.Events < used.Events) yield return new(FindingKind.Lost, $"{used.Events - found.Events} of {used.Events} usage events {whose} were not metered");
            if (found.Events > used.Events) yield return new(FindingKind.Doubled, $"{found.Events - used.Events} usage events {whose} were metered twice");
            if (found.Events == used.Events && found.Tokens != used.Tokens) yield return new(FindingKind.Wrong, $"{found.Tokens} {whose} were metered, and {used.Tokens} reported");
        }

        foreach (var (account, model) in books.Keys.Except(reported.Select(used => (used.Account, used.Model))))
        {
            yield return new(FindingKind.Doubled, $"usage of {account} with {model} was metered, which nobody reported");
        }
    }

    /// <summary>What each account's tokens cost, once there is money for all of them.</summary>
    public static IEnumerable<Finding> OfTokenMoney(IReadOnlyDictionary<string, long> cost, IReadOnlyDictionary<string, long> charged)
    {
        foreach (var (account, due) in cost)
        {
            var moved = charged.GetValueOrDefault(account);
            if (moved < due) yield return new(FindingKind.Lost, $"{due - moved} of {due} nanos for tokens of {account} were not charged");
            if (moved > due) yield return new(FindingKind.Doubled, $"{moved - due} nanos more than {due} were charged for tokens of {account}");
        }
    }

    /// <summary>Each pod's time on its GPUs, as its kubelet told it, at the prices that held.</summary>
    public static IEnumerable<Finding> OfPods(IReadOnlyCollection<SeenPod> seen, IReadOnlyCollection<BookedRun> booked, IReadOnlyCollection<long> published)
    {
        var books = booked.ToDictionary(run => run.Pod);
        foreach (var pod in seen.Where(pod => pod.StartedAt is not null))
        {
            if (books.TryGetValue(pod.Uid, out var run))
            {
                foreach (var finding in OfPod(pod, run, published)) yield return finding;
            }
            else
            {
                yield return new(FindingKind.Lost, $"{pod.Name} held {pod.Gpus} GPUs from {pod.StartedAt:O} to {pod.FinishedAt:O}, and the ledger does not know it");
            }
        }

        var real = seen.Where(pod => pod.StartedAt is not null).Select(pod => pod.Uid).ToHashSet();
        foreach (var run in booked.Where(run => !real.Contains(run.Pod)))
        {
            yield return new(FindingKind.Doubled, $"the ledger has a run of {run.Pod} on {run.Gpus} GPUs, and no kubelet started it");
        }
    }

    private static IEnumerable<Finding> OfPod(SeenPod pod, BookedRun run, IReadOnlyCollection<long> published)
    {
        if ((run.Account, run.Product, run.Gpus) != (pod.Account, pod.Product, pod.Gpus))
        {
            yield return new(FindingKind.Wrong, $"{pod.Name} of {pod.Account} held {pod.Gpus} x {pod.Product}, and was booked on {run.Account} as {run.Gpus} x {run.Product}");
        }

        if (run.StartedAt != pod.StartedAt) yield return new(FindingKind.Wrong, $"{pod.Name} started at {pod.StartedAt:O}, and was booked from {run.StartedAt:O}");
        if (run.EndedAt is null) yield return new(FindingKind.Lost, $"the end of {pod.Name} at {pod.FinishedAt:O} was not booked");
        else if (run.EndedAt != pod.FinishedAt) yield return new(FindingKind.Wrong, $"{pod.Name} ended at {pod.FinishedAt:O}, and was booked until {run.EndedAt:O}");
        if (run.ChargeUntil is not null && !run.IsSuspended) yield return new(FindingKind.Lost, $"the charge of {pod.Name} stopped at {run.ChargeUntil:O} without a suspension");
        if (run.Prices.FirstOrDefault(price => !published.Contains(price.PerGpuHour)) is { From.Ticks: > 0 } unknown)
        {
            yield return new(FindingKind.Wrong, $"{pod.Name} was rated at {unknown.PerGpuHour} nanos an hour, which nobody published");
        }

        var end = pod.FinishedAt ?? run.EndedAt ?? run.ChargeUntil ?? pod.StartedAt!.Value;
        var until = run.ChargeUntil < end ? run.ChargeUntil.Value : end;
        var due = new Bill(pod.StartedAt!.Value, pod.Gpus, run.Prices).Due(until);
        if (run.Moved < due) yield return new(FindingKind.Lost, $"{due - run.Moved} of {due} nanos of {pod.Name} were not charged");
        if (run.Moved > due) yield return new(FindingKind.Doubled, $"{run.Moved - due} nanos more than {due} were charged for {pod.Name}");
    }

    private static string Dollars(long nanos) => new Money(nanos).ToDecimalString().ToString(CultureInfo.InvariantCulture);
}
