using System.Collections.Concurrent;
using k8s;
using k8s.Models;
using Tensormesh.Operator.Telemetry;

namespace Tensormesh.Operator.Watching;

/// <summary>What the readiness probe and the metrics ask of an informer.</summary>
internal interface IInformer
{
    string Kind { get; }
    bool HasSynced { get; }
    /// <summary>Time since the server last told anything, a bookmark included.</summary>
    TimeSpan Staleness { get; }
    Task RunAsync(CancellationToken cancellation);
}

/// <summary>The bounds of an informer's patience.</summary>
internal sealed record InformerOptions
{
    /// <summary>How long one watch lasts before the server ends it; a random part is added, so that watches do not end together.</summary>
    public TimeSpan WatchLength { get; init; } = TimeSpan.FromMinutes(5);
    /// <summary>Silence after which a connection is taken for dead. The server sends a bookmark about every minute.</summary>
    public TimeSpan Silence { get; init; } = TimeSpan.FromSeconds(150);
    public TimeSpan FirstBackoff { get; init; } = TimeSpan.FromMilliseconds(200);
    public TimeSpan LongestBackoff { get; init; } = TimeSpan.FromSeconds(30);
}

/// <summary>
/// A local copy of one kind, kept by list and watch. The client ships none. Lists, watches with bookmarks, lists again when
/// the version has expired or the connection goes silent, and compares each new list with what it had, so that a delete
/// that happened while it was away is seen.
/// </summary>
internal sealed partial class Informer<T>(
    KubernetesStream stream, ResourcePath resource, InformerOptions options, OperatorMetrics metrics, TimeProvider time, ILogger<Informer<T>> logger) : IInformer
    where T : class, IKubernetesObject<V1ObjectMeta>
{
    private readonly ConcurrentDictionary<string, T> objects = new(StringComparer.Ordinal);
    private readonly TaskCompletionSource synced = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private long lastHeard = time.GetTimestamp();

    public string Kind { get; } = typeof(T).Name;
    public bool HasSynced => synced.Task.IsCompleted;
    public Task Synced => synced.Task;
    public TimeSpan Staleness => time.GetElapsedTime(Interlocked.Read(ref lastHeard));

    /// <summary>Before and after; before is null for a new object, after is null for one that is gone. Handlers only enqueue.</summary>
    public event Action<T?, T?>? Changed;

    public T? Find(string key) => objects.GetValueOrDefault(key);
    /// <summary>As it is while it is read: no copy is made, and nobody waits.</summary>
    public IEnumerable<T> All => objects.Select(pair => pair.Value);
    public int Count => objects.Count;

    public async Task RunAsync(CancellationToken cancellation)
    {
        string? version = null;
        var backoff = options.FirstBackoff;
        while (!cancellation.IsCancellationRequested)
        {
            try
            {
                version ??= await RelistAsync(cancellation).ConfigureAwait(false);
                version = await FollowAsync(version, cancellation).ConfigureAwait(false);
                backoff = options.FirstBackoff;
            }
            catch (OperationCanceledException) when (cancellation.IsCancellationRequested)
            {
                return;
            }
            catch (VersionExpiredException)
            {
                metrics.InformerRelists.WithLabels(Kind, "expired").Inc();
                version = null;
            }
            catch (Exception fault) // The loop's own catch: whatever broke, list again after a pause.
            {
                LogBroken(logger, Kind, fault.Message);
                metrics.InformerRelists.WithLabels(Kind, fault is WatchSilentException ? "silent" : "fault").Inc();
                version = null;
                // Jitter, so that a server that comes back is not met by every watch at once.
                await DelayQuietly(backoff * (0.5 + Random.Shared.NextDouble()), cancellation).ConfigureAwait(false);
                backoff = backoff * 2 < options.LongestBackoff ? backoff * 2 : options.LongestBackoff;
            }
        }
    }

    private async Task<string> RelistAsync(CancellationToken cancellation)
    {
        var seen = new HashSet<string>(StringComparer.Ordinal);
        string? next = null;
        string version;
        do
        {
            var page = await stream.ListAsync<T>(resource, next, cancellation).ConfigureAwait(false);
            foreach (var item in page.Items)
            {
                seen.Add(ObjectKey.Of(item));
                Store(item);
            }

            version = page.ResourceVersion;
            next = page.Continue;
        }
        while (next is not null);

        foreach (var key in objects.Keys)
        {
            if (!seen.Contains(key)) Remove(key);
        }

        Heard();
        synced.TrySetResult();
        LogListed(logger, Kind, seen.Count);
        return version;
    }

    private async Task<string> FollowAsync(string version, CancellationToken cancellation)
    {
        var length = options.WatchLength * (1 + Random.Shared.NextDouble());
        await foreach (var line in stream.WatchAsync<T>(resource, version, length, options.Silence, time, cancellation).ConfigureAwait(false))
        {
            Heard();
            switch (line.Kind)
            {
                case WatchKind.Added or WatchKind.Modified:
                    Store(line.Object!);
                    break;
                case WatchKind.Deleted:
                    Remove(ObjectKey.Of(line.Object!));
                    break;
                case WatchKind.Bookmark:
                    break;
                case WatchKind.Error:
                    throw new HttpRequestException($"the watch of {Kind} reported {line.Status?.Code} {line.Status?.Message}");
            }

            version = line.ResourceVersion ?? version;
        }

        return version;
    }

    private void Store(T item)
    {
        LocalCopy.Trim(item);
        var key = ObjectKey.Of(item);
        var before = objects.GetValueOrDefault(key);
        if (before?.Metadata.ResourceVersion == item.Metadata.ResourceVersion) return;
        objects[key] = item;
        Changed?.Invoke(before, item);
    }

    private void Remove(string key)
    {
        if (objects.TryRemove(key, out var before)) Changed?.Invoke(before, null);
    }

    private void Heard() => Interlocked.Exchange(ref lastHeard, time.GetTimestamp());

    private async Task DelayQuietly(TimeSpan delay, CancellationToken cancellation)
    {
        try
        {
            await Task.Delay(delay, time, cancellation).ConfigureAwait(false);
        }
        catch (OperationCanceledException)
        {
        }
    }

    [LoggerMessage(Level = LogLevel.Debug, Message = "Listed {Count} of {Kind}")]
    private static partial void LogListed(ILogger logger, string kind, int count);

    [LoggerMessage(Level = LogLevel.Warning, Message = "The watch of {Kind} broke and will be started again: {Reason}")]
    private static partial void LogBroken(ILogger logger, string kind, string reason);
}
