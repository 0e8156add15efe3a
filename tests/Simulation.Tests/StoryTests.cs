namespace Tensormesh.Simulation.Tests;

/// <summary>Whole stories, each drawn from one number. A story that fails names its seed, and the same seed tells it again. See README.md.</summary>
public sealed class StoryTests(StoriesFixture stories)
{
    /// <summary>Stories in which everything in <see cref="MustHappen"/> happens at least once.</summary>
    private const int Enough = 150;
    private const int UntilFound = 120;

    /// <summary>Without these a run proves less than it says.</summary>
    private static readonly string[] MustHappen =
    [
        "alarm", "contest", "died", "gpu fault", "late round", "orphan", "overtaken", "round twice", "silent node", "vanished pod",
        "payment: AlreadyCredited", "payment: Credited", "payment: Declined", "payment: InDoubt", "payment: the server died",
        "posted: GpuFaultCredit", "posted: GpuUsage", "posted: GpuUsageCorrection", "posted: ServerlessUsage", "posted: Uncollected",
        "run: charged to its end", "run: stopped before its end",
        "verdict: BudgetExhausted", "verdict: CardExpired", "verdict: InsufficientBalance", "verdict: LedgerUnavailable", "verdict: NoValidCard", "verdict: PriceMissing",
    ];

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Whatever_happens_in_whatever_order_the_books_balance_and_charges_equal_what_was_used()
    {
        var began = TimeProvider.System.GetTimestamp();
        var ends = await stories.TellAsync(Seeds.One is { } seed ? [seed] : Enumerable.Range(1, Seeds.Count), Flaw.None, Cancellation);
        var took = TimeProvider.System.GetElapsedTime(began);
        var tally = ends.SelectMany(end => end.Tally).GroupBy(each => each.Key, each => each.Value).OrderBy(each => each.Key, StringComparer.Ordinal)
            .ToDictionary(each => each.Key, each => each.Sum());
        TestContext.Current.TestOutputHelper?.WriteLine(
            $"{ends.Count} stories, {ends.Sum(end => end.Steps)} steps, {ends.Count / took.TotalMinutes:0} stories a minute\n"
            + $"{string.Join('\n', tally.Select(each => $"  {each.Key}: {each.Value}"))}");
        Assert.True(ends.All(end => end.Fault is null), string.Join("\n\n", ends.Where(end => end.Fault is not null).Select(end => end.Tell())));
        if (ends.Count >= Enough) Assert.Empty(MustHappen.Except(tally.Keys));
    }

    [Fact]
    public async Task The_same_seed_tells_the_same_story_to_the_microsecond_and_the_nano()
    {
        var (first, second) = (await stories.TellAsync([7, 8, 9], Flaw.None, Cancellation), await stories.TellAsync([7, 8, 9], Flaw.None, Cancellation));
        Assert.Equal(3, second.Count);
        Assert.All(first.Zip(second), pair => Assert.Equal(pair.First.Trace, pair.Second.Trace));
        Assert.NotEqual(first[0].Trace, first[1].Trace);
    }

    [Theory]
    [InlineData(nameof(Flaw.ForgetsEnds), "ended at")]
    [InlineData(nameof(Flaw.RecordsEndsAsSeen), "ended at")]
    [InlineData(nameof(Flaw.ChargesTwice), "the ledger moved")]
    [InlineData(nameof(Flaw.StartsInSpiteOfRefusal), "in spite of")]
    [InlineData(nameof(Flaw.StopsWhenNotKnowing), "although the ledger could not be read")]
    [InlineData(nameof(Flaw.KeepsHolds), "let go with a hold of")]
    [InlineData(nameof(Flaw.PaysUnderANewKey), "its holder asked for")]
    [InlineData(nameof(Flaw.IsNotFenced), "overtaken wrote")]
    public async Task A_flaw_that_is_planted_is_found_and_the_seed_that_found_it_finds_it_again(string name, string words)
    {
        var flaw = Enum.Parse<Flaw>(name);
        var found = (await stories.TellAsync(Enumerable.Range(1, UntilFound), flaw, Cancellation)).FirstOrDefault(end => end.Fault is not null);
        Assert.True(found is not null, $"{UntilFound} stories, and none found that the operator {name}");
        Assert.Contains(words, found.Fault!.Message, StringComparison.Ordinal);

        var again = Assert.Single(await stories.TellAsync([found.Seed], flaw, Cancellation));
        Assert.Equal((found.Steps, found.Trace, found.Fault.Message), (again.Steps, again.Trace, again.Fault!.Message));
        Assert.StartsWith($"TENSORMESH_SEED={found.Seed}, step {found.Steps}: ", again.Tell(), StringComparison.Ordinal);
    }
}
