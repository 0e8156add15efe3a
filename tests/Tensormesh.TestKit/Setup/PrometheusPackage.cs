namespace Tensormesh.TestKit;

/// <summary>Prometheus itself, and promtool, its own checker of rules and metrics.</summary>
public static class PrometheusPackage
{
    public static Task<string> PromtoolAsync(Action<string> say, CancellationToken cancellation) => EnsureAsync("promtool", say, cancellation);

    public static Task<string> PrometheusAsync(Action<string> say, CancellationToken cancellation) => EnsureAsync("prometheus", say, cancellation);

    /// <summary>The program's path. Where it is not installed, it is taken out of Debian's package, which would start a server if it were installed.</summary>
    private static async Task<string> EnsureAsync(string name, Action<string> say, CancellationToken cancellation)
    {
        if (Command.Find(name) is { } installed) return installed;
        var folder = Path.Combine(StateRoot.CacheDirectory, "prometheus");
        var program = Path.Combine(folder, "usr", "bin", name);
        await using var onlyOne = await StateRoot.LockAsync(folder + ".lock", waiting: null, cancellation);
        if (File.Exists(program)) return program;
        if (Command.Find("apt-get") is null)
        {
            throw new InvalidOperationException($"Alerts and metrics are checked with {name}, which is not on the PATH: install Prometheus, which brings it.");
        }

        say($"unpacking {name} from Debian's package prometheus");
        var download = Path.Combine(folder, "download");
        Directory.CreateDirectory(download);
        await Command.RunAsync("/bin/sh", ["-c", "cd \"$0\" && { apt-get download -q prometheus || { apt-get update -q && apt-get download -q prometheus; }; } && dpkg-deb -x prometheus_*.deb ..", download], cancellation);
        Directory.Delete(download, recursive: true);
        return program;
    }
}
