using System.Formats.Tar;
using System.IO.Compression;
using System.Runtime.InteropServices;

namespace Tensormesh.TestKit;

/// <summary>
/// The public release archives: etcd and kube-apiserver from envtest's, the rest of the same version from
/// Kubernetes' own. Where the internet is out of reach this falls through within seconds.
/// </summary>
internal static class ReleaseArchives
{
    private const string Version = "v1.33.0";
    private static readonly TimeSpan ReachLimit = TimeSpan.FromSeconds(4);
    private static readonly TimeSpan FetchLimit = TimeSpan.FromMinutes(10);

    private static readonly string Architecture =
        RuntimeInformation.OSArchitecture == System.Runtime.InteropServices.Architecture.Arm64 ? "arm64" : "amd64";

    private static readonly Uri Envtest = new(
        "https://github.com/kubernetes-sigs/controller-tools/releases/download/"
        + $"envtest-{Version}/envtest-{Version}-linux-{Architecture}.tar.gz");

    private static readonly string[] Programs = ["kube-controller-manager", "kube-scheduler"];

    /// <summary>True when the folder is whole afterwards; it appears under its name only then.</summary>
    public static async Task<bool> TryFetchAsync(string folder, Action<string> say, CancellationToken cancellation)
    {
        using var client = new HttpClient(new SocketsHttpHandler { ConnectTimeout = ReachLimit }) { Timeout = FetchLimit };
        var partial = folder + ".partial";
        try
        {
            using var reach = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
            reach.CancelAfter(ReachLimit);
            using var archive = await client.GetAsync(Envtest, HttpCompletionOption.ResponseHeadersRead, reach.Token);
            reach.CancelAfter(Timeout.InfiniteTimeSpan);
            if (!archive.IsSuccessStatusCode)
                return false;

            say($"fetching Kubernetes {Version} from the public release archives");
            Directory.CreateDirectory(partial);
            await using (var body = await archive.Content.ReadAsStreamAsync(cancellation))
                await ExtractAsync(body, partial, cancellation);
            foreach (var program in Programs)
            {
                say($"fetching {program}");
                await FetchProgramAsync(client, program, partial, cancellation);
            }

            await File.WriteAllTextAsync(Path.Combine(partial, "VERSION"), Version + "\n", cancellation);
            Directory.Move(partial, folder);
            return true;
        }
        catch (Exception unreachable) when (unreachable is HttpRequestException or IOException
            || (unreachable is OperationCanceledException && !cancellation.IsCancellationRequested))
        {
            return false;
        }
        finally
        {
            if (Directory.Exists(partial))
                Directory.Delete(partial, recursive: true);
        }
    }

    /// <summary>Takes the programs out of the archive, whatever folder they stand in.</summary>
    private static async Task ExtractAsync(Stream archive, string folder, CancellationToken cancellation)
    {
        await using var plain = new GZipStream(archive, CompressionMode.Decompress);
        await using var tar = new TarReader(plain);
        while (await tar.GetNextEntryAsync(copyData: false, cancellation) is { } entry)
        {
            if (entry.EntryType is TarEntryType.RegularFile or TarEntryType.V7RegularFile)
                await entry.ExtractToFileAsync(Path.Combine(folder, Path.GetFileName(entry.Name)), overwrite: true, cancellation);
        }
    }

    private static async Task FetchProgramAsync(HttpClient client, string program, string folder, CancellationToken cancellation)
    {
        var source = new Uri($"https://dl.k8s.io/{Version}/bin/linux/{Architecture}/{program}");
        var file = Path.Combine(folder, program);
        await using (var body = await client.GetStreamAsync(source, cancellation))
        await using (var target = File.Create(file))
            await body.CopyToAsync(target, cancellation);
        File.SetUnixFileMode(file, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute | UnixFileMode.GroupRead
            | UnixFileMode.GroupExecute | UnixFileMode.OtherRead | UnixFileMode.OtherExecute);
    }
}
