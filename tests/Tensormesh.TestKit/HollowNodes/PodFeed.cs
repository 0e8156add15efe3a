using k8s;
using k8s.Autorest;
using k8s.Models;

namespace Tensormesh.TestKit;

/// <summary>
/// Every bound pod of the cluster, over one watch. Lists, then watches from the list's version with bookmarks; lists again on 410, on any
/// error and when nothing was heard for <see cref="IdleLimit"/>, and tells by the difference which pods went unseen.
/// </summary>
internal sealed class PodFeed(IKubernetes client, string fieldSelector, TimeProvider time, Action<V1Pod> seen, Action<string> gone)
{
    private const int PageSize = 500;
    private const int WatchSeconds = 240;
    private static readonly TimeSpan RetryAfter = TimeSpan.FromMilliseconds(500);
    private readonly HashSet<string> _known = new(StringComparer.Ordinal);
    private int _lists;
    private int _watches;

    /// <summary>Bookmarks come about every minute, so a watch this silent is dead.</summary>
    private static TimeSpan IdleLimit => TimeSpan.FromSeconds(100);

    public int Lists => Volatile.Read(ref _lists);

    public int Watches => Volatile.Read(ref _watches);

    /// <summary>Completes only by cancellation, with <see cref="OperationCanceledException"/>.</summary>
    public async Task RunAsync(CancellationToken cancellationToken)
    {
        while (true)
        {
            try
            {
                string? version = await ListAsync(cancellationToken);
                while (version is not null)
                {
                    version = await WatchAsync(version, cancellationToken);
                }
            }
            catch (Exception e) when (Transient.Is(e, cancellationToken) || e is HttpOperationException)
            {
                // Even a refusal passes: a server that has just started refuses everyone until its roles are there.
                await Task.Delay(RetryAfter, time, cancellationToken);
            }

            cancellationToken.ThrowIfCancellationRequested();
        }
    }

    private async Task<string> ListAsync(CancellationToken cancellationToken)
    {
        var pods = new List<V1Pod>();
        string? next = null;
        V1PodList page;
        do
        {
            page = await client.CoreV1.ListPodForAllNamespacesAsync(
                fieldSelector: fieldSelector, limit: PageSize, continueParameter: next, cancellationToken: cancellationToken);
            pods.AddRange(page.Items);
            next = page.Metadata.ContinueProperty;
        }
        while (!string.IsNullOrEmpty(next));

        var present = pods.Select(pod => pod.Uid()).ToHashSet(StringComparer.Ordinal);
        foreach (var uid in _known.Except(present).ToArray())
        {
            Forget(uid);
        }

        foreach (var pod in pods)
        {
            See(pod);
        }

        Interlocked.Increment(ref _lists);
        return page.Metadata.ResourceVersion;
    }

    /// <summary>The version to go on from when the server ended the watch in good order; null when only a new list helps.</summary>
    private async Task<string?> WatchAsync(string version, CancellationToken cancellationToken)
    {
        using var idle = new CancellationTokenSource(IdleLimit, time);
        using var ending = CancellationTokenSource.CreateLinkedTokenSource(idle.Token, cancellationToken);
        Exception? failure = null;
        Interlocked.Increment(ref _watches);
        var events = client.CoreV1.WatchListPodForAllNamespacesAsync(
            fieldSelector: fieldSelector,
            allowWatchBookmarks: true,
            resourceVersion: version,
            timeoutSeconds: WatchSeconds,
            onError: e => failure = e,
            cancellationToken: ending.Token);
        try
        {
            await foreach (var (type, pod) in events)
            {
                idle.CancelAfter(IdleLimit);
                version = pod.ResourceVersion();
                switch (type)
                {
                    case WatchEventType.Added or WatchEventType.Modified:
                        See(pod);
                        break;
                    case WatchEventType.Deleted:
                        Forget(pod.Uid());
                        break;
                    case WatchEventType.Bookmark:
                        break;
                    case WatchEventType.Error:
                        return null;
                }

                if (failure is not null)
                {
                    return null;
                }
            }
        }
        catch (OperationCanceledException) when (!cancellationToken.IsCancellationRequested)
        {
            return null;
        }

        return failure is null ? version : null;
    }

    private void See(V1Pod pod)
    {
        _known.Add(pod.Uid());
        seen(pod);
    }

    private void Forget(string uid)
    {
        if (_known.Remove(uid))
        {
            gone(uid);
        }
    }
}

/// <summary>Which failures of a call to the API server a loop outlives.</summary>
internal static class Transient
{
    public static bool Is(Exception e, CancellationToken cancellationToken) => !cancellationToken.IsCancellationRequested && e switch
    {
        HttpOperationException http => (int)http.Response.StatusCode is >= 500 or 429 or 410,
        HttpRequestException or IOException or TaskCanceledException or KubernetesException => true,
        _ => false,
    };
}
