namespace Tensormesh.TestKit;

/// <summary>Executables, kinds and rights that belong together: those of the working tree, or of an earlier commit.</summary>
/// <param name="Crds">Folder of the kinds.</param>
/// <param name="OperatorRights">File of the operator's rights.</param>
public sealed record ProductVersion(string Name, Func<string, string, string> Executable, string Crds, string OperatorRights)
{
    public static ProductVersion Current { get; } = new("the working tree", Repository.Executable, Repository.Folder("crds"), Repository.Folder("manifests", "base", "operator-rbac.yaml"));

    /// <summary>
    /// Publishes an earlier commit into the cache, which takes a minute or two once.
    /// </summary>
    /// <returns>Null where the history is cut off before it: a clone of the newest commits alone.</returns>
    public static async Task<ProductVersion?> OfCommitAsync(string commit, Action<string> say, CancellationToken cancellation)
    {
        ArgumentNullException.ThrowIfNull(say);
        var folder = Path.Combine(StateRoot.CacheDirectory, "versions", commit);
        var source = Path.Combine(folder, "source");
        await using var onlyOne = await StateRoot.LockAsync(folder + ".lock", () => say("another start is publishing the previous version; waiting for it"), cancellation);
        if (!File.Exists(Path.Combine(folder, "done")))
        {
            var (missing, _) = await Command.TryRunAsync("git", ["-C", Repository.Root, "cat-file", "-e", commit + "^{commit}"], line: null, cancellation);
            if (missing != 0) return null;
            say($"publishing the previous version, {commit[..7]}");
            if (Directory.Exists(folder)) Directory.Delete(folder, recursive: true);
            Directory.CreateDirectory(source);
            var archive = Path.Combine(folder, "source.tar");
            await Command.RunAsync("git", ["-C", Repository.Root, "archive", "--output", archive, commit], cancellation);
            await Command.RunAsync("tar", ["-xf", archive, "-C", source], cancellation);
            File.Delete(archive);
            foreach (var project in (string[])["Tensormesh.Operator", "Tensormesh.Web"])
                await Command.RunAsync("dotnet", ["publish", Path.Combine(source, "src", project), "-c", "Release", "--no-self-contained", "-o", Path.Combine(folder, project), "-v", "quiet", "--nologo"], cancellation);
            // The sources' own build is of no more use.
            Directory.Delete(Path.Combine(source, "artifacts"), recursive: true);
            await File.WriteAllTextAsync(Path.Combine(folder, "done"), "", cancellation);
        }

        // Manifests moved once.
        var rights = ((string[])["manifests/base/operator-rbac.yaml", "manifests/rbac.yaml"]).Select(file => Path.Combine(source, file)).First(File.Exists);
        return new ProductVersion(commit[..7], (project, executable) => Path.Combine(folder, project, executable + ".dll"), Path.Combine(source, "crds"), rights);
    }
}
