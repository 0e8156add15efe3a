using System.Globalization;
using System.Text.Json;

namespace Tensormesh.Console.Tests;

/// <summary>Money of the API as the console's exact amounts write it.</summary>
internal static class Figures
{
    public static string Amount(JsonElement money)
    {
        var nanos = (decimal)long.Parse(money.GetProperty("units").GetString()!, CultureInfo.InvariantCulture) * 1_000_000_000 + money.GetProperty("nanos").GetInt32();
        return (nanos / 1_000_000_000).ToString("0.00#######", CultureInfo.InvariantCulture);
    }

    public static string Amount(JsonElement answer, params string[] path) => Amount(path.Aggregate(answer, (json, member) => json.GetProperty(member)));

    public static decimal Number(string amount) => decimal.Parse(amount, CultureInfo.InvariantCulture);
}
