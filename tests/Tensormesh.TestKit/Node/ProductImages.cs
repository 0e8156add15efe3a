using System.Security.Cryptography;
using System.Text;

namespace Tensormesh.TestKit;

/// <summary>
/// The product's images, built by buildah from the repository's Dockerfile and from what this machine publishes, on bases that hold just what the
/// executables are linked against: for the agent the C library, for the others this machine's .NET as well. Nothing is pulled from
/// anywhere. What was built is kept in the cache until its parts or the Dockerfile are others.
/// </summary>
internal static class ProductImages
{
    /// <summary>Of as many builds of one image the archive is kept: several work trees share the cache.</summary>
    private const int KeptArchives = 4;

    /// <summary>Layers that were made from the same files have the same digest, whenever they were made.</summary>
    private const string Timestamp = "1767225600";

    private static readonly UTF8Encoding Utf8 = new(encoderShouldEmitUTF8Identifier: false);

    private static string Folder => Path.Combine(StateRoot.CacheDirectory, "images");

    public static string Reference(string target) => $"tensormesh.ai/{target}:dev";

    /// <summary>Returns the archive of the agent's image, as <c>ctr images import</c> takes it.</summary>
    public static Task<string> EnsureAgentAsync(Action<string> say, CancellationToken cancellation) => EnsureAsync(
        "agent", async () => Path.GetDirectoryName(await AgentProcess.PublishAsync(say, cancellation))!, "RUNTIME_IMAGE",
        published => LibrariesAsync(FilesBelow(published), cancellation), say, cancellation);

    /// <summary>The same of the operator's.</summary>
    public static Task<string> EnsureOperatorAsync(Action<string> say, CancellationToken cancellation) => EnsureDotnetAsync("operator", "Tensormesh.Operator", say, cancellation);

    /// <summary>The same of the Web API's.</summary>
    public static Task<string> EnsureWebAsync(Action<string> say, CancellationToken cancellation) => EnsureDotnetAsync("web", "Tensormesh.Web", say, cancellation);

    private static Task<string> EnsureDotnetAsync(string target, string project, Action<string> say, CancellationToken cancellation) => EnsureAsync(
        target, () => PublishAsync(target, project, say, cancellation), "ASPNET_IMAGE", _ => RuntimeAsync(cancellation), say, cancellation);

    private static async Task<string> EnsureAsync(
        string target, Func<Task<string>> publish, string baseArgument, Func<string, Task<IReadOnlyList<string>>> baseFiles, Action<string> say, CancellationToken cancellation)
    {
        await Prerequisites.EnsureImageBuildAsync(say, cancellation);
        await using var onlyOne = await StateRoot.LockAsync(Folder + ".lock", () => say("another start is building images; waiting for it"), cancellation);
        Directory.CreateDirectory(Folder);
        var published = await publish();
        var files = await baseFiles(published);
        var baseKey = Key(files.Select(file => (file, file)));
        var dockerfile = Repository.Folder("Dockerfile");
        var key = Key(FilesBelow(published).Select(file => (Path.GetRelativePath(published, file), file)).Append(("Dockerfile", dockerfile)), baseKey);
        var archive = Path.Combine(Folder, $"{target}-{key}.tar");
        if (File.Exists(archive))
        {
            File.SetLastWriteTimeUtc(archive, TimeProvider.System.GetUtcNow().UtcDateTime);
            return archive;
        }

        say($"building the image {Reference(target)}");
        var @base = await EnsureBaseAsync(baseArgument == "ASPNET_IMAGE" ? "aspnet" : "runtime-deps", baseKey, files, cancellation);
        var half = archive + ".new";
        File.Delete(half);
        // Nothing is copied from the context: what the target needs is handed in by name.
        var context = Directory.CreateDirectory(Path.Combine(Folder, "empty")).FullName;
        await BuildahAsync(
            ["build", "--isolation", "chroot", "--pull-never", "--timestamp", Timestamp, "--target", target, "--build-arg", $"{baseArgument}={@base}",
                "--build-context", $"published-{target}={published}", "--tag", Reference(target), "--file", dockerfile, context], cancellation);
        await BuildahAsync(["push", "--quiet", Reference(target), $"docker-archive:{half}:{Reference(target)}"], cancellation);
        await BuildahAsync(["rmi", Reference(target)], cancellation);
        File.Move(half, archive, overwrite: true);
        foreach (var old in Directory.EnumerateFiles(Folder, target + "-*.tar").OrderByDescending(File.GetLastWriteTimeUtc).Skip(KeptArchives)) File.Delete(old);
        return archive;
    }

    /// <summary>Publishes what is in the working tree, as the Dockerfile does.</summary>
    private static async Task<string> PublishAsync(string target, string project, Action<string> say, CancellationToken cancellation)
    {
        var folder = Repository.Folder("artifacts", "published", target);
        say($"publishing {project}");
        // What was left from before would be published once more.
        if (Directory.Exists(folder)) Directory.Delete(folder, recursive: true);
        await Command.RunAsync(
            "dotnet", ["publish", Repository.Folder("src", project), "-c", "Release", "--no-self-contained", "-p:Sbom=true", "-o", folder, "-v", "quiet", "--nologo"], cancellation);
        return folder;
    }

    /// <summary>What programs are linked against, and OpenSSL, which .NET looks up when it first needs it.</summary>
    private static async Task<IReadOnlyList<string>> LibrariesAsync(IEnumerable<string> programs, CancellationToken cancellation)
    {
        var openSsl = (await Command.RunAsync("ldconfig", ["-p"], cancellation)).Split('\n')
            .Where(line => line.Contains("libssl.so.3 ", StringComparison.Ordinal) || line.Contains("libcrypto.so.3 ", StringComparison.Ordinal))
            .Select(line => line.Split("=> ")[^1].Trim()).ToArray();
        var linked = await SharedLibraries.OfAsync([.. programs, .. openSsl], cancellation);
        return [.. linked.Concat(openSsl).Distinct()];
    }

    /// <summary>The .NET that runs this very program, time zones, and the authorities that the payment company's certificate is checked against.</summary>
    private static async Task<IReadOnlyList<string>> RuntimeAsync(CancellationToken cancellation)
    {
        var framework = System.Runtime.InteropServices.RuntimeEnvironment.GetRuntimeDirectory().TrimEnd('/');
        var (root, version) = (Path.GetFullPath(Path.Combine(framework, "..", "..", "..")), Path.GetFileName(framework));
        // A trace provider for a tracer that is seldom installed; .NET does without.
        string[] dotnet =
        [
            Path.Combine(root, "dotnet"),
            .. FilesBelow(Path.Combine(root, "host")), .. FilesBelow(framework), .. FilesBelow(Path.Combine(root, "shared", "Microsoft.AspNetCore.App", version)),
        ];
        var kept = dotnet.Where(file => Path.GetFileName(file) != "libcoreclrtraceptprovider.so").ToArray();
        var libraries = await LibrariesAsync(kept.Where(file => file.EndsWith(".so", StringComparison.Ordinal) || file == dotnet[0]), cancellation);
        return [.. kept, .. libraries, "/etc/ssl/certs/ca-certificates.crt", .. FilesBelow("/usr/share/zoneinfo")];
    }

    private static async Task<string> EnsureBaseAsync(string kind, string key, IReadOnlyList<string> files, CancellationToken cancellation)
    {
        var name = $"localhost/tensormesh-{kind}";
        var image = $"{name}:{key}";
        var (missing, _) = await Command.TryRunAsync("buildah", [.. Storage, "inspect", "--type", "image", image], line: null, cancellation);
        if (missing == 0) return image;
        // Only the newest is of use.
        foreach (var old in (await BuildahAsync(["images", "--quiet", "--filter", $"reference={name}"], cancellation)).Split('\n', StringSplitOptions.RemoveEmptyEntries).Distinct())
            await BuildahAsync(["rmi", "--force", old], cancellation);
        var root = Path.Combine(Folder, "base");
        if (Directory.Exists(root)) Directory.Delete(root, recursive: true);
        foreach (var file in files)
        {
            var copy = root + file;
            Directory.CreateDirectory(Path.GetDirectoryName(copy)!);
            File.Copy(file, copy, overwrite: true);
        }

        var settings = new StringBuilder("FROM scratch\nCOPY . /\n");
        if (files.FirstOrDefault(file => Path.GetFileName(file) == "dotnet") is { } host) settings.Append($"ENV PATH={Path.GetDirectoryName(host)} SSL_CERT_DIR=/etc/ssl/certs\n");
        await File.WriteAllTextAsync(Path.Combine(Folder, "Dockerfile.base"), settings.ToString(), Utf8, cancellation);
        await BuildahAsync(
            ["build", "--isolation", "chroot", "--timestamp", Timestamp, "--tag", image, "--file", Path.Combine(Folder, "Dockerfile.base"), root], cancellation);
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
