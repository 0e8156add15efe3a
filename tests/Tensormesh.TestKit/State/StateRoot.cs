namespace Tensormesh.TestKit;

/// <summary>
/// Where dev clusters of this user keep their state: `$TENSORMESH_STATE`, or a short path in /tmp, because
/// names of Unix sockets end after 107 bytes. Each cluster has one record `ID.cluster.json` there, whatever its folder.
/// </summary>
internal static class StateRoot
{
    public static string Directory =>
        Environment.GetEnvironmentVariable("TENSORMESH_STATE") is { Length: > 0 } named
            ? Path.GetFullPath(named)
            : Environment.UserName == "root" ? "/tmp/tensormesh-dev" : $"/tmp/tensormesh-dev-{Environment.UserName}";

    /// <summary>The cache of built or fetched binaries: `$TENSORMESH_CACHE`, else the XDG cache folder.</summary>
    public static string CacheDirectory =>
        Environment.GetEnvironmentVariable("TENSORMESH_CACHE") is { Length: > 0 } named
            ? Path.GetFullPath(named)
            : Path.Combine(
                Environment.GetEnvironmentVariable("XDG_CACHE_HOME") is { Length: > 0 } cache
                    ? cache
                    : Path.Combine(Environment.GetFolderPath(Environment.SpecialFolder.UserProfile), ".cache"),
                "tensormesh-operator");

    /// <summary>A lock between processes that ends with its holder. Waits while another process holds it.</summary>
    public static async Task<FileStream> LockAsync(string file, Action? waiting, CancellationToken cancellation)
    {
        System.IO.Directory.CreateDirectory(Path.GetDirectoryName(file)!);
        while (true)
        {
            try
            {
                return new FileStream(file, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None);
            }
            catch (IOException)
            {
                waiting?.Invoke();
                waiting = null;
                await Task.Delay(TimeSpan.FromMilliseconds(100), TimeProvider.System, cancellation);
            }
        }
    }
}
