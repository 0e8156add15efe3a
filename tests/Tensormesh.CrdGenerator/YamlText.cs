using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.RegularExpressions;

namespace Tensormesh.CrdGenerator;

/// <summary>Writes JSON nodes as YAML, always in one way, so that committed files can be compared byte for byte.</summary>
internal static partial class YamlText
{
    private const int Width = 120;

    public static string Write(JsonObject root)
    {
        var text = new StringBuilder();
        Fields(text, root, 0);
        return text.ToString();
    }

    private static void Fields(StringBuilder text, JsonObject fields, int indent)
    {
        foreach (var (key, value) in fields)
        {
            text.Append(' ', indent).Append(Scalar(key)).Append(':');
            Value(text, value, indent);
        }
    }

    private static void Value(StringBuilder text, JsonNode? value, int indent)
    {
        switch (value)
        {
            case JsonObject { Count: 0 }:
                text.Append(" {}\n");
                break;
            case JsonObject fields:
                text.Append('\n');
                Fields(text, fields, indent + 2);
                break;
            case JsonArray list when list.All(item => item is JsonValue):
                text.Append(" [").AppendJoin(", ", list.Select(Scalar)).Append("]\n");
                break;
            case JsonArray list:
                text.Append('\n');
                foreach (var item in list)
                {
                    Item(text, item!.AsObject(), indent);
                }

                break;
            default:
                Line(text, value, indent);
                break;
        }
    }

    private static void Item(StringBuilder text, JsonObject item, int indent)
    {
        var start = text.Length;
        Fields(text, item, indent + 2);
        text[start + indent] = '-';
    }

    private static void Line(StringBuilder text, JsonNode? value, int indent)
    {
        var scalar = Scalar(value);
        if (indent + scalar.Length <= Width
            || value!.GetValueKind() != JsonValueKind.String
            || !Foldable().IsMatch(value.GetValue<string>()))
        {
            text.Append(' ').Append(scalar).Append('\n');
            return;
        }

        text.Append(" >-");
        var column = Width;
        foreach (var word in value.GetValue<string>().Split(' '))
        {
            if (column + 1 + word.Length > Width)
            {
                text.Append('\n').Append(' ', indent + 2).Append(word);
                column = indent + 2 + word.Length;
            }
            else
            {
                text.Append(' ').Append(word);
                column += 1 + word.Length;
            }
        }

        text.Append('\n');
    }

    private static string Scalar(JsonNode? value) =>
        value?.GetValueKind() == JsonValueKind.String ? Scalar(value.GetValue<string>()) : value?.ToJsonString() ?? "null";

    private static string Scalar(string text) =>
        Plain().IsMatch(text) && !Reserved().IsMatch(text) ? text
        : text.Any(char.IsControl) ? JsonSerializer.Serialize(text)
        : $"'{text.Replace("'", "''", StringComparison.Ordinal)}'";

    [GeneratedRegex(@"^[A-Za-z./][A-Za-z0-9 ._/,;()=+-]*\z(?<! )")]
    private static partial Regex Plain();

    // Words that YAML 1.1 readers, such as kubectl's, take for something other than text.
    [GeneratedRegex("^(true|false|yes|no|on|off|null|y|n)$", RegexOptions.IgnoreCase)]
    private static partial Regex Reserved();

    // A folded block keeps its words if no two spaces meet; a single word has no place to fold.
    [GeneratedRegex(@"^\S+( \S+)+\z")]
    private static partial Regex Foldable();
}
