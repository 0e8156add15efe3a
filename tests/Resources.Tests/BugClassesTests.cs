using System.Text.RegularExpressions;

namespace Resources.Tests;

/// <summary>docs/bug-classes.md names tests of all projects: one that was renamed or taken away must be seen there.</summary>
public sealed partial class BugClassesTests
{
    private const int Classes = 44;

    private static readonly ILookup<string, string> Sources = Directory
        .EnumerateFiles(Path.Combine(Repository.Root, "tests"), "*.cs", SearchOption.AllDirectories)
        .ToLookup(file => Path.GetFileNameWithoutExtension(file), File.ReadAllText, StringComparer.Ordinal);

    private static readonly string[][] Rows =
    [
        .. Repository.Text("docs/bug-classes.md").Split('\n')
            .Where(line => line.StartsWith("| ", StringComparison.Ordinal) && char.IsAsciiDigit(line[2]))
            .Select(line => line.Split('|', StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries)),
    ];

    [Fact]
    public void Every_bug_class_has_one_row_with_its_tests_or_what_will_bring_them()
    {
        Assert.Equal(Enumerable.Range(1, Classes).Select(number => $"{number}"), Rows.Select(row => row[0]));
        Assert.All(Rows, row => Assert.True(row[2].StartsWith("not yet: ", StringComparison.Ordinal) != Named().IsMatch(row[2]), row[0]));
    }

    [Fact]
    public void Every_test_that_is_named_exists()
    {
        var missing = Rows.SelectMany(row => Named().Matches(row[2])).Where(named => !Exists(named.Groups["class"].Value, named.Groups["method"].Value));
        Assert.Empty(missing.Select(named => named.Value));
    }

    private static bool Exists(string name, string method) => Sources[name].Any(text =>
        text.Contains($" class {name}", StringComparison.Ordinal)
            && (method.Length == 0 || Regex.IsMatch(text, $@"public (async Task|Task|void) {method}\(")));

    [GeneratedRegex(@"`(?<class>[A-Z]\w+)(\.(?<method>[A-Z]\w+))?`")]
    private static partial Regex Named();
}
