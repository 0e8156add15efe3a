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
    /// <summary>Everything is listed anew this often even when nothing called for it: what a watch left out, for whatever reason, is seen then.</summary>
    public TimeSpan RelistInterval { get; init; } = TimeSpan.FromMinutes(10);
    /// <summary>How long one page of a list may take.</summary>
    public TimeSpan ListTimeout { get; init; } = TimeSpan.FromSeconds(60);
    /// <summary>Objects a page: bounds the memory of a list of 10,000.</summary>
    public int PageSize { get; init; } = 250;
    public TimeSpan FirstBackoff { get; init; } = TimeSpan.FromMilliseconds(200);
    public TimeSpan LongestBackoff { get; init; } = TimeSpan.FromSeconds(30);
}

/// <summary>
/// A local copy of one kind, kept by list and watch. The client ships none. Lists, watches with bookmarks, lists again when
/// the version has expired, the connection goes silent or the copy is old, and compares each new list with what it had, so that a delete
/// that happened while it was away is seen.
/// </summary>
internal sealed partial class Informer<T>(
    KubernetesStream stream, ResourcePath resource, InformerOptions options, OperatorMetrics metrics, TimeProvider time, ILogger<Informer<T>> logger) : IInformer
    where T : class, IKubernetesObject<V1ObjectMeta>
{
    /// <summary>A watch that ended sooner is started again after a pause: a server that ends each at once must not be asked in a tight loop.</summary>
    private static readonly TimeSpan ShortWatch = TimeSpan.FromSeconds(1);

    private readonly ConcurrentDictionary<string, T> objects = new(StringComparer.Ordinal);
    private readonly TaskCompletionSource synced = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly Backoff backoff = new(options.FirstBackoff, options.LongestBackoff, Random.Shared);
    private long lastHeard = time.GetTimestamp();
    private long listedAt;
    private TimeSpan goodFor;
    /// <summary>From where to watch on; null when only a list helps.</summary>
    private string? version;
    /// <summary>Whether the watch in progress has brought anything: then its version is good, and the server is well.</summary>
    private bool told;

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
        metrics.ShowInformer(Kind);
        while (!cancellation.IsCancellationRequested)
        {
            told = false;
            var began = time.GetTimestamp();
            try
            {
                if (version is not null && GoodFor() <= TimeSpan.Zero) Relist("periodic");
                if (version is null) await ListAsync(cancellation).ConfigureAwait(false);
                began = time.GetTimestamp();
                await FollowAsync(cancellation).ConfigureAwait(false);
                if (time.GetElapsedTime(began) < ShortWatch && GoodFor() > TimeSpan.Zero) await PauseAsync(cancellation).ConfigureAwait(false);
                else backoff.Reset();
            }
            catch (OperationCanceledException) when (cancellation.IsCancellationRequested)
            {
                return;
            }
            catch (VersionExpiredException)
            {
                Relist("expired");
                await PauseAsync(cancellation).ConfigureAwait(false);
            }
            catch (WatchSilentException fault)
            {
                LogBroken(logger, Kind, fault.Message);
                Relist("silent");
                await PauseAsync(cancellation).ConfigureAwait(false);
            }
            catch (Exception fault) // The loop's own catch: whatever broke, go on after a pause.
            {
                LogBroken(logger, Kind, fault.Message);
                // A watch that had brought something is resumed where it was; one that brought nothing is not asked for the same again.
                if (!told) Relist("fault");
                await PauseAsync(cancellation).ConfigureAwait(false);
            }
        }
    }

    private void Relist(string cause)
    {
        version = null;
        if (HasSynced) metrics.InformerRelists.WithLabels(Kind, cause).Inc();
    }

    private TimeSpan GoodFor() => goodFor - time.GetElapsedTime(listedAt);

    private async Task ListAsync(CancellationToken cancellation)
    {
        var began = time.GetTimestamp();
        var seen = new HashSet<string>(StringComparer.Ordinal);
        string? next = null;
        string listed;
        do
        {
            var page = await stream.ListAsync<T>(resource, next, cancellation).ConfigureAwait(false);
            Heard();
            foreach (var item in page.Items)
            {
                seen.Add(ObjectKey.Of(item));
                Store(item);
            }

            foreach (var item in page.Unreadable)
            {
                seen.Add(item.Key);
                Skip(item);
            }

            listed = page.ResourceVersion;
            next = page.Continue;
        }
        while (next is not null);

        foreach (var key in objects.Keys)
        {
            if (!seen.Contains(key)) Remove(key);
        }

        (version, listedAt, goodFor) = (listed, began, options.RelistInterval * (0.9 + 0.2 * Random.Shared.NextDouble()));
        synced.TrySetResult();
        LogListed(logger, Kind, seen.Count);
    }

    private async Task FollowAsync(CancellationToken cancellation)
    {
        var length = options.WatchLength * (1 + Random.Shared.NextDouble());
        var left = GoodFor();
        await foreach (var line in stream.WatchAsync<T>(resource, version!, length < left ? length : left, cancellation).ConfigureAwait(false))
        {
            Heard();
            switch (line.Kind)
            {
                case WatchKind.Added or WatchKind.Modified:
                    Store(line.Object!);
                    break;
                case WatchKind.Deleted:
                    Remove(line.Key!);
                    break;
                case WatchKind.Unreadable:
                    Skip(line.Unreadable!);
                    break;
                case WatchKind.Bookmark:
                    break;
                case WatchKind.Error:
                    throw new HttpRequestException($"the watch of {Kind} reported {line.Status?.Code} {line.Status?.Message}");
            }

            version = line.ResourceVersion ?? version;
            told = true;
            backoff.Reset();
        }
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

    /// <summary>What cannot be read stays as it was last read, and keeps nobody else from being seen.</summary>
    private void Skip(UnreadableObject item)
    {
        metrics.InformerUnreadable.WithLabels(Kind).Inc();
        LogUnreadable(logger, Kind, item.Key, item.Reason);
    }

    private void Remove(string key)
    {
        if (objects.TryRemove(key, out var before)) Changed?.Invoke(before, null);
    }

    private void Heard() => Interlocked.Exchange(ref lastHeard, time.GetTimestamp());

    private async Task PauseAsync(CancellationToken cancellation)
    {
        try
        {
            await Task.Delay(backoff.Next(), time, cancellation).ConfigureAwait(false);
        }
        catch (OperationCanceledException)
        {
        }
    }

    [LoggerMessage(Level = LogLevel.Debug, Message = "Listed {Count} of {Kind}")]
    private static partial void LogListed(ILogger logger, string kind, int count);

    [LoggerMessage(Level = LogLevel.Warning, Message = "The watch of {Kind} broke and will be started again: {Reason}")]
    private static partial void LogBroken(ILogger logger, string kind, string reason);

    [LoggerMessage(Level = LogLevel.Warning, Message = "{Kind} {Key} cannot be read, and is taken as it was last: {Reason}")]
    private static partial void LogUnreadable(ILogger logger, string kind, string key, string reason);
}
