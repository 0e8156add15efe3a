using System.Globalization;
using System.Text;
using Tensormesh.Billing;

namespace Tensormesh.Web;

/// <summary>How the console writes what people read.</summary>
internal static class Words
{
    /// <summary>
    /// <c>$1,234.56</c>; under a dollar up to four digits (<c>$0.0417</c>); <c>&lt;$0.0001</c> where four are not enough. Rounded towards zero,
    /// so that nobody is shown money that is not there: the exact amount is in the title.
    /// </summary>
    public static string Short(Money money, bool signed = false)
    {
        var units = Math.Abs((decimal)money.Nanos / Money.NanosPerUnit);
        var sign = money.Nanos < 0 ? "-" : signed && money.Nanos > 0 ? "+" : "";
        if (units is > 0 and < 0.0001m) return $"{sign}<$0.0001";
        var (scale, format) = units is > 0 and < 1 ? (10_000m, "0.00##") : (100m, "#,##0.00");
        return $"{sign}${(decimal.Truncate(units * scale) / scale).ToString(format, CultureInfo.InvariantCulture)}";
    }

    /// <summary><c>$1,234.567890123 USD</c>.</summary>
    public static string Full(Money money)
    {
        var units = (decimal)money.Nanos / Money.NanosPerUnit;
        return $"{(units < 0 ? "-" : "")}${Math.Abs(units).ToString("#,##0.00#######", CultureInfo.InvariantCulture)} {Money.Currency}";
    }

    /// <summary><c>12,345,678</c>.</summary>
    public static string Count(long count) => count.ToString("#,##0", CultureInfo.InvariantCulture);

    /// <summary><c>12.3M</c>, with three digits at least.</summary>
    public static string Compact(long count) => count switch
    {
        >= 1_000_000_000_000 => (count / 1_000_000_000_000m).ToString("0.00", CultureInfo.InvariantCulture) + "T",
        >= 1_000_000_000 => (count / 1_000_000_000m).ToString("0.00", CultureInfo.InvariantCulture) + "B",
        >= 1_000_000 => (count / 1_000_000m).ToString("0.00", CultureInfo.InvariantCulture) + "M",
        >= 100_000 => (count / 1_000m).ToString("0.0", CultureInfo.InvariantCulture) + "K",
        _ => Count(count),
    };

    public static string Percent(decimal ratio) => (ratio * 100).ToString("0.#", CultureInfo.InvariantCulture) + " %";

    /// <summary><c>3 d 4 h</c>, <c>4 h 12 min</c>, <c>12 min 5 s</c>, <c>5 s</c>.</summary>
    public static string Span(TimeSpan span) => span switch
    {
        { TotalDays: >= 730 } => $"more than {Whole(span.TotalDays / 365)} years",
        { TotalDays: >= 1 } => $"{Whole(span.TotalDays)} d {Whole(span.Hours)} h",
        { TotalHours: >= 1 } => $"{Whole(span.TotalHours)} h {Whole(span.Minutes)} min",
        { TotalMinutes: >= 1 } => $"{Whole(span.TotalMinutes)} min {Whole(span.Seconds)} s",
        _ => $"{Whole(span.TotalSeconds)} s",
    };

    private static string Whole(double count) => ((long)count).ToString(CultureInfo.InvariantCulture);

    public static string Month(BillingMonth month) => month.FirstDay.ToString("MMMM yyyy", CultureInfo.InvariantCulture);

    public static string Day(DateOnly day) => day.ToString("d MMM yyyy", CultureInfo.InvariantCulture);

    /// <summary><c>GpuUsageCorrection</c> is <c>GPU usage correction</c>.</summary>
    public static string Type(string pascalCase)
    {
        var words = new StringBuilder();
        foreach (var letter in pascalCase)
        {
            if (char.IsUpper(letter) && words.Length > 0) words.Append(' ').Append(char.ToLowerInvariant(letter));
            else words.Append(letter);
        }

        return words.ToString().Replace("Gpu", "GPU", StringComparison.Ordinal).Replace("gpu", "GPU", StringComparison.Ordinal)
            .Replace("Top up", "Top-up", StringComparison.Ordinal);
    }

    /// <summary>Why something does not run, from the reason of a condition.</summary>
    public static string Reason(string reason) => reason switch
    {
        nameof(RefusalReason.InsufficientBalance) => "The balance was used up",
        nameof(RefusalReason.NoValidCard) => "No valid card was on file",
        nameof(RefusalReason.CardExpired) => "The card had expired",
        nameof(RefusalReason.BudgetExhausted) => "Its own budget was spent",
        nameof(RefusalReason.HourlyRateAboveBudget) => "It costs more per hour than its budget allows",
        nameof(RefusalReason.AccountMissing) => "Its account was removed",
        nameof(RefusalReason.PriceMissing) => "Its GPU has no price",
        nameof(RefusalReason.NoMatchingGpu) => "No such GPU was there",
        _ => Type(reason),
    };

    public static string Card(Card card) => $"{card.Brand} ending {card.Last4}";

    public static string Expiry(Card card) => string.Create(CultureInfo.InvariantCulture, $"{card.ExpMonth:00}/{card.ExpYear:0000}");

    /// <summary>What a person writes as an amount: <c>25</c>, <c>25.50</c>, <c>$1,000</c>.</summary>
    public static bool TryReadAmount(string? text, out Money amount)
        => Money.TryParse((text ?? "").Trim().TrimStart('$').Replace(",", "", StringComparison.Ordinal).Trim(), out amount);
}
