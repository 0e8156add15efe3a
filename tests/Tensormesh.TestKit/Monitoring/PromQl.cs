using System.Text.RegularExpressions;

namespace Tensormesh.TestKit;

/// <summary>Takes expressions apart, as far as tests of alerts need it: an alert that is silent has no result, and what it compares has.</summary>
public static partial class PromQl
{
    private static readonly string[] Comparisons = ["==", "!=", ">=", "<=", ">", "<"];
    private static readonly string[] SetOperators = ["and", "or", "unless"];

    /// <summary>What the expression compares at its top level: each side of each comparison that is no number. The whole of it where it compares nothing.</summary>
    public static IReadOnlyList<string> Operands(string expression) =>
    [
        .. Split(expression, SetOperators, isWord: true).SelectMany(part => Split(WithoutMatching(part), Comparisons, isWord: false))
            .Select(side => side.Trim()).Where(side => !double.TryParse(side, System.Globalization.CultureInfo.InvariantCulture, out _)),
    ];

    /// <summary>Every series that the expression asks for, with its labels and without ranges.</summary>
    public static IReadOnlyList<string> Selectors(string expression) => [.. Selector().Matches(expression).Select(match => match.Value).Distinct()];

    /// <summary>Cuts at the operators that stand in no bracket and no string.</summary>
    private static List<string> Split(string expression, string[] operators, bool isWord)
    {
        var (parts, begin, depth, quoted) = (new List<string>(), 0, 0, false);
        for (var i = 0; i < expression.Length; i++)
        {
            if (expression[i] == '"') quoted = !quoted;
            if (quoted) continue;
            if (expression[i] is '(' or '[' or '{') depth++;
            if (expression[i] is ')' or ']' or '}') depth--;
            if (depth > 0 || operators.FirstOrDefault(each => Stands(expression, i, each, isWord)) is not { } found) continue;
            parts.Add(expression[begin..i]);
            i += found.Length - 1;
            begin = i + 1;
        }

        return [.. parts, expression[begin..]];
    }

    private static bool Stands(string expression, int at, string text, bool isWord)
        => string.CompareOrdinal(expression, at, text, 0, text.Length) == 0
            && (!isWord || (IsGap(expression, at - 1) && IsGap(expression, at + text.Length)));

    private static bool IsGap(string expression, int at) => at < 0 || at >= expression.Length || !(char.IsLetterOrDigit(expression[at]) || expression[at] == '_');

    /// <summary>Without the <c>on (...)</c> of the set operator before it.</summary>
    private static string WithoutMatching(string part) => Matching().Replace(part, "");

    [GeneratedRegex(@"^\s*(on|ignoring)\s*\([^)]*\)")]
    private static partial Regex Matching();

    [GeneratedRegex("tensormesh_[a-z_]+(\\{[^}]*\\})?")]
    private static partial Regex Selector();
}
