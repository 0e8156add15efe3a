using System.Text.Json.Nodes;

namespace Resources.Tests;

/// <summary>The committed files that these tests read.</summary>
internal static class Repository
{
    public static string Root { get; } = FindRoot();

    public static string Text(string path) => File.ReadAllText(Path.Combine(Root, path));

    /// <summary>The schema of a kind as its committed CRD states it.</summary>
    public static JsonObject Schema(string plural) =>
        Yaml.Documents(Text($"crds/{plural}.yaml")).Single()["spec"]!["versions"]![0]!["schema"]!["openAPIV3Schema"]!.AsObject();

    private static string FindRoot()
    {
        var folder = new DirectoryInfo(AppContext.BaseDirectory);
        while (!File.Exists(Path.Combine(folder.FullName, "Tensormesh.Operator.sln")))
        {
            folder = folder.Parent ?? throw new DirectoryNotFoundException($"no Tensormesh.Operator.sln above {AppContext.BaseDirectory}");
        }

        return folder.FullName;
    }
}
