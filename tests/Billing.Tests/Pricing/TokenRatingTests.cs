using CsCheck;
using static Tensormesh.Billing.Tests.Given;

namespace Tensormesh.Billing.Tests;

public sealed class TokenRatingTests
{
    private static readonly TokenPrice Price = new("m", Dollars("0.60"), Dollars("2.40"), Dollars("0.06"));

    private static readonly Gen<TokenTotals> Usage = Gen.Select(Gen.Long[0, 200_000], Gen.Long[0, 200_000], Gen.Long[0, 50_000],
        (one, other, output) => new TokenTotals(Math.Max(one, other), Math.Min(one, other), output));

    [Fact]
    public void Cached_tokens_are_part_of_the_input_and_cost_their_own_rate()
    {
        // 600,000 at $0.60, 400,000 at $0.06 and 100,000 at $2.40, per million.
        Assert.Equal(Dollars("0.624"), TokenRating.Due(new(1_000_000, 400_000, 100_000), Price));
        Assert.Equal(Dollars("0.06"), TokenRating.Due(new(1_000_000, 1_000_000, 0), Price));
        Assert.Equal(Dollars("0.216"), TokenRating.Saved(400_000, Price));
    }

    [Fact]
    public void Slicing_never_changes_a_price()
        => Gen.Select(Usage.Array[1, 60], Gen.Long[0, 5_000_000_000], Gen.Long[0, 5_000_000_000], Gen.Long[0, 5_000_000_000]).Sample((events, input, output, cached) =>
        {
            var price = new TokenPrice("m", new(input), new(output), new(cached));
            var (total, charged) = (default(TokenTotals), Money.Zero);
            foreach (var usage in events)
            {
                total += usage;
                var share = TokenRating.Due(total, price) - charged;
                Assert.True(share >= Money.Zero);
                charged += share;
            }

            var exact = events.Aggregate(System.Numerics.BigInteger.Zero, (sum, one) => sum
                + (System.Numerics.BigInteger)(one.Input - one.Cached) * input + (System.Numerics.BigInteger)one.Cached * cached + (System.Numerics.BigInteger)one.Output * output);
            Assert.Equal((long)(exact / 1_000_000), charged.Nanos);
        }, iter: 3_000);

    [Fact]
    public void Sixty_tokens_of_a_sixtieth_of_a_nano_are_a_nano()
        => Assert.Equal(new Money(1), TokenRating.Due(new(60, 0, 0), new TokenPrice("m", new(16_667), new(0), new(0))));

    [Fact]
    public void What_does_not_fit_is_an_error()
        => Assert.Throws<OverflowException>(() => TokenRating.Due(new(long.MaxValue, 0, 0), Price with { InputPerMillion = new(long.MaxValue) }));
}
