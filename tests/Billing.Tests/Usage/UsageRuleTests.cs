using static Tensormesh.Billing.Tests.Given;

namespace Tensormesh.Billing.Tests;

public sealed class UsageRuleTests
{
    private static UsageEvent Event(long input = 100, long cached = 10, long output = 20, DateTimeOffset? at = null)
        => new("/inference/a", "1", Acme, "m", at ?? Now, input, cached, output);

    [Fact]
    public void What_is_in_order_is_counted()
    {
        Assert.Null(UsageRule.Refuse(Event(), Now));
        Assert.Null(UsageRule.Refuse(Event(cached: 100), Now));
        Assert.Null(UsageRule.Refuse(Event(input: 0, cached: 0), Now));
        Assert.Null(UsageRule.Refuse(Event(at: Now + UsageRule.ClockSkew), Now));
        Assert.Null(UsageRule.Refuse(Event(at: Now - UsageRule.Retention + TimeSpan.FromSeconds(1)), Now));
    }

    [Fact]
    public void More_cached_tokens_than_input_are_refused()
        => Refused(UsageRefusal.CachedAboveInput, Event(cached: 101), "cached tokens are part of the input");

    [Fact]
    public void An_event_of_no_tokens_is_refused_and_not_a_charge_of_nothing()
        => Refused(UsageRefusal.NoTokens, Event(0, 0, 0), "the usage of its last chunk");

    [Fact]
    public void Counts_below_zero_or_beyond_any_context_are_refused()
    {
        Refused(UsageRefusal.Unreadable, Event(output: -1), "from 0 up");
        Refused(UsageRefusal.TooManyTokens, Event(input: UsageRule.MostTokens + 1), "at most 1000000000");
    }

    [Fact]
    public void The_future_beyond_clock_skew_and_the_past_beyond_retention_are_refused()
    {
        Refused(UsageRefusal.FromTheFuture, Event(at: Now + UsageRule.ClockSkew + TimeSpan.FromSeconds(1)), "2026-03-01T12:00:00Z here");
        Refused(UsageRefusal.TooOld, Event(at: Now - UsageRule.Retention), "taken for 35 days");
    }

    [Fact]
    public void Events_are_kept_longer_than_they_may_come()
        => Assert.True(UsageRule.Kept >= UsageRule.Retention + TimeSpan.FromDays(1) + UsageRule.ClockSkew);

    private static void Refused(UsageRefusal reason, UsageEvent usage, string says)
    {
        var refused = UsageRule.Refuse(usage, Now);
        Assert.Equal(reason, refused?.Reason);
        Assert.Contains(says, refused!.Detail, StringComparison.Ordinal);
    }
}
