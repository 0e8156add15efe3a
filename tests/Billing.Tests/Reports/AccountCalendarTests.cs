using System.Globalization;
using CsCheck;

namespace Tensormesh.Billing.Tests;

public sealed class AccountCalendarTests
{
    [Theory]
    [InlineData("UTC", "2026-03-29", "2026-03-29T00:00:00Z", 24)]
    // Put forward in the night, put back in the night.
    [InlineData("Europe/Berlin", "2026-03-28", "2026-03-27T23:00:00Z", 24)]
    [InlineData("Europe/Berlin", "2026-03-29", "2026-03-28T23:00:00Z", 23)]
    [InlineData("Europe/Berlin", "2026-10-25", "2026-10-24T22:00:00Z", 25)]
    [InlineData("America/New_York", "2026-03-08", "2026-03-08T05:00:00Z", 23)]
    [InlineData("America/New_York", "2026-11-01", "2026-11-01T04:00:00Z", 25)]
    // The clock went from midnight to one: the day began with the change.
    [InlineData("America/Sao_Paulo", "2018-11-04", "2018-11-04T03:00:00Z", 23)]
    // It went from midnight back to eleven: the day before had the hour twice.
    [InlineData("America/Sao_Paulo", "2018-02-17", "2018-02-17T02:00:00Z", 25)]
    // It goes from one back to midnight: the day has two midnights, and begins with the first.
    [InlineData("America/Havana", "2026-11-01", "2026-11-01T04:00:00Z", 25)]
    // Half an hour of summer time; offsets of three quarters.
    [InlineData("Australia/Lord_Howe", "2026-04-05", "2026-04-04T13:00:00Z", 24.5)]
    [InlineData("Asia/Kathmandu", "2026-03-01", "2026-02-28T18:15:00Z", 24)]
    public void A_day_is_all_instants_at_which_the_wall_shows_its_date(string zone, string day, string start, double hours)
    {
        var calendar = AccountCalendar.Of(zone);
        Assert.Equal(zone, calendar.TimeZone);
        var date = DateOnly.ParseExact(day, "yyyy-MM-dd", CultureInfo.InvariantCulture);
        var found = calendar.DayAt(date);
        Assert.Equal(At(start), found.From);
        Assert.Equal(hours, (found.To - found.From).TotalHours);
        Assert.Equal(date, calendar.DayOf(found.From));
        Assert.Equal(date, calendar.DayOf(found.To.AddMicroseconds(-1)));
        Assert.Equal(date.AddDays(-1), calendar.DayOf(found.From.AddMicroseconds(-1)));
    }

    [Theory]
    [InlineData("UTC", "2026-02", "2026-02-01T00:00:00Z", "2026-03-01T00:00:00Z")]
    [InlineData("UTC", "2025-12", "2025-12-01T00:00:00Z", "2026-01-01T00:00:00Z")]
    // It begins in winter and ends in summer.
    [InlineData("Europe/Berlin", "2026-03", "2026-02-28T23:00:00Z", "2026-03-31T22:00:00Z")]
    // It ends with the first of two midnights.
    [InlineData("America/Havana", "2026-10", "2026-10-01T04:00:00Z", "2026-11-01T04:00:00Z")]
    public void A_month_is_from_its_first_day_to_the_next_ones(string zone, string month, string from, string to)
    {
        Assert.True(BillingMonth.TryParse(month, out var parsed));
        Assert.Equal(new Period(At(from), At(to)), AccountCalendar.Of(zone).MonthAt(parsed));
    }

    [Fact]
    public void Every_instant_is_in_the_day_that_its_date_names_and_days_leave_no_gap()
    {
        string[] zones = ["UTC", "Europe/Berlin", "America/New_York", "America/Sao_Paulo", "America/Havana", "Australia/Lord_Howe", "Asia/Kathmandu", "Africa/Cairo"];
        Gen.Select(Gen.Int[0, zones.Length - 1], Gen.Long[0, 20L * 365 * 86_400]).Sample((which, seconds) =>
        {
            var zone = zones[which];
            var (calendar, instant) = (AccountCalendar.Of(zone), At("2010-01-01T00:00:00Z").AddSeconds(seconds));
            var day = calendar.DayOf(instant);
            var period = calendar.DayAt(day);
            Assert.True(period.From <= instant && instant < period.To, $"{instant:O} in {zone}");
            Assert.Equal(period.From, calendar.DayAt(day.AddDays(-1)).To);
            // The sums of spending are of quarters of an hour: a day is whole quarters.
            Assert.Equal(0, period.From.UtcTicks % TimeSpan.FromMinutes(15).Ticks);
        });
    }

    [Fact]
    public void A_zone_that_is_not_known_here_is_read_as_utc_and_says_so() => Assert.Equal("UTC", AccountCalendar.Of("Mars/Olympus").TimeZone);

    [Theory]
    [InlineData("2026-03", true)]
    [InlineData("2000-01", true)]
    [InlineData("1999-12", false)]
    [InlineData("3000-01", false)]
    [InlineData("2026-13", false)]
    [InlineData("2026-3", false)]
    [InlineData("2026-03-01", false)]
    [InlineData("", false)]
    [InlineData(null, false)]
    public void A_month_is_a_year_and_two_digits(string? text, bool valid)
    {
        Assert.Equal(valid, BillingMonth.TryParse(text, out var month));
        if (valid) Assert.Equal(text, month.ToString());
    }

    private static DateTimeOffset At(string text) => DateTimeOffset.ParseExact(text, "yyyy-MM-dd'T'HH:mm:ss'Z'", CultureInfo.InvariantCulture, DateTimeStyles.AssumeUniversal);
}
