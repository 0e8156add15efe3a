using CsCheck;

namespace Tensormesh.Billing.Tests;

public sealed class MoneyTests
{
    [Theory]
    [InlineData("2.50", 2_500_000_000)]
    [InlineData("2.5", 2_500_000_000)]
    [InlineData("-0.000000001", -1)]
    [InlineData("0", 0)]
    [InlineData(".5", 500_000_000)]
    [InlineData("9223372036.854775807", long.MaxValue)]
    public void Reads_decimal_strings_exactly(string text, long nanos) => Assert.Equal(nanos, Money.Parse(text).Nanos);

    [Theory]
    [InlineData(null)]
    [InlineData("")]
    [InlineData("1e3")]
    [InlineData("1,000.00")]
    [InlineData("$2.50")]
    [InlineData(" 2.50")]
    [InlineData("2.5000000001")]
    // Two cents as a float once had it; cut, they would be one.
    [InlineData("0.01999999999999999872")]
    [InlineData("9223372036.854775808")]
    [InlineData("99999999999999999999999999999999")]
    [InlineData("NaN")]
    [InlineData("--1")]
    public void Refuses_what_is_not_an_amount(string? text)
    {
        Assert.False(Money.TryParse(text, out var money));
        Assert.Equal(Money.Zero, money);
        if (text is not null) Assert.Throws<FormatException>(() => Money.Parse(text));
    }

    [Fact]
    public void What_is_written_is_read_back_the_same()
        => Gen.Long[-long.MaxValue, long.MaxValue].Sample(
            nanos => Assert.Equal(nanos, Money.Parse(new Money(nanos).ToDecimalString()).Nanos));

    [Theory]
    [InlineData(2_500_000_000, "$2.50", "2.50")]
    [InlineData(-100_000_000, "-$0.10", "-0.10")]
    [InlineData(41_666_666, "$0.0416", "0.041666666")]
    [InlineData(1_999_999_999, "$1.99", "1.999999999")]
    [InlineData(0, "$0.00", "0.00")]
    [InlineData(70, "$0.00", "0.00000007")]
    [InlineData(long.MaxValue, "$9223372036.85", "9223372036.854775807")]
    public void Shows_people_cents_and_machines_everything(long nanos, string shown, string exact)
        => Assert.Equal((shown, exact), (new Money(nanos).ToString(), new Money(nanos).ToDecimalString()));

    [Fact]
    public void Every_operation_is_checked()
    {
        var most = new Money(long.MaxValue);
        Assert.Throws<OverflowException>(() => most + new Money(1));
        Assert.Throws<OverflowException>(() => -most - new Money(2));
        Assert.Throws<OverflowException>(() => most * 2);
        Assert.Throws<OverflowException>(() => -new Money(long.MinValue));
        Assert.Throws<OverflowException>(() => Money.FromUnits(9_223_372_037));
        Assert.Throws<OverflowException>(() => most.CeilingToCent());
    }

    [Theory]
    [InlineData(0, 0)]
    [InlineData(1, 10_000_000)]
    [InlineData(10_000_000, 10_000_000)]
    [InlineData(10_000_001, 20_000_000)]
    [InlineData(-1, 0)]
    [InlineData(-10_000_001, -10_000_000)]
    public void Rounds_up_to_a_cent(long nanos, long cents) => Assert.Equal(cents, new Money(nanos).CeilingToCent().Nanos);

    [Fact]
    public void Instants_are_cut_to_the_microsecond_in_UTC()
    {
        var local = new DateTimeOffset(2026, 3, 1, 14, 0, 0, TimeSpan.FromHours(2)).AddTicks(19);
        var cut = local.ToLedgerTime();
        Assert.Equal((TimeSpan.Zero, new DateTimeOffset(2026, 3, 1, 12, 0, 0, TimeSpan.Zero).AddTicks(10)), (cut.Offset, cut));
    }
}
