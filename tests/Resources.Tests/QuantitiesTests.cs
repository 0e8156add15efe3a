using Tensormesh.Resources;

namespace Resources.Tests;

public sealed class QuantitiesTests
{
    [Theory]
    [InlineData("40Gi", 40960)]
    [InlineData("81559Mi", 81559)]
    [InlineData("1.5Gi", 1536)]
    [InlineData("80G", 76294)] // 76293.9453125 MiB
    [InlineData("1Ki", 1)]
    [InlineData("1", 1)]
    [InlineData("1048577", 2)]
    [InlineData("1048577k", 1001)] // 1000.00095 MiB
    [InlineData("999999999Ti", 1048575998951424)]
    [InlineData("0Gi", 0)]
    [InlineData("0", 0)]
    public void Memory_is_whole_mebibytes_rounded_up(string text, long expected)
    {
        Assert.True(Quantities.TryMemoryMiB(text, out var mebibytes));
        Assert.Equal(expected, mebibytes);
    }

    [Theory]
    [InlineData(null)]
    [InlineData("")]
    [InlineData("Gi")]
    [InlineData("-1Gi")]
    [InlineData("+1Gi")]
    [InlineData("1e9")]
    [InlineData("40GiB")]
    [InlineData("40gi")]
    [InlineData("40 Gi")]
    [InlineData(".5Gi")]
    [InlineData("1.Gi")]
    [InlineData("1.2345Gi")]
    [InlineData("1000000000Gi")]
    [InlineData("40Gi\n")]
    [InlineData("٤٠Gi")]
    public void What_is_no_memory_quantity_is_refused(string? text)
    {
        Assert.False(Quantities.TryMemoryMiB(text, out var mebibytes));
        Assert.Equal(0, mebibytes);
    }

    [Theory]
    [InlineData("8.9", 8, 9)]
    [InlineData("9.0", 9, 0)]
    [InlineData("12.1", 12, 1)]
    public void Compute_capability_is_major_and_minor(string text, int major, int minor)
    {
        Assert.True(Quantities.TryComputeCapability(text, out var capability));
        Assert.Equal((major, minor), capability);
    }

    [Theory]
    [InlineData(null)]
    [InlineData("")]
    [InlineData("8")]
    [InlineData("8.")]
    [InlineData("8.10")]
    [InlineData("0.9")]
    [InlineData("08.9")]
    [InlineData("8,9")]
    [InlineData("sm_89")]
    [InlineData("8.9\n")]
    public void What_is_no_compute_capability_is_refused(string? text) =>
        Assert.False(Quantities.TryComputeCapability(text, out _));

    [Theory]
    [InlineData("24h", 86400)]
    [InlineData("90m", 5400)]
    [InlineData("1h30m", 5400)]
    [InlineData("45s", 45)]
    [InlineData("0s", 0)]
    [InlineData("1.5h", 5400)]
    [InlineData("1h0m0.500s", 3600.5)]
    [InlineData("250ms", 0.25)]
    [InlineData("1m1ms", 60.001)]
    [InlineData("30m1h", 5400)]
    [InlineData("999999h999999h999999h999999h", 14399985600)]
    public void A_duration_reads_as_Go_reads_it(string text, double seconds)
    {
        Assert.True(Quantities.TryDuration(text, out var duration));
        Assert.Equal(TimeSpan.FromSeconds(seconds), duration);
    }

    [Theory]
    [InlineData(null)]
    [InlineData("")]
    [InlineData("24")]
    [InlineData("1d")]
    [InlineData("-1h")]
    [InlineData("1h ")]
    [InlineData("h")]
    [InlineData("1h30")]
    [InlineData("24H")]
    [InlineData("1h\n")]
    [InlineData("1000000h")]
    [InlineData("1h1h1h1h1h1h1h1h1h1h1h1h1h1h1h1h1h")]
    public void What_is_no_duration_is_refused(string? text) => Assert.False(Quantities.TryDuration(text, out _));

    [Theory]
    [InlineData("20.00", 20)]
    [InlineData("0", 0)]
    [InlineData("999999999.999999999", null)]
    public void Dollars_are_a_decimal(string text, int? whole)
    {
        Assert.True(Quantities.TryDollars(text, out var dollars));
        Assert.Equal(whole ?? 999_999_999.999_999_999m, dollars);
    }

    [Theory]
    [InlineData(null)]
    [InlineData("")]
    [InlineData("-1")]
    [InlineData("+1")]
    [InlineData("1,000")]
    [InlineData("$1")]
    [InlineData("1e3")]
    [InlineData(".5")]
    [InlineData("1.0000000001")]
    [InlineData("1000000000")]
    [InlineData("1\n")]
    public void What_is_no_amount_of_dollars_is_refused(string? text) => Assert.False(Quantities.TryDollars(text, out _));

    [Theory]
    [InlineData("3.04:59:59", "3d4h")]
    [InlineData("3.00:59:59", "3d")]
    [InlineData("05:12:59", "5h12m")]
    [InlineData("1.00:00:00", "1d")]
    [InlineData("23:59:59", "23h59m")]
    [InlineData("00:12:05", "12m5s")]
    [InlineData("00:12:00", "12m")]
    [InlineData("00:00:42.9", "42s")]
    [InlineData("00:00:00.9", "0s")]
    [InlineData("00:00:00", "0s")]
    [InlineData("-01:00:00", "0s")]
    [InlineData("10675199.02:48:05.4775807", "10675199d2h")]
    public void A_runway_shows_its_two_largest_units(string runway, string expected) =>
        Assert.Equal(expected, Quantities.Runway(TimeSpan.Parse(runway, System.Globalization.CultureInfo.InvariantCulture)));
}
