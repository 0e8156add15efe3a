using System.Collections;
using System.Globalization;
using System.Reflection;
using System.Runtime.CompilerServices;
using Tensormesh.Agent;

namespace Agent.Tests;

/// <summary>The table of src/Tensormesh.Agent/README.md says what the code says.</summary>
public sealed class ReadmeTests
{
    [Fact]
    public void Every_setting_is_in_the_table_with_its_default() => Assert.Equal(
        Settings(new AgentOptions(), AgentOptions.Section.Replace(":", "__", StringComparison.Ordinal)), Table("## Settings").Select(row => (row[0], row[1])));

    private static IEnumerable<(string Name, string Default)> Settings(object options, string prefix) => options.GetType().GetProperties()
        .Where(IsSetting).SelectMany(property => (property.GetValue(options), $"{prefix}__{property.Name}") switch
        {
            (TimeSpan span, var name) => [($"`{name}`", $"`{span:c}`")],
            (bool yes, var name) => [($"`{name}`", yes ? "`true`" : "`false`")],
            (null or "", var name) => [($"`{name}`", "")],
            (string text, var name) => [($"`{name}`", $"`{text}`")],
            (IConvertible value, var name) => [($"`{name}`", $"`{value.ToString(CultureInfo.InvariantCulture)}`")],
            (IEnumerable, var name) => throw new InvalidOperationException($"{name} is a list, which the table has no form for"),
            var (nested, name) => Settings(nested, name),
        });

    /// <summary>What can be set once only is for tests, and not read from the environment.</summary>
    private static bool IsSetting(PropertyInfo property) =>
        property.SetMethod is { IsPublic: true } set && !set.ReturnParameter.GetRequiredCustomModifiers().Contains(typeof(IsExternalInit));

    private static IEnumerable<string[]> Table(string heading) => File
        .ReadLines(Path.Combine(Root(), "src", "Tensormesh.Agent", "README.md"))
        .SkipWhile(line => line != heading).Skip(1).TakeWhile(line => !line.StartsWith("## ", StringComparison.Ordinal))
        .Where(line => line.StartsWith("| `", StringComparison.Ordinal))
        .Select(line => line.Trim('|').Split('|').Select(cell => cell.Trim()).ToArray());

    private static string Root()
    {
        var folder = new DirectoryInfo(AppContext.BaseDirectory);
        while (!File.Exists(Path.Combine(folder!.FullName, "Tensormesh.Operator.sln"))) folder = folder.Parent;
        return folder.FullName;
    }
}
