using System.Globalization;
using System.Text;
using System.Text.Encodings.Web;
using Tensormesh.Billing;

namespace Tensormesh.Web;

/// <summary>A statement to print: one page of HTML that needs nothing else. Amounts are exact.</summary>
internal static class StatementPage
{
    private const string Style = """
        body { font: 11pt/1.5 system-ui, sans-serif; max-width: 42rem; margin: 3rem auto; color: #111 }
        table { border-collapse: collapse; width: 100% } th, td { padding: .35rem .5rem; border-bottom: 1px solid #ccc; text-align: left }
        address { font-style: normal; margin: 1rem 0 } .n { text-align: right; font-variant-numeric: tabular-nums } .hash { font: 8pt monospace; overflow-wrap: anywhere; color: #555 }
        @media print { body { margin: 0 } }
        """;

    public static string Render(Statement statement, BillingAddress? address)
    {
        var page = new StringBuilder();
        page.Append(CultureInfo.InvariantCulture, $"""
            <!doctype html>
            <html lang="en">
            <head><meta charset="utf-8"><title>Statement {statement.Month}, {Text(statement.Account.Value)}</title><style>{Style}</style></head>
            <body>
            <h1>Statement {statement.Month}</h1>
            <p>Account {Text(statement.Account.Value)}. {Text(Days(statement))} ({Text(statement.TimeZone)}). US dollars.
            {(statement.ClosedAt is null ? "<strong>Open: it may still change.</strong>" : "Closed.")}</p>
            {Lines(address)}
            <table>
            <thead><tr><th>Item</th><th class="n">Transactions</th><th class="n">Amount</th></tr></thead>
            <tbody>
            <tr><td>Opening balance</td><td></td><td class="n">{statement.OpeningBalance.ToDecimalString()}</td></tr>

            """);
        foreach (var line in statement.Lines)
        {
            page.Append(CultureInfo.InvariantCulture, $"""
                <tr><td>{Text(Words(line.Type))}{(line.Correction ? " (correction of an earlier month)" : "")}</td><td class="n">{line.Transactions}</td><td class="n">{line.Amount.ToDecimalString()}</td></tr>

                """);
        }

        page.Append(CultureInfo.InvariantCulture, $"""
            </tbody>
            <tfoot><tr><th>Closing balance</th><td></td><th class="n">{statement.ClosingBalance.ToDecimalString()}</th></tr></tfoot>
            </table>
            {(statement.Hash.Length > 0 ? $"<p class=\"hash\">SHA-256 {statement.Hash}</p>" : "")}
            </body>
            </html>

            """);
        return page.ToString();
    }

    /// <summary>Where an address was given: to whom it goes.</summary>
    private static string Lines(BillingAddress? address)
    {
        if (address is null) return "";
        string[] lines =
        [
            address.Name, address.Line1, address.Line2, $"{address.PostalCode} {address.City}", address.Region, address.Country,
            address.TaxId.Length > 0 ? $"Tax id {address.TaxId}" : "",
        ];
        return $"<address>{string.Join("<br>", lines.Select(line => line.Trim()).Where(line => line.Length > 0).Select(Text))}</address>";
    }

    private static string Days(Statement statement)
    {
        var calendar = AccountCalendar.Of(statement.TimeZone);
        return $"{Day(statement.Period.From)} to {Day(statement.Period.To.AddMicroseconds(-1))}";

        string Day(DateTimeOffset instant) => calendar.DayOf(instant).ToString("yyyy-MM-dd", CultureInfo.InvariantCulture);
    }

    /// <summary><c>GpuUsageCorrection</c> is <c>Gpu usage correction</c>.</summary>
    private static string Words(string type)
        => string.Concat(type.Select((letter, i) => i > 0 && char.IsUpper(letter) ? $" {char.ToLowerInvariant(letter)}" : letter.ToString()));

    private static string Text(string text) => HtmlEncoder.Default.Encode(text);
}
