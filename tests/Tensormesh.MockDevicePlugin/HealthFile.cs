using System.Text.Json;

namespace Tensormesh.MockDevicePlugin;

/// <summary>
/// A JSON array of GPU UUIDs that are unhealthy, re-read every <see cref="ReadEvery"/>: reading a few bytes is surer than
/// inotify, which misses files replaced through a link or on some mounts. No file means that all are healthy.
/// </summary>
internal sealed class HealthFile(string path, GpuInventory inventory, Journal journal, TimeProvider time)
{
    private static readonly TimeSpan ReadEvery = TimeSpan.FromMilliseconds(250);

    public async Task WatchAsync(CancellationToken cancellationToken)
    {
        string? seen = null;
        while (true)
        {
            var content = await ReadAsync(cancellationToken);
            if (content != seen)
            {
                seen = content;
                Apply(content);
            }

            await Task.Delay(ReadEvery, time, cancellationToken);
        }
    }

    private async Task<string> ReadAsync(CancellationToken cancellationToken)
    {
        try
        {
            return await File.ReadAllTextAsync(path, cancellationToken);
        }
        catch (IOException)
        {
            return "[]";
        }
    }

    private void Apply(string content)
    {
        try
        {
            foreach (var uuid in inventory.SetUnhealthy(JsonSerializer.Deserialize<string[]>(content) ?? []))
            {
                journal.Write($"device {uuid} is now {(inventory.IsHealthy(uuid) ? "healthy" : "unhealthy")}");
            }
        }
        catch (JsonException)
        {
            // A half-written file: the health that was known stays until the file reads well again.
            journal.Write($"{path} is not a JSON array of UUIDs; health is left as it was");
        }
    }
}
