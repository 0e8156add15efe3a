using System.Globalization;

namespace Tensormesh.Simulation.Tests;

/// <summary>Which stories a run tells: the only place that reads its environment.</summary>
internal static class Seeds
{
    public const string Variable = "TENSORMESH_SEED";
    private const string CountVariable = "TENSORMESH_SEEDS";
    private const int Default = 300;

    /// <summary>The one that is to be told again; null: many.</summary>
    public static int? One { get; } = Number(Variable);

    public static int Count { get; } = Number(CountVariable) ?? Default;

    private static int? Number(string variable)
        => int.TryParse(Environment.GetEnvironmentVariable(variable), CultureInfo.InvariantCulture, out var number) ? number : null;
}
