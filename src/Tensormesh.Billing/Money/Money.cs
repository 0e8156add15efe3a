using System.Globalization;

namespace Tensormesh.Billing;

/// <summary>
/// An amount of US dollars as a signed 64-bit count of nano-dollars (1 USD = 10^9 nanos), the
/// <c>{units, nanos}</c> money of the public API. Every operation is checked: overflow throws
/// <see cref="OverflowException"/>. Nothing is rounded before it is displayed.
/// </summary>
public readonly record struct Money(long Nanos) : IComparable<Money>
{
    public const string Currency = "USD";
    public const long NanosPerUnit = 1_000_000_000;

    public static readonly Money Zero = new(0);

    public static Money FromUnits(long units) => new(checked(units * NanosPerUnit));

    /// <summary>
    /// Reads a decimal string such as <c>2.50</c> or <c>-0.000000001</c>: at most nine fractional
    /// digits, no exponent, no thousands separator, no currency sign.
    /// </summary>
    public static bool TryParse(string? text, out Money money)
    {
        money = Zero;
        if (string.IsNullOrEmpty(text)
            || !decimal.TryParse(
                text, NumberStyles.AllowLeadingSign | NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture, out var units))
        {
            return false;
        }

        var dot = text.IndexOf('.', StringComparison.Ordinal);
        if (dot >= 0 && text.Length - dot - 1 > 9) return false;
        if (Math.Abs(units) > long.MaxValue / (decimal)NanosPerUnit) return false;
        money = new Money((long)(units * NanosPerUnit));
        return true;
    }

    public static Money Parse(string text) => TryParse(text, out var money)
        ? money
        : throw new FormatException(
            $"'{text}' is not an amount of dollars: write a decimal with at most nine fractional digits, such as 2.50");

    public static Money operator +(Money left, Money right) => new(checked(left.Nanos + right.Nanos));
    public static Money operator -(Money left, Money right) => new(checked(left.Nanos - right.Nanos));
    public static Money operator -(Money value) => new(checked(-value.Nanos));
    public static Money operator *(Money left, long right) => new(checked(left.Nanos * right));
    public static bool operator <(Money left, Money right) => left.Nanos < right.Nanos;
    public static bool operator >(Money left, Money right) => left.Nanos > right.Nanos;
    public static bool operator <=(Money left, Money right) => left.Nanos <= right.Nanos;
    public static bool operator >=(Money left, Money right) => left.Nanos >= right.Nanos;

    public static Money Min(Money left, Money right) => left <= right ? left : right;
    public static Money Max(Money left, Money right) => left >= right ? left : right;

    /// <summary>Rounded up to a whole cent: an amount that, once added, surely suffices.</summary>
    public Money CeilingToCent()
    {
        const long cent = NanosPerUnit / 100;
        var rest = Nanos % cent;
        return rest == 0 ? this : new(checked(Nanos - rest + (Nanos > 0 ? cent : 0)));
    }

    public int CompareTo(Money other) => Nanos.CompareTo(other.Nanos);

    /// <summary>The exact amount as a decimal string with at least two fractional digits: <c>2.50</c>, <c>0.000000070</c> as
    /// <c>0.00000007</c>.</summary>
    public string ToDecimalString() => ((decimal)Nanos / NanosPerUnit).ToString("0.00#######", CultureInfo.InvariantCulture);

    /// <summary>
    /// The amount for a person: <c>$2.50</c>, <c>-$0.10</c>. Cents, unless the amount is under a dollar and has finer
    /// digits: then up to four significant places (<c>$0.0417</c>). Rounded towards zero, so that nobody is shown money that is not there.
    /// </summary>
    public override string ToString()
    {
        var sign = Nanos < 0 ? "-" : "";
        var units = Math.Abs((decimal)Nanos / NanosPerUnit);
        var digits = units is < 1m and > 0m ? 4 : 2;
        var scale = digits == 4 ? 10_000m : 100m;
        var shown = decimal.Truncate(units * scale) / scale;
        return $"{sign}${shown.ToString(digits == 4 ? "0.00##" : "0.00", CultureInfo.InvariantCulture)}";
    }
}
