using System.Globalization;

namespace Tensormesh.Billing;

/// <summary>A price cannot take effect at the instant that was asked for: nobody's bill of the past changes, and no bill is made of a price that
/// may yet be withdrawn.</summary>
public sealed class PriceInstantException : ArgumentException
{
    private PriceInstantException(string message) : base(message) { }

    internal static PriceInstantException InTheFuture(string book, string item, DateTimeOffset effectiveAt, DateTimeOffset now) => new(
        $"the price of {item} in book {book} cannot take effect in the future, at {Stamp(effectiveAt)}: it is {Stamp(now)} by the ledger's clock. "
        + "Publish it when it is due");

    internal static PriceInstantException InThePast(string book, string item, DateTimeOffset effectiveAt, DateTimeOffset last) => new(
        $"the price of {item} in book {book} cannot take effect at {Stamp(effectiveAt)}, before the version that it replaces, of {Stamp(last)}: what was "
        + "charged stands. Publish it from now on, and give back what was charged too much as an adjustment");

    private static string Stamp(DateTimeOffset time) => time.ToString("yyyy-MM-dd'T'HH:mm:ss'Z'", CultureInfo.InvariantCulture);
}
