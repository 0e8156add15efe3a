using CsCheck;
using static Tensormesh.Billing.Tests.Given;

namespace Tensormesh.Billing.Tests;

public sealed class StandingTests
{
    private static readonly Gen<AccruingInterval> Intervals = Gen.Select(
        Gen.Long[1, 9_000_000_000], Gen.Int[1, 16], Gen.Long[0, 10_000_000], Gen.Long[0, 5_000_000], (rate, gpus, from, settledAfter) =>
        {
            var ratedFrom = Now.AddTicks(from * 10);
            var settled = ratedFrom.AddTicks(settledAfter * 10);
            return new AccruingInterval(
                new(Guid.NewGuid()), Deployment, H100, gpus, new(rate),
                ratedFrom, Rating.Due(settled - ratedFrom, new(rate), gpus), settled);
        });

    [Fact]
    public void The_balance_is_used_up_at_the_exact_microsecond()
        => Gen.Select(Intervals.Array[1, 6], Gen.Long[0, 200_000]).Sample((intervals, funds) =>
        {
            var standing = Standing("0.00", intervals: intervals) with { Posted = new(funds) };
            var end = standing.ExhaustsAt!.Value;
            Assert.True(standing.Accrued(end) <= standing.Posted);
            Assert.True(standing.Accrued(end.AddTicks(10)) > standing.Posted);
            Assert.Equal(0, end.Ticks % 10);
            Assert.True(standing.IsExhausted(end));
            Assert.False(standing.IsExhausted(end.AddTicks(-10)));
        }, iter: 5_000);

    [Fact]
    public void The_instant_agrees_with_a_walk_over_every_microsecond()
        => Gen.Select(
            Gen.Select(Gen.Long[1, 20_000_000_000_000], Gen.Int[1, 8], Gen.Long[0, 300], Gen.Long[0, 300]).Array[1, 4],
            Gen.Long[0, 500_000]).Sample((rows, funds) =>
        {
            var intervals = rows.Select(row =>
            {
                var (from, rate) = (Now.AddTicks(row.Item3 * 10), new Money(row.Item1));
                var settled = from.AddTicks(row.Item4 * 10);
                return new AccruingInterval(
                    new(Guid.NewGuid()), Deployment, H100, row.Item2, rate, from, Rating.Due(settled - from, rate, row.Item2), settled);
            }).ToList();
            var standing = Standing("0.00", intervals: intervals) with { Posted = new(funds) };
            var end = standing.ExhaustsAt!.Value;
            const int walked = 20_000;
            var walk = intervals.Min(interval => interval.SettledUntil);
            for (var i = 0; i < walked && standing.Accrued(walk.AddTicks(10)) <= standing.Posted; i++) walk = walk.AddTicks(10);
            if (walk < intervals.Min(interval => interval.SettledUntil).AddTicks(walked * 10)) Assert.Equal(walk, end);
            else Assert.True(end >= walk);
        }, iter: 1_000);

    [Fact]
    public void Settling_does_not_move_the_instant_at_which_the_balance_is_used_up()
        => Gen.Select(Intervals.Array[1, 6], Gen.Long[0, 100_000_000], Gen.Double[0, 1]).Sample((intervals, funds, part) =>
        {
            var standing = Standing("0.00", intervals: intervals) with { Posted = new(funds) };
            var end = standing.ExhaustsAt!.Value;
            var first = intervals.Min(interval => interval.SettledUntil);
            var until = first.AddTicks((long)((end - first).Ticks / 10 * part) * 10);
            var settled = standing with
            {
                Posted = standing.Posted - standing.Accrued(until),
                Intervals = [.. intervals.Select(interval => until <= interval.SettledUntil
                    ? interval
                    : interval with { Rated = interval.Rated + interval.Accrued(until), SettledUntil = until })],
            };
            Assert.Equal(end, settled.ExhaustsAt);
        }, iter: 2_000);

    [Fact]
    public void Ten_thousand_intervals_are_solved_quickly()
    {
        var intervals = Enumerable.Range(0, 10_000)
            .Select(i => Interval("2.50", 1 + i % 8, Now.AddTicks(i * 7919 % 3_600_000 * 10), null, new DeploymentId(Guid.NewGuid())))
            .ToList();
        var standing = Standing("1000000.00", intervals: intervals);
        var watch = System.Diagnostics.Stopwatch.StartNew();
        var end = standing.ExhaustsAt!.Value;
        Assert.True(watch.Elapsed < TimeSpan.FromSeconds(2), $"took {watch.Elapsed}");
        Assert.True(standing.Accrued(end) <= standing.Posted);
        Assert.True(standing.Accrued(end.AddTicks(10)) > standing.Posted);
    }

    [Fact]
    public void Nothing_that_accrues_means_no_instant_and_no_runway()
    {
        var idle = Standing("5.00");
        Assert.Null(idle.ExhaustsAt);
        Assert.Null(idle.Runway(Now));
        Assert.False(idle.IsExhausted(Now));
        Assert.True(Standing("0.00").IsExhausted(Now));
        Assert.Null(Standing("5.00", intervals: [Interval("0.00")]).ExhaustsAt);
    }

    [Fact]
    public void A_balance_that_outlasts_the_calendar_has_no_instant()
        => Assert.Null((Standing("9000000000.00", intervals: [Interval("0.000000001")])).ExhaustsAt);

    [Fact]
    public void A_balance_that_was_used_up_long_ago_ends_in_the_past_and_leaves_no_runway()
    {
        var standing = Standing("10.00", intervals: [Interval(gpus: 4, from: Now.AddHours(-5))]);
        Assert.Equal(Now.AddHours(-4), standing.ExhaustsAt);
        Assert.Equal(TimeSpan.Zero, standing.Runway(Now));
        Assert.Equal(Dollars("-40.00"), standing.Balance(Now));
        Assert.Equal(TimeSpan.FromHours(1), standing.Runway(Now.AddHours(-5)));
    }

    [Fact]
    public void Available_stays_the_same_while_a_deployment_burns_its_own_hold()
    {
        var standing = Standing("100.00", intervals: [Interval(gpus: 4)], holds: [Hold("10.00", gpus: 4)]);
        foreach (var minutes in new[] { 0, 1, 17, 59, 60 }) Assert.Equal(Dollars("90.00"), standing.Available(Now.AddMinutes(minutes)));
        Assert.Equal(Dollars("80.00"), standing.Available(Now.AddMinutes(120)));
        Assert.Equal(Money.Zero, standing.Held(Now.AddMinutes(61)));
    }

    [Fact]
    public void One_deployments_cost_does_not_draw_on_anothers_hold()
    {
        var other = new DeploymentId(Guid.NewGuid());
        var standing = Standing("100.00", intervals: [Interval(gpus: 4)], holds: [Hold("10.00", gpus: 4, deployment: other)]);
        Assert.Equal(Dollars("10.00"), standing.Held(Now.AddHours(1)));
        Assert.Equal(Dollars("80.00"), standing.Available(Now.AddHours(1)));
        Assert.Equal(Money.Zero, standing.Held(Deployment, Now));
        Assert.Equal(Dollars("10.00"), standing.Held(other, Now.AddHours(1)));
    }

    [Fact]
    public void Burn_is_the_sum_over_what_accrues()
        => Assert.Equal(Dollars("11.50"), Standing("1.00", intervals: [Interval(gpus: 4), Interval("1.50")]).BurnPerHour);

    [Fact]
    public void An_account_that_never_had_a_card_has_no_grace_to_end()
        => Assert.Null(Standing("1.00", Cards()).CardGraceEndsAt(Policy));

    [Fact]
    public void Grace_begins_at_the_last_expiry_or_the_last_removal_whichever_is_later()
    {
        var expires = new DateTimeOffset(2026, 4, 1, 0, 0, 0, TimeSpan.Zero);
        Assert.Equal(expires.AddDays(1), Standing("1.00", Cards(Card(2026, 3), Card(2025, 1, "pm_old"))).CardGraceEndsAt(Policy));
        Assert.Equal(expires.AddDays(8), Standing("1.00", new CardsOnFile([Card(2026, 3)], expires.AddDays(7))).CardGraceEndsAt(Policy));
        Assert.Equal(Now.AddDays(1), Standing("1.00", new CardsOnFile([], Now)).CardGraceEndsAt(Policy));
    }
}
