using System.Text.Json.Nodes;

namespace Tensormesh.TestKit;

/// <summary>Something that was measured.</summary>
/// <param name="Bench">The group that it belongs to.</param>
/// <param name="Goal">Such as <c>&gt;=1.0</c>; null when the figure only informs.</param>
/// <param name="Of">What was measured, and against what.</param>
public sealed record Figure(string Bench, string Name, double Value, string Unit, string? Goal, string Of)
{
    // A goal reads ">=1.0", not "\u003E=1.0".
    private static readonly System.Text.Json.JsonSerializerOptions Plain = new()
    {
        Encoder = System.Text.Encodings.Web.JavaScriptEncoder.UnsafeRelaxedJsonEscaping,
    };

    /// <summary>One JSON line on standard output.</summary>
    public void Write() => Console.Out.WriteLine(new JsonObject
    {
        ["bench"] = Bench,
        ["figure"] = Name,
        ["value"] = Math.Round(Value, 3),
        ["unit"] = Unit,
        ["goal"] = Goal,
        ["of"] = Of,
    }.ToJsonString(Plain));
}
