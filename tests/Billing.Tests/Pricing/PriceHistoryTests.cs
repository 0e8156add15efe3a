using static Tensormesh.Billing.Tests.Given;

namespace Tensormesh.Billing.Tests;

public sealed class PriceHistoryTests
{
    private static PriceRow Row(long version, string? dollars, double hours, string book = "default")
        => new(new(version), book, dollars is null ? null : Dollars(dollars), Now.AddHours(hours));

    private static long? InForce(double hours, params PriceRow[] rows) => PriceHistory.InForce(rows, Now.AddHours(hours))?.Version.Value;

    [Fact]
    public void The_newest_version_by_then_is_in_force_from_its_very_instant()
    {
        PriceRow[] rows = [Row(1, "1.00", 0), Row(2, "2.00", 1), Row(3, "3.00", 2)];
        Assert.Equal([1L, 2, 2, 3], new[] { 0.5, 1, 1.9, 5 }.Select(hours => InForce(hours, rows)!.Value));
    }

    [Fact]
    public void What_began_before_any_price_takes_the_first() => Assert.Equal(1, InForce(-3, Row(1, "1.00", 0), Row(2, "2.00", 1)));

    [Fact]
    public void What_was_admitted_just_before_a_withdrawal_keeps_the_last_price()
        => Assert.Equal(1, InForce(2, Row(1, "1.00", 0), Row(2, null, 1)));

    [Fact]
    public void A_withdrawal_leaves_the_price_of_another_book()
        => Assert.Equal(1, InForce(5, Row(1, "1.00", 0, "a"), Row(2, "2.00", 1, "b"), Row(3, null, 2, "b")));

    [Fact]
    public void A_product_without_any_price_has_none()
    {
        Assert.Null(InForce(0));
        Assert.Null(InForce(0, Row(1, null, -1)));
    }

    [Fact]
    public void A_run_follows_every_price_published_after_its_own()
    {
        PriceRow[] rows = [Row(1, "1.00", 0), Row(2, "2.00", 1), Row(3, null, 2), Row(4, "4.00", 3)];
        Assert.Equal([2, 4], PriceHistory.ChangesAfter(rows, rows[0], Now.AddHours(0.5)).Select(row => row.Version.Value));
        Assert.Equal([4], PriceHistory.ChangesAfter(rows, rows[1], Now.AddHours(1)).Select(row => row.Version.Value));
        Assert.Empty(PriceHistory.ChangesAfter(rows, rows[3], Now.AddHours(3)));
    }
}
