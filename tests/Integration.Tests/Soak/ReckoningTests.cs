using Tensormesh.Billing;
using Tensormesh.Soak;

namespace Tensormesh.Integration.Tests.Soaks;

/// <summary>A soak that finds nothing says something only if it would have found it: what it compares, with something missing, twice or wrong in the books.</summary>
public sealed class ReckoningTests
{
    private const long PerGpuHour = 3_600_000_000_000;
    private static readonly DateTimeOffset Start = new(2026, 11, 1, 12, 0, 0, TimeSpan.Zero);
    private static readonly SeenPod Pod = new(Guid.NewGuid(), "team/train-1", "acme", "H100", 2, Start, Start.AddSeconds(30));
    private static readonly BookedRun Run = new(
        Pod.Uid, "acme", "H100", 2, Start, Start.AddSeconds(30), null, false, [(Start, PerGpuHour)], 60 * Money.NanosPerUnit);
    private static readonly Used Tokens = new("acme", "vendor/model", 3, new(100, 10, 50));

    [Fact]
    public void Books_that_have_everything_once_are_right()
    {
        Assert.Empty(Reckoning.OfPods([Pod, Pod with { Uid = Guid.NewGuid(), StartedAt = null, FinishedAt = null }], [Run], [PerGpuHour]));
        Assert.Empty(Reckoning.OfPayments([new("pi_1", 5)], [new("pi_1", 5)]));
        Assert.Empty(Reckoning.OfWishes([new("pi_1", 5)], [new("pi_1", 5)]));
        Assert.Empty(Reckoning.OfUsage([Tokens], [Tokens]));
        Assert.Empty(Reckoning.OfTokenMoney(new Dictionary<string, long> { ["acme"] = 7 }, new Dictionary<string, long> { ["acme"] = 7 }));
    }

    [Fact]
    public void A_run_that_was_stopped_for_want_of_money_is_due_until_then()
        => Assert.Empty(Reckoning.OfPods([Pod], [Run with { ChargeUntil = Start.AddSeconds(10), IsSuspended = true, Moved = 20 * Money.NanosPerUnit }], [PerGpuHour]));

    public static TheoryData<string, string> PlantedInRuns => new()
    {
        { "missing", "Lost" },
        { "ghost", "Doubled" },
        { "open", "Lost" },
        { "short", "Lost" },
        { "long", "Doubled" },
        { "late", "Wrong" },
        { "ended early", "Wrong" },
        { "ended while it runs", "Wrong" },
        { "unexplained stop", "Lost" },
        { "other price", "Wrong" },
        { "other account", "Wrong" },
        { "fewer GPUs", "Wrong" },
    };

    [Theory]
    [MemberData(nameof(PlantedInRuns))]
    public void What_is_wrong_with_a_run_is_found(string planted, string kind)
    {
        BookedRun[] books = planted switch
        {
            "missing" => [],
            "ghost" => [Run, Run with { Pod = Guid.NewGuid() }],
            "ended while it runs" => [Run],
            "open" => [Run with { EndedAt = null }],
            "short" => [Run with { Moved = Run.Moved - 1 }],
            "long" => [Run with { Moved = Run.Moved + 1 }],
            "late" => [Run with { StartedAt = Start.AddSeconds(1) }],
            "ended early" => [Run with { EndedAt = Start.AddSeconds(29) }],
            "unexplained stop" => [Run with { ChargeUntil = Start.AddSeconds(10), Moved = 20 * Money.NanosPerUnit }],
            "other price" => [Run with { Prices = [(Start, PerGpuHour * 2)], Moved = Run.Moved * 2 }],
            "other account" => [Run with { Account = "other" }],
            "fewer GPUs" => [Run with { Gpus = 1 }],
            _ => throw new ArgumentOutOfRangeException(nameof(planted), planted, "unknown"),
        };
        var pod = planted == "ended while it runs" ? Pod with { FinishedAt = null } : Pod;
        Assert.Equal([kind], Reckoning.OfPods([pod], books, [PerGpuHour]).Select(finding => $"{finding.Kind}"));
    }

    [Fact]
    public void A_payment_that_is_missing_doubled_or_invented_is_found()
    {
        Paid paid = new("pi_1", 5), other = new("pi_2", 5);
        Assert.Equal([FindingKind.Lost], Kinds(Reckoning.OfPayments([paid], [])));
        Assert.Equal([FindingKind.Doubled], Kinds(Reckoning.OfPayments([paid], [paid, paid])));
        Assert.Equal([FindingKind.Wrong], Kinds(Reckoning.OfPayments([paid], [paid with { Nanos = 6 }])));
        Assert.Equal([FindingKind.Doubled], Kinds(Reckoning.OfPayments([paid], [paid, other])));
        Assert.Equal([FindingKind.Doubled], Kinds(Reckoning.OfWishes([paid], [paid, other])));
        Assert.Equal([FindingKind.Lost], Kinds(Reckoning.OfWishes([paid, paid], [paid])));
    }

    [Fact]
    public void Usage_that_is_missing_doubled_or_invented_is_found()
    {
        Assert.Equal([FindingKind.Lost], Kinds(Reckoning.OfUsage([Tokens], [])));
        Assert.Equal([FindingKind.Lost], Kinds(Reckoning.OfUsage([Tokens], [Tokens with { Events = 2 }])));
        Assert.Equal([FindingKind.Doubled], Kinds(Reckoning.OfUsage([Tokens], [Tokens with { Events = 4 }])));
        Assert.Equal([FindingKind.Wrong], Kinds(Reckoning.OfUsage([Tokens], [Tokens with { Tokens = new(100, 10, 51) }])));
        Assert.Equal([FindingKind.Doubled], Kinds(Reckoning.OfUsage([], [Tokens])));
        Dictionary<string, long> due = new() { ["acme"] = 7 };
        Assert.Equal([FindingKind.Lost], Kinds(Reckoning.OfTokenMoney(due, new Dictionary<string, long>())));
        Assert.Equal([FindingKind.Doubled], Kinds(Reckoning.OfTokenMoney(due, new Dictionary<string, long> { ["acme"] = 8 })));
    }

    [Fact]
    public void What_grows_is_found_and_what_only_wavers_is_not()
    {
        Assert.Empty(Usage.Grown(Usage.Compare(Samples("web: resident MB", minute => 200 + (minute % 3)))));
        Assert.Empty(Usage.Grown(Usage.Compare(Samples("web: threads", minute => 30 + (minute / 5)))));
        Assert.Equal([FindingKind.Grown], Kinds(Usage.Grown(Usage.Compare(Samples("web: resident MB", minute => 200 + (minute * 5))))));
        Assert.Equal([FindingKind.Grown], Kinds(Usage.Grown(Usage.Compare(Samples("Postgres connections", minute => 20 + minute)))));

        static IEnumerable<Sample> Samples(string of, Func<int, double> value) => Enumerable.Range(0, 30).Select(minute => new Sample(minute, of, value(minute)));
    }

    private static IEnumerable<FindingKind> Kinds(IEnumerable<Finding> findings) => findings.Select(finding => finding.Kind);
}
