using System.Security.Cryptography;
using System.Text;

namespace Tensormesh.TestKit;

/// <summary>
/// The agent's image, built by buildah from the repository's Dockerfile and the agent as this machine publishes it, on a base that holds the
/// libraries that it is linked against. Nothing is pulled from anywhere. What was built is kept in the cache until the agent, the
/// libraries or the Dockerfile is another one.
/// </summary>
internal static class AgentImage
{
    public const string Reference = "tensormesh.ai/agent:dev";

    private const string Base = "localhost/tensormesh-runtime";

    /// <summary>Of as many builds the archive is kept: several work trees share the cache.</summary>
    private const int KeptArchives = 4;

    private static readonly UTF8Encoding Utf8 = new(encoderShouldEmitUTF8Identifier: false);

    private static string Folder => Path.Combine(StateRoot.CacheDirectory, "images");

    /// <summary>Returns the archive of the image, as <c>ctr images import</c> takes it.</summary>
    public static async Task<string> EnsureAsync(Action<string> say, CancellationToken cancellation)
    {
        await Prerequisites.EnsureImageBuildAsync(say, cancellation);
        await using var onlyOne = await StateRoot.LockAsync(
            Folder + ".lock", () => say("another start is building the agent's image; waiting for it"), cancellation);
        Directory.CreateDirectory(Folder);
        var published = Path.GetDirectoryName(await AgentProcess.PublishAsync(say, cancellation))!;
        var libraries = await LibrariesAsync(published, cancellation);
        var baseKey = Key(libraries.Select(file => (file, file)));
        var dockerfile = Repository.Folder("Dockerfile");
        var key = Key(
            FilesBelow(published).Select(file => (Path.GetRelativePath(published, file), file)).Append(("Dockerfile", dockerfile)), baseKey);
        var archive = Path.Combine(Folder, $"agent-{key}.tar");
        if (File.Exists(archive))
        {
            File.SetLastWriteTimeUtc(archive, TimeProvider.System.GetUtcNow().UtcDateTime);
            return archive;
        }

        say("building the agent's image");
        var @base = await EnsureBaseAsync(baseKey, libraries, cancellation);
        var half = archive + ".new";
        File.Delete(half);
        // Nothing is copied from the context: what the target needs is handed in by name.
        var context = Directory.CreateDirectory(Path.Combine(Folder, "empty")).FullName;
        await BuildahAsync(
            ["build", "--isolation", "chroot", "--pull-never", "--target", "agent", "--build-arg", $"RUNTIME_IMAGE={@base}",
                "--build-context", $"published-agent={published}", "--tag", Reference, "--file", dockerfile, context], cancellation);
        await BuildahAsync(["push", "--quiet", Reference, $"docker-archive:{half}:{Reference}"], cancellation);
        await BuildahAsync(["rmi", Reference], cancellation);
        File.Move(half, archive, overwrite: true);
        foreach (var old in Directory.EnumerateFiles(Folder, "agent-*.tar").OrderByDescending(File.GetLastWriteTimeUtc).Skip(KeptArchives)) File.Delete(old);
        return archive;
    }

    /// <summary>What the executables are linked against, and OpenSSL, which .NET looks up when it first needs it.</summary>
    private static async Task<IReadOnlyList<string>> LibrariesAsync(string published, CancellationToken cancellation)
    {
        var openSsl = (await Command.RunAsync("ldconfig", ["-p"], cancellation)).Split('\n')
            .Where(line => line.Contains("libssl.so.3 ", StringComparison.Ordinal) || line.Contains("libcrypto.so.3 ", StringComparison.Ordinal))
            .Select(line => line.Split("=> ")[^1].Trim()).ToArray();
        var linked = await SharedLibraries.OfAsync([.. FilesBelow(published), .. openSsl], cancellation);
        return [.. linked.Concat(openSsl).Distinct()];
    }

    private static async Task<string> EnsureBaseAsync(string key, IReadOnlyList<string> files, CancellationToken cancellation)
    {
        var image = $"{Base}:{key}";
        var (missing, _) = await Command.TryRunAsync("buildah", [.. Storage, "inspect", "--type", "image", image], line: null, cancellation);
        if (missing == 0) return image;
        // Only the newest is of use.
        await BuildahAsync(["rmi", "--all", "--force"], cancellation);
        var root = Path.Combine(Folder, "base");
        if (Directory.Exists(root)) Directory.Delete(root, recursive: true);
        foreach (var file in files)
        {
            var copy = root + file;
            Directory.CreateDirectory(Path.GetDirectoryName(copy)!);
            File.Copy(file, copy, overwrite: true);
        }

        await File.WriteAllTextAsync(Path.Combine(root, "Dockerfile"), "FROM scratch\nCOPY . /\n", Utf8, cancellation);
        await BuildahAsync(["build", "--isolation", "chroot", "--tag", image, "--file", Path.Combine(root, "Dockerfile"), root], cancellation);
        Directory.Delete(root, recursive: true);
        return image;
    }

    /// <summary>In the cache, and apart from whatever the machine's own user builds. vfs asks the least of a kernel.</summary>
    private static string[] Storage =>
        ["--root", Path.Combine(Folder, "storage"), "--runroot", Path.Combine(Folder, "run"), "--storage-driver", "vfs"];

    private static Task<string> BuildahAsync(IEnumerable<string> arguments, CancellationToken cancellation) =>
        Command.RunAsync("buildah", [.. Storage, .. arguments], cancellation);

    private static IEnumerable<string> FilesBelow(string folder) =>
        Directory.EnumerateFiles(folder, "*", SearchOption.AllDirectories).Order(StringComparer.Ordinal);

    /// <summary>Of names and contents: a file that was written again as it was changes nothing.</summary>
    private static string Key(IEnumerable<(string Name, string File)> files, string seed = "")
    {
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        hash.AppendData(Utf8.GetBytes(seed));
        foreach (var (name, file) in files)
        {
            using var content = File.OpenRead(file);
            hash.AppendData(Utf8.GetBytes(name));
            hash.AppendData(SHA256.HashData(content));
        }

        return Convert.ToHexStringLower(hash.GetHashAndReset())[..16];
    }
}
