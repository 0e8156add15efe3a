using System.Text.Json;

namespace Tensormesh.TestKit;

/// <summary>One kind of request that one of the product's own accounts was allowed, or refused.</summary>
/// <param name="Account">Its service account's name.</param>
/// <param name="Program">The user agent without its version: a test that acts in the account's name is not the product.</param>
/// <param name="Group">Empty for the core group.</param>
/// <param name="Resource">With its subresource after a slash.</param>
/// <param name="Name">Empty where none was named: a list, or a creation.</param>
public sealed record UsedRight(string Account, string Program, string Verb, string Group, string Resource, string Name, bool Allowed)
{
    /// <summary>Where every cluster of a test run leaves what was used of it.</summary>
    public static string Folder => Repository.Folder("artifacts", "rights");

    /// <summary>Each once.</summary>
    public static IReadOnlyCollection<UsedRight> Read(string auditLog)
    {
        HashSet<UsedRight> rights = [];
        if (!File.Exists(auditLog)) return rights;
        using var reader = new StreamReader(new FileStream(auditLog, FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete));
        while (reader.ReadLine() is { } line)
        {
            rights.UnionWith(Parse(line));
        }

        return rights;
    }

    /// <summary>Adds what a cluster's log says to what this run has used so far.</summary>
    internal static void Record(string auditLog, string cluster)
    {
        var rights = Read(auditLog);
        if (rights.Count == 0) return;
        Directory.CreateDirectory(Folder);
        File.WriteAllLines(Path.Combine(Folder, cluster + ".jsonl"), rights.Select(right => JsonSerializer.Serialize(right)));
    }

    /// <summary>What all clusters of the run left.</summary>
    public static IReadOnlyCollection<UsedRight> ReadRecorded() => Directory.Exists(Folder)
        ? [.. Directory.EnumerateFiles(Folder, "*.jsonl").SelectMany(File.ReadLines).Select(line => JsonSerializer.Deserialize<UsedRight>(line)!).Distinct()]
        : [];

    /// <summary>Server-side apply of what is not there yet is one request and two rights: it patches, and it creates.</summary>
    private static IEnumerable<UsedRight> Parse(string line)
    {
        JsonElement entry;
        try
        {
            using var document = JsonDocument.Parse(line);
            entry = document.RootElement.Clone();
        }
        catch (JsonException)
        {
            // The line that the server is writing.
            yield break;
        }

        if (!entry.TryGetProperty("objectRef", out var asked)) yield break;
        var resource = Text(asked, "resource") + (Text(asked, "subresource") is { Length: > 0 } sub ? "/" + sub : "");
        var verb = Text(entry, "verb");
        var right = new UsedRight(
            Text(entry.GetProperty("user"), "username").Split(':')[^1], Text(entry, "userAgent").Split('/')[0], verb, Text(asked, "apiGroup"), resource,
            verb == "create" ? "" : Text(asked, "name"), entry.TryGetProperty("annotations", out var notes) && Text(notes, "authorization.k8s.io/decision") == "allow");
        yield return right;
        if (verb == "patch" && entry.TryGetProperty("responseStatus", out var answer) && answer.TryGetProperty("code", out var code) && code.GetInt32() == (int)System.Net.HttpStatusCode.Created)
            yield return right with { Verb = "create", Name = "" };
    }

    private static string Text(JsonElement of, string name) => of.TryGetProperty(name, out var value) ? value.GetString() ?? "" : "";
}
