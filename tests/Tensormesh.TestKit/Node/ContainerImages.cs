using System.Formats.Tar;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;

namespace Tensormesh.TestKit;

/// <summary>
/// The images of the real node, made on the spot: a tar with a layer, a configuration and a manifest each,
/// as `docker save` writes them. Nothing is pulled from anywhere.
/// </summary>
internal static class ContainerImages
{
    public const string Pause = "tensormesh.ai/pause:dev";
    public const string Workload = "tensormesh.ai/workload:dev";

    private const UnixFileMode Executable = UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute
        | UnixFileMode.GroupRead | UnixFileMode.GroupExecute | UnixFileMode.OtherRead | UnixFileMode.OtherExecute;

    // A shell as first process ignores signals that it has no trap for, and would use up the whole grace period.
    private static readonly string[] UntilTold = ["/bin/sh", "-c", "trap 'exit 0' TERM INT; sleep 2147483647 & wait"];

    /// <summary>Writes one archive with both images.</summary>
    /// <param name="applets">The names that busybox answers to; each becomes a link.</param>
    /// <param name="programs">More programs, for /usr/bin.</param>
    /// <param name="libraries">What those need, each at the path that it has on this machine.</param>
    public static void Write(
        string archiveFile, string pauseProgram, string busybox, IEnumerable<string> applets, IEnumerable<string> programs, IEnumerable<string> libraries)
    {
        var pause = Layer(layer => AddFile(layer, "pause", pauseProgram));
        var workload = Layer(layer =>
        {
            foreach (var folder in (string[])["bin", "etc", "proc", "root", "sys", "tmp", "usr", "usr/bin"])
                layer.WriteEntry(new PaxTarEntry(TarEntryType.Directory, folder) { Mode = folder == "tmp" ? Everyone : Executable });
            AddFile(layer, "bin/busybox", busybox);
            foreach (var applet in applets.Where(applet => applet != "busybox"))
                layer.WriteEntry(new PaxTarEntry(TarEntryType.SymbolicLink, "bin/" + applet) { LinkName = "busybox", Mode = Everyone });
            foreach (var program in programs) AddFile(layer, "usr/bin/" + Path.GetFileName(program), program);
            foreach (var library in libraries) AddFile(layer, library.TrimStart('/'), library);
            AddText(layer, "etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n");
            AddText(layer, "etc/group", "root:x:0:\nnobody:x:65534:\n");
        });

        using var archive = new TarWriter(File.Create(archiveFile), TarEntryFormat.Pax);
        var manifest = new[] { Add(archive, Pause, pause, ["/pause"]), Add(archive, Workload, workload, UntilTold) };
        AddText(archive, "manifest.json", JsonSerializer.Serialize(manifest));
    }

    private const UnixFileMode Everyone = Executable | UnixFileMode.GroupWrite | UnixFileMode.OtherWrite | UnixFileMode.StickyBit;

    private static Dictionary<string, object> Add(TarWriter archive, string reference, byte[] layer, string[] entrypoint)
    {
        var digest = Convert.ToHexStringLower(SHA256.HashData(layer));
        var configuration = JsonSerializer.Serialize(new Dictionary<string, object>
        {
            ["architecture"] = System.Runtime.InteropServices.RuntimeInformation.OSArchitecture
                == System.Runtime.InteropServices.Architecture.Arm64 ? "arm64" : "amd64",
            ["os"] = "linux",
            ["config"] = new Dictionary<string, object>
            {
                ["Entrypoint"] = entrypoint,
                // As in NVIDIA's images: where a driver has its libraries once it is mounted.
                ["Env"] = new[] { "PATH=/bin:/usr/bin", $"LD_LIBRARY_PATH={NodeDriver.InContainer}/lib64" },
                ["WorkingDir"] = "/",
            },
            ["rootfs"] = new Dictionary<string, object> { ["type"] = "layers", ["diff_ids"] = new[] { "sha256:" + digest } },
        });
        var name = Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(configuration))) + ".json";
        var layerName = digest + "/layer.tar";
        archive.WriteEntry(new PaxTarEntry(TarEntryType.RegularFile, layerName) { DataStream = new MemoryStream(layer) });
        AddText(archive, name, configuration);
        return new() { ["Config"] = name, ["RepoTags"] = new[] { reference }, ["Layers"] = new[] { layerName } };
    }

    private static byte[] Layer(Action<TarWriter> fill)
    {
        using var content = new MemoryStream();
        using (var layer = new TarWriter(content, TarEntryFormat.Pax, leaveOpen: true))
            fill(layer);
        return content.ToArray();
    }

    private static void AddFile(TarWriter tar, string name, string file)
    {
        using var content = File.OpenRead(file);
        tar.WriteEntry(new PaxTarEntry(TarEntryType.RegularFile, name) { DataStream = content, Mode = Executable });
    }

    private static void AddText(TarWriter tar, string name, string text)
    {
        using var content = new MemoryStream(Encoding.UTF8.GetBytes(text));
        tar.WriteEntry(new PaxTarEntry(TarEntryType.RegularFile, name) { DataStream = content });
    }
}
