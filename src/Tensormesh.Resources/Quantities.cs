using System.Globalization;
using System.Text.RegularExpressions;

namespace Tensormesh.Resources;

/// <summary>The small formats in which specs state amounts: memory quantities, compute capabilities, Go durations, dollars.</summary>
/// <remarks>
/// Each format is a pattern of <see cref="Formats"/>, which the CRDs' schemas carry too. The patterns bound the digits, so that no
/// text that matches can overflow what it is read into.
/// </remarks>
public static partial class Quantities
{
    private const decimal BytesPerMiB = 1024m * 1024m;

    /// <summary>A memory quantity such as 40Gi, in whole MiB rounded up; false when it is not one.</summary>
    /// <remarks>Kubernetes quantities without sign, exponent or milli: nobody asks for a GPU of 40e9 or -1 bytes on purpose.</remarks>
    public static bool TryMemoryMiB(string? text, out long mebibytes)
    {
        mebibytes = 0;
        if (!Formats.Matches(text, Formats.Memory, Formats.MemoryMaxLength))
        {
            return false;
        }

        var digits = text.AsSpan().TrimEnd("KMGTki");
        var bytes = Number(digits) * BytesPer(text[digits.Length..]);
        mebibytes = (long)decimal.Ceiling(bytes / BytesPerMiB);
        return true;
    }

    /// <summary>A compute capability such as "8.9" as (8, 9).</summary>
    public static bool TryComputeCapability(string? text, out (int Major, int Minor) capability)
    {
        capability = default;
        if (!Formats.Matches(text, Formats.ComputeCapability, Formats.ComputeCapabilityMaxLength))
        {
            return false;
        }

        var dot = text.IndexOf('.', StringComparison.Ordinal);
        capability = (
            int.Parse(text.AsSpan(0, dot), NumberStyles.None, CultureInfo.InvariantCulture),
            int.Parse(text.AsSpan(dot + 1), NumberStyles.None, CultureInfo.InvariantCulture));
        return true;
    }

    /// <summary>A Go duration such as 24h, 90m or 1h30m: not negative, at most 32 characters, in h, m, s and ms.</summary>
    public static bool TryDuration(string? text, out TimeSpan duration)
    {
        duration = TimeSpan.Zero;
        if (!Formats.Matches(text, Formats.Duration, Formats.DurationMaxLength))
        {
            return false;
        }

        foreach (Match part in DurationPartPattern().Matches(text))
        {
            duration += TimeSpan.FromTicks((long)(Number(part.Groups["number"].ValueSpan) * TicksPer(part.Groups["unit"].Value)));
        }

        return true;
    }

    /// <summary>Dollars such as "20.00": not negative, at most 9 digits before and 9 after the point.</summary>
    public static bool TryDollars(string? text, out decimal dollars)
    {
        dollars = 0;
        if (!Formats.Matches(text, Formats.Dollars, Formats.DollarsMaxLength))
        {
            return false;
        }

        dollars = decimal.Parse(text, NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture);
        return true;
    }

    /// <summary>A runway as people read it: 3d4h, 5h12m, 42s; the two largest units, rounded down, a zero unit left out.</summary>
    public static string Runway(TimeSpan runway)
    {
        if (runway < TimeSpan.FromSeconds(1))
        {
            return "0s";
        }

        var (large, largeUnit, small, smallUnit) = runway switch
        {
            { Days: > 0 } => (runway.Days, 'd', runway.Hours, 'h'),
            { Hours: > 0 } => (runway.Hours, 'h', runway.Minutes, 'm'),
            { Minutes: > 0 } => (runway.Minutes, 'm', runway.Seconds, 's'),
            _ => (runway.Seconds, 's', 0, ' '),
        };
        return small == 0
            ? string.Create(CultureInfo.InvariantCulture, $"{large}{largeUnit}")
            : string.Create(CultureInfo.InvariantCulture, $"{large}{largeUnit}{small}{smallUnit}");
    }

    private static decimal Number(ReadOnlySpan<char> digits) =>
        decimal.Parse(digits, NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture);

    private static decimal BytesPer(string suffix) => suffix switch
    {
        "" => 1m,
        "k" => 1e3m,
        "M" => 1e6m,
        "G" => 1e9m,
        "T" => 1e12m,
        "Ki" => 1024m,
        "Mi" => BytesPerMiB,
        "Gi" => BytesPerMiB * 1024m,
        "Ti" => BytesPerMiB * 1024m * 1024m,
        _ => throw new InvalidOperationException($"the memory pattern let the suffix {suffix} through"),
    };

    private static long TicksPer(string unit) => unit switch
    {
        "h" => TimeSpan.TicksPerHour,
        "m" => TimeSpan.TicksPerMinute,
        "s" => TimeSpan.TicksPerSecond,
        "ms" => TimeSpan.TicksPerMillisecond,
        _ => throw new InvalidOperationException($"the duration pattern let the unit {unit} through"),
    };

    [GeneratedRegex(@"(?<number>[0-9.]+)(?<unit>ms|s|m|h)")]
    private static partial Regex DurationPartPattern();
}
