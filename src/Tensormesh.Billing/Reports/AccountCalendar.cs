using System.Diagnostics.CodeAnalysis;
using System.Globalization;

namespace Tensormesh.Billing;

/// <summary>
/// From the first instant of a day or month to that of another. What ends at midnight sharp is of the day that ends, so that a period has what took
/// effect after its first instant, up to and with its last.
/// </summary>
public readonly record struct Period(DateTimeOffset From, DateTimeOffset To);

/// <summary>A calendar month, as an account's time zone has it; written <c>2026-03</c>.</summary>
public readonly record struct BillingMonth(int Year, int Month) : IComparable<BillingMonth>
{
    public static BillingMonth Of(DateOnly day) => new(day.Year, day.Month);

    public DateOnly FirstDay => new(Year, Month, 1);

    public BillingMonth Next => Of(FirstDay.AddMonths(1));

    public BillingMonth Previous => Of(FirstDay.AddMonths(-1));

    /// <summary>Years 2000 to 2999 only: no account is older, and no calendar runs out.</summary>
    public static bool TryParse([NotNullWhen(true)] string? text, out BillingMonth month)
    {
        month = default;
        if (!DateOnly.TryParseExact(text, "yyyy-MM", CultureInfo.InvariantCulture, DateTimeStyles.None, out var day) || day.Year is < 2000 or > 2999) return false;
        month = Of(day);
        return true;
    }

    public int CompareTo(BillingMonth other) => FirstDay.CompareTo(other.FirstDay);

    public static bool operator <(BillingMonth left, BillingMonth right) => left.CompareTo(right) < 0;
    public static bool operator >(BillingMonth left, BillingMonth right) => left.CompareTo(right) > 0;
    public static bool operator <=(BillingMonth left, BillingMonth right) => left.CompareTo(right) <= 0;
    public static bool operator >=(BillingMonth left, BillingMonth right) => left.CompareTo(right) >= 0;

    public override string ToString() => FirstDay.ToString("yyyy-MM", CultureInfo.InvariantCulture);
}

/// <summary>
/// The days and months of a time zone as instants. A day of a change of the clock has 23 or 25 hours, or does not begin at midnight: a day is all
/// instants at which a clock on the wall shows its date.
/// </summary>
public sealed class AccountCalendar(TimeZoneInfo zone)
{
    /// <summary>Changes of the clock are whole quarters of an hour.</summary>
    private static readonly TimeSpan Quarter = TimeSpan.FromMinutes(15);

    private readonly TimeZoneInfo zone = zone;

    public static AccountCalendar Utc { get; } = new(TimeZoneInfo.Utc);

    /// <summary>A name that Postgres knows and this machine does not is read as UTC: a report says by which zone it was made.</summary>
    public static AccountCalendar Of(string timeZone) => TimeZoneInfo.TryFindSystemTimeZoneById(timeZone, out var zone) ? new(zone) : Utc;

    public string TimeZone => zone.Id;

    public DateOnly DayOf(DateTimeOffset instant) => DateOnly.FromDateTime(TimeZoneInfo.ConvertTime(instant, zone).DateTime);

    /// <summary>What a clock on the wall shows.</summary>
    public DateTimeOffset LocalOf(DateTimeOffset instant) => TimeZoneInfo.ConvertTime(instant, zone);

    public BillingMonth MonthOf(DateTimeOffset instant) => BillingMonth.Of(DayOf(instant));

    /// <summary>The first instant of a day. Where the clock is put forward over midnight it is the instant of the change; where it is put back over
    /// midnight, the first of the two midnights. A day that a zone left out has no length: it begins when the next one does.</summary>
    public DateTimeOffset StartOf(DateOnly day)
    {
        var local = day.ToDateTime(TimeOnly.MinValue, DateTimeKind.Unspecified);
        while (zone.IsInvalidTime(local)) local += Quarter;
        var offset = zone.IsAmbiguousTime(local) ? zone.GetAmbiguousTimeOffsets(local).Max() : zone.GetUtcOffset(local);
        return new DateTimeOffset(local, offset).ToUniversalTime();
    }

    public Period DayAt(DateOnly day) => new(StartOf(day), StartOf(day.AddDays(1)));

    public Period MonthAt(BillingMonth month) => new(StartOf(month.FirstDay), StartOf(month.Next.FirstDay));
}
