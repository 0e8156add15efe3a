using System.Diagnostics.CodeAnalysis;

namespace Tensormesh.Billing;

/// <summary>A row of run_interval: how one pod's hold on its GPUs began, and what was charged for it since.</summary>
internal sealed record Run : RunStart
{
    public Run()
    {
    }

    /// <summary>A run that begins, with nothing charged yet.</summary>
    [SetsRequiredMembers]
    public Run(RunStart start, PriceVersionId version, Money perGpuHour) : base(start)
    {
        (PriceVersion, PerGpuHour) = (version, perGpuHour);
        (RatedFrom, SettledUntil) = (start.StartedAt, start.StartedAt);
        (Rated, Total) = (Money.Zero, Money.Zero);
    }

    public required PriceVersionId PriceVersion { get; init; }
    public required Money PerGpuHour { get; init; }
    public required DateTimeOffset RatedFrom { get; init; }
    /// <summary>Posted of the running total of the price in force. Always what is due for it at <see cref="SettledUntil"/>.</summary>
    public required Money Rated { get; init; }
    /// <summary>Posted over all prices.</summary>
    public required Money Total { get; init; }
    public required DateTimeOffset SettledUntil { get; init; }
    public DateTimeOffset? EndedAt { get; init; }
    public DateTimeOffset? ChargeUntil { get; init; }
    /// <summary>UUIDs of the GPUs or MIG instances that it holds; empty: nobody has told yet.</summary>
    public IReadOnlyList<string> GpuUuids { get; init; } = [];

    public bool Accrues => EndedAt is null && ChargeUntil is null;

    public AccruingInterval Accruing => new(Pod, Deployment, Product, Gpus, PerGpuHour, RatedFrom, Rated, SettledUntil);

    /// <summary>Of a start that is told late: the prices that came after its first. Not stored, for they are followed at once.</summary>
    public IReadOnlyList<RunRating> LaterPrices { get; init; } = [];

    /// <summary>Cost between two instants of the running total in force, and of those to come.</summary>
    public Money Cost(DateTimeOffset from, DateTimeOffset to)
    {
        RunRating[] totals = [new(RatedFrom, PriceVersion, PerGpuHour), .. LaterPrices.Where(price => price.From > RatedFrom)];
        return RatingHistory.At(totals, Gpus, to).Total - RatingHistory.At(totals, Gpus, from).Total;
    }
}

/// <summary>Where a running total of an interval began, and at which price.</summary>
internal sealed record RunRating(DateTimeOffset From, PriceVersionId Version, Money PerGpuHour);
