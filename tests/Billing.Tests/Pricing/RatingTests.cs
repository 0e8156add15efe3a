using CsCheck;
using static Tensormesh.Billing.Tests.Given;

namespace Tensormesh.Billing.Tests;

public sealed class RatingTests
{
    [Fact]
    public void An_hour_costs_the_price_of_an_hour()
        => Assert.Equal(Dollars("10.00"), Rating.Due(TimeSpan.FromHours(1), Dollars("2.50"), 4));

    [Fact]
    public void Nothing_is_due_for_no_time_or_for_time_before_the_start()
    {
        Assert.Equal(Money.Zero, Rating.Due(TimeSpan.Zero, Dollars("2.50"), 4));
        Assert.Equal(Money.Zero, Rating.Due(TimeSpan.FromHours(-1), Dollars("2.50"), 4));
    }

    [Fact]
    public void A_part_of_a_microsecond_is_not_charged()
        => Assert.Equal(Rating.Due(TimeSpan.FromTicks(10), Dollars("3600.00"), 1),
            Rating.Due(TimeSpan.FromTicks(19), Dollars("3600.00"), 1));

    [Fact]
    public void Slicing_never_changes_a_price()
        => Gen.Select(Gen.Long[1, 50_000_000_000], Gen.Int[1, 64], Gen.Long[1, 400_000_000].Array[1, 40]).Sample((rate, gpus, slices) =>
        {
            var (held, posted) = (TimeSpan.Zero, Money.Zero);
            foreach (var slice in slices)
            {
                held += TimeSpan.FromMicroseconds(slice);
                var due = Rating.Due(held, new(rate), gpus) - posted;
                Assert.True(due >= Money.Zero);
                posted += due;
            }

            Assert.Equal(Rating.Due(held, new(rate), gpus), posted);
        }, iter: 5_000);

    [Fact]
    public void The_amount_is_exact_to_the_nano_whatever_the_size()
        => Gen.Select(Gen.Long[0, 3_600_000_000_000_000], Gen.Long[0, 100_000_000_000], Gen.Int[1, 1000])
            .Sample((microseconds, rate, gpus) =>
        {
            var exact = new System.Numerics.BigInteger(microseconds) * rate * gpus / 3_600_000_000;
            if (exact <= long.MaxValue) Assert.Equal(
                (long)exact, Rating.Due(TimeSpan.FromMicroseconds(microseconds), new(rate), gpus).Nanos);
            else Assert.Throws<OverflowException>(() => Rating.Due(TimeSpan.FromMicroseconds(microseconds), new(rate), gpus));
        }, iter: 5_000);

    [Fact]
    public void A_price_change_begins_a_new_running_total()
    {
        RunRating[] totals =
        [
            new(Now, new(1), Dollars("2.50")), new(Now.AddMinutes(30), new(2), Dollars("5.00")),
            new(Now.AddMinutes(30), new(3), Dollars("7.00")),
            new(Now.AddMinutes(40), new(4), Dollars("6.00")),
        ];
        (RunRating, Money, Money) At(double minutes) => RatingHistory.At(totals, 1, Now.AddMinutes(minutes));
        Assert.Equal((totals[0], Dollars("0.00"), Dollars("0.00")), At(0));
        Assert.Equal((totals[0], Dollars("1.25"), Dollars("1.25")), At(30));
        Assert.Equal((totals[2], Dollars("0.70"), Dollars("1.95")), At(36));
        Assert.Equal(Dollars("1.25") + Rating.Due(TimeSpan.FromMinutes(10), Dollars("7.00"), 1) + Dollars("1.00"), At(50).Item3);
    }
}
