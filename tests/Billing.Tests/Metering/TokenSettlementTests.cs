using CsCheck;
using static Tensormesh.Billing.Tests.Given;

namespace Tensormesh.Billing.Tests;

public sealed class TokenSettlementTests
{
    private static readonly Gen<UnsettledTokens> Rows = Gen.Select(Gen.Int[0, 300], Gen.Int[0, 3], Gen.Int[1, 2], Gen.Long[0, 1000], Gen.Long[0, 500], (quarter, model, version, amount, tokens) =>
    {
        var bucket = Now.AddMinutes(15 * quarter);
        return new UnsettledTokens(
            bucket, $"m{model}", new(version), DateOnly.FromDateTime(bucket.UtcDateTime), bucket.AddMinutes(7), new(tokens, tokens / 2, tokens), new(amount));
    });

    [Fact]
    public void Money_goes_to_the_oldest_first_as_far_as_it_goes_and_not_a_nano_further()
        => Gen.Select(Rows.Array[0, 30], Gen.Long[0, 20_000]).Sample((drawn, money) =>
        {
            var rows = drawn.OrderBy(row => row.Bucket).ThenBy(row => row.Model, StringComparer.Ordinal).ToArray();
            var settlement = TokenSettlement.Of(rows, new(money));
            var due = rows.Aggregate(Money.Zero, (sum, row) => sum + row.Amount);
            var charged = settlement.Charges.Aggregate(Money.Zero, (sum, charge) => sum + charge.Amount);
            Assert.Equal(Money.Min(due, new(money)), charged);
            Assert.Equal(charged, settlement.Drawn.Aggregate(Money.Zero, (sum, one) => sum + one.Amount));
            Assert.Equal(charged == due, settlement.UnsettledFrom is null);
            Assert.All(settlement.Drawn, one => Assert.True(one.Amount == one.Row.Amount || one.Row.Bucket >= settlement.UnsettledFrom));
            Assert.All(settlement.Charges, charge =>
            {
                Assert.Equal(charge.Amount, charge.Models.Aggregate(Money.Zero, (sum, model) => sum + model.Amount));
                Assert.Equal(charge.Day, DateOnly.FromDateTime(charge.LastAt.UtcDateTime));
            });
            Assert.Equal(settlement.Charges.Select(charge => charge.Day).Distinct(), settlement.Charges.Select(charge => charge.Day));
        }, iter: 3_000);

    [Fact]
    public void Tokens_that_cost_nothing_are_told_of_without_a_transaction()
    {
        var free = new UnsettledTokens(Now, "free", new(1), DateOnly.FromDateTime(Now.UtcDateTime), Now.AddMinutes(1), new(10, 0, 10), Money.Zero);
        var settlement = TokenSettlement.Of([free], Money.Zero);
        Assert.Equal((free, Money.Zero), Assert.Single(settlement.Drawn));
        Assert.Empty(settlement.Charges);
        Assert.Null(settlement.UnsettledFrom);
    }
}
