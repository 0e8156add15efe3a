using Tensormesh.TestKit;

namespace Tensormesh.Integration.Tests.Monitoring;

public sealed class AlertTests
{
    public static TheoryData<string> Files => [.. Directory.GetFiles(Repository.Folder("manifests", "monitoring"), "*.yaml").Select(file => Path.GetFileNameWithoutExtension(file)).Order()];

    [Theory]
    [MemberData(nameof(Files))]
    public async Task Each_alert_fires_when_it_should_and_only_then_and_leads_to_a_section_of_the_runbook(string file)
    {
        var promtool = await Promtool.EnsureAsync(Console.WriteLine, TestContext.Current.CancellationToken);
        var rules = Repository.Folder("manifests", "monitoring", $"{file}.yaml");
        using var folder = new ScratchFolder();
        File.Copy(rules, Path.Combine(folder.Path, $"{file}.yaml"));
        File.Copy(Repository.Folder("tests", "Integration.Tests", "Monitoring", $"{file}.test.yaml"), Path.Combine(folder.Path, "test.yaml"));

        var (checkedCode, report) = await Command.TryRunAsync(promtool, ["check", "rules", rules], line: null, TestContext.Current.CancellationToken);
        Assert.True(checkedCode == 0, report);
        var (code, output) = await Command.TryRunAsync(promtool, ["test", "rules", Path.Combine(folder.Path, "test.yaml")], line: null, TestContext.Current.CancellationToken);
        Assert.True(code == 0, output);

        var sections = (await File.ReadAllLinesAsync(Repository.Folder("docs", "runbook.md"), TestContext.Current.CancellationToken))
            .Where(line => line.StartsWith("## ", StringComparison.Ordinal)).Select(Anchor).ToHashSet(StringComparer.Ordinal);
        var links = (await File.ReadAllLinesAsync(rules, TestContext.Current.CancellationToken))
            .Where(line => line.Contains("runbook: ", StringComparison.Ordinal)).Select(line => line.Split('#')[1]).ToList();
        Assert.NotEmpty(links);
        Assert.All(links, link => Assert.Contains(link, sections));
    }

    /// <summary>As GitHub makes them: letters, digits, dashes and underscores, in lower case, blanks as dashes.</summary>
    private static string Anchor(string heading) => string.Concat(
        heading[3..].ToLowerInvariant().Select(letter => letter == ' ' ? '-' : letter).Where(letter => char.IsLetterOrDigit(letter) || letter is '-' or '_'));

    private sealed class ScratchFolder : IDisposable
    {
        public string Path { get; } = Directory.CreateTempSubdirectory("tensormesh-alerts-").FullName;

        public void Dispose() => Directory.Delete(Path, recursive: true);
    }
}
