using System.Diagnostics.CodeAnalysis;
using System.Globalization;
using System.Text;
using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Serialization;
using Tensormesh.Billing;

namespace Tensormesh.Web;

/// <summary>How JSON is read and written: lowerCamelCase, unknown fields ignored, a field given twice refused.</summary>
internal static class Wire
{
    private static readonly string[] InstantFormats =
        ["yyyy-MM-dd'T'HH:mm:sszzz", "yyyy-MM-dd'T'HH:mm:ss.FFFFFFFzzz", "yyyy-MM-dd'T'HH:mm:ss'Z'", "yyyy-MM-dd'T'HH:mm:ss.FFFFFFF'Z'"];

    public const int DefaultPageSize = 20;
    public const int LargestPageSize = 100;

    public static readonly JsonSerializerOptions Json = Configure(new JsonSerializerOptions(JsonSerializerDefaults.Web));

    public static JsonSerializerOptions Configure(JsonSerializerOptions options)
    {
        options.PropertyNamingPolicy = JsonNamingPolicy.CamelCase;
        options.PropertyNameCaseInsensitive = false;
        options.NumberHandling = JsonNumberHandling.Strict;
        options.AllowDuplicateProperties = false;
        options.MaxDepth = 16;
        // Answers are never part of a page, and people read them in a terminal: an apostrophe stays an apostrophe.
        options.Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping;
        return options;
    }

    /// <summary><c>GpuUsage</c> with prefix <c>TRANSACTION_TYPE</c> is <c>TRANSACTION_TYPE_GPU_USAGE</c>.</summary>
    public static string EnumName(string prefix, string pascalCase)
    {
        var name = new StringBuilder(prefix);
        foreach (var letter in pascalCase)
        {
            if (char.IsUpper(letter)) name.Append('_');
            name.Append(char.ToUpperInvariant(letter));
        }

        return name.ToString();
    }

    /// <summary>An instant with its offset; null where there is none.</summary>
    public static bool TryReadInstant(string? text, string field, out DateTimeOffset? instant, [NotNullWhen(false)] out Problem? refusal)
    {
        (instant, refusal) = (null, null);
        if (string.IsNullOrEmpty(text)) return true;
        // Years that every calendar here can count with, and a little to spare on both sides.
        if (DateTimeOffset.TryParseExact(text, InstantFormats, CultureInfo.InvariantCulture, DateTimeStyles.AssumeUniversal, out var read) && read.Year is >= 2000 and <= 9000)
        {
            instant = read.ToUniversalTime();
            return true;
        }

        refusal = Problem.Invalid(field, $"'{field}' must be an instant with its offset, such as 2026-03-01T00:00:00Z, from the year 2000 on.");
        return false;
    }

    /// <summary>A size above the largest is served as the largest, as list methods of this family of APIs do.</summary>
    public static bool TryReadPageSize(string? text, out int size, [NotNullWhen(false)] out Problem? refusal)
    {
        (size, refusal) = (DefaultPageSize, null);
        if (string.IsNullOrEmpty(text)) return true;
        if (int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out var asked))
        {
            size = asked == 0 ? DefaultPageSize : Math.Min(asked, LargestPageSize);
            return true;
        }

        refusal = Problem.Invalid("pageSize", $"pageSize must be a whole number from 1 to {LargestPageSize}; left out or 0, it is {DefaultPageSize}.");
        return false;
    }
}

/// <summary>
/// Money on the wire: <c>{ "currencyCode": "USD", "units": "12", "nanos": 500000000 }</c>. Units are whole dollars as a string (64-bit),
/// nanos are 10^-9 dollars within one dollar, of the same sign. Left out, either is zero.
/// </summary>
internal sealed record MoneyJson
{
    public const int LargestNanos = 999_999_999;

    public string? CurrencyCode { get; init; }

    [JsonNumberHandling(JsonNumberHandling.AllowReadingFromString | JsonNumberHandling.WriteAsString)]
    public long Units { get; init; }

    public int Nanos { get; init; }

    public static MoneyJson From(Money money) => new()
    {
        CurrencyCode = Money.Currency,
        Units = money.Nanos / Money.NanosPerUnit,
        Nanos = (int)(money.Nanos % Money.NanosPerUnit),
    };

    /// <summary>Reads an amount above zero. The refusals are in this order: currency, nanos, signs, range, sign of the whole.</summary>
    /// <param name="instead">For an amount below zero: what to use instead.</param>
    public static bool TryReadPositive(MoneyJson? json, string field, string instead, out Money money,
        [NotNullWhen(false)] out Problem? refusal)
    {
        if (TryRead(json, field, out money, out refusal) && money < Money.Zero)
        {
            refusal = Problem.Invalid(field, $"'{field}' is {money}, below zero. {instead}");
        }

        return refusal is null;
    }

    /// <summary>Reads an amount of either sign, but not zero. The refusals are in this order: currency, nanos, signs, range, zero.</summary>
    public static bool TryRead(MoneyJson? json, string field, out Money money, [NotNullWhen(false)] out Problem? refusal)
    {
        money = Money.Zero;
        refusal = json switch
        {
            null => Problem.Invalid(field, $"'{field}' is missing: write it as {{\"currencyCode\": \"USD\", \"units\": \"12\", "
                + $"\"nanos\": 500000000}}."),
            { CurrencyCode: not Money.Currency } => Problem.Invalid($"{field}.currencyCode",
                $"Accounts are in US dollars: write \"{Money.Currency}\" as '{field}.currencyCode'."),
            { Nanos: < -LargestNanos or > LargestNanos } => Problem.Invalid($"{field}.nanos",
                $"'{field}.nanos' is {json.Nanos}: it counts billionths within one dollar, so at most {LargestNanos} either way."),
            { Units: > 0, Nanos: < 0 } or { Units: < 0, Nanos: > 0 } =>
                Problem.Invalid($"{field}.nanos", $"'{field}.units' and '{field}.nanos' must have the same sign."),
            _ when !TryJoin(json, out money) => Problem.Invalid($"{field}.units",
                $"'{field}.units' is {json.Units}: an amount is at most {long.MaxValue / Money.NanosPerUnit} dollars."),
            _ when money == Money.Zero => Problem.Invalid(field, $"'{field}' is zero: write an amount above zero."),
            _ => null,
        };
        return refusal is null;
    }

    private static bool TryJoin(MoneyJson json, out Money money)
    {
        var nanos = (Int128)json.Units * Money.NanosPerUnit + json.Nanos;
        var fits = nanos >= long.MinValue && nanos <= long.MaxValue;
        money = fits ? new Money((long)nanos) : Money.Zero;
        return fits;
    }
}

/// <summary>The answer to a write without a result: <c>{ "empty": {} }</c>.</summary>
internal sealed record Done(Done.Nothing Empty)
{
    public static readonly IResult Result = TypedResults.Ok(new Done(new Nothing()));

    public sealed record Nothing;
}
