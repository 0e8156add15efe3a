using System.Globalization;
using System.Net;
using System.Runtime.CompilerServices;
using System.Text.Json;
using k8s;
using k8s.Models;

namespace Tensormesh.Operator.Watching;

/// <summary>A page of a list, and the version from which to watch on.</summary>
internal sealed record ListPage<T>(IReadOnlyList<T> Items, string ResourceVersion, string? Continue);

internal enum WatchKind { Added, Modified, Deleted, Bookmark, Error }

internal readonly record struct WatchLine<T>(WatchKind Kind, T? Object, V1Status? Status, string? ResourceVersion);

/// <summary>The server no longer has the version asked for: list again.</summary>
internal sealed class VersionExpiredException(string message) : Exception(message);

/// <summary>Nothing came for longer than the watchdog allows: the connection is taken for dead.</summary>
internal sealed class WatchSilentException(TimeSpan silence) : Exception($"nothing came for {silence.TotalSeconds:0} s");

/// <summary>
/// Lists and watches over the client's own connection. The client's watch reads lines without a token or a time limit, so a
/// connection that dies silently is never noticed; here every read has a deadline.
/// </summary>
internal sealed class KubernetesStream(Kubernetes client)
{
    /// <summary>A server that does not end a watch in time is left this long after.</summary>
    private static readonly TimeSpan LateEnd = TimeSpan.FromSeconds(5);

    /// <param name="from">The page before's <see cref="ListPage{T}.Continue"/>; null for the first.</param>
    /// <exception cref="VersionExpiredException">The list took so long that the server no longer has its version.</exception>
    /// <exception cref="WatchSilentException">The page did not come within <paramref name="timeout"/>.</exception>
    public async Task<ListPage<T>> ListAsync<T>(ResourcePath resource, string? from, int pageSize, TimeSpan timeout, TimeProvider time, CancellationToken cancellation)
        where T : IKubernetesObject<V1ObjectMeta>
    {
        var limit = ("limit", pageSize.ToString(CultureInfo.InvariantCulture));
        (string, string)[] parameters = from is null ? [limit] : [limit, ("continue", from)];
        using var deadline = new CancellationTokenSource(timeout, time);
        using var either = CancellationTokenSource.CreateLinkedTokenSource(cancellation, deadline.Token);
        try
        {
            using var response = await SendAsync(resource.Query(parameters), either.Token).ConfigureAwait(false);
            // Whole before it is read: the reader of JSON waits without a limit.
            await response.Content.LoadIntoBufferAsync(either.Token).ConfigureAwait(false);
            await using var body = await response.Content.ReadAsStreamAsync(either.Token).ConfigureAwait(false);
            var list = KubernetesJson.Deserialize<KubernetesList<T>>(body);
            return new ListPage<T>([.. list.Items], list.Metadata.ResourceVersion, string.IsNullOrEmpty(list.Metadata.ContinueProperty) ? null : list.Metadata.ContinueProperty);
        }
        catch (OperationCanceledException) when (deadline.IsCancellationRequested && !cancellation.IsCancellationRequested)
        {
            throw new WatchSilentException(timeout);
        }
    }

    /// <summary>Every object of a kind, for those who look once and keep no copy; null when the server has no such kind, or not any more.</summary>
    /// <exception cref="VersionExpiredException">The list took so long that the server no longer has its version.</exception>
    /// <exception cref="WatchSilentException">A page did not come in time.</exception>
    public async Task<IReadOnlyList<T>?> ListAllAsync<T>(ResourcePath resource, TimeProvider time, CancellationToken cancellation)
        where T : IKubernetesObject<V1ObjectMeta>
    {
        var bounds = new InformerOptions();
        var all = new List<T>();
        string? next = null;
        try
        {
            do
            {
                var page = await ListAsync<T>(resource, next, bounds.PageSize, bounds.ListTimeout, time, cancellation).ConfigureAwait(false);
                all.AddRange(page.Items);
                next = page.Continue;
            }
            while (next is not null);
        }
        catch (HttpRequestException gone) when (gone.StatusCode == System.Net.HttpStatusCode.NotFound)
        {
            return null;
        }

        return all;
    }

    /// <summary>Yields until the server ends the watch, which it does after <paramref name="length"/>, or should have ended it.</summary>
    /// <exception cref="VersionExpiredException">410, as a status or inside the stream.</exception>
    /// <exception cref="WatchSilentException">No line, not even a bookmark, for <paramref name="silence"/>.</exception>
    public async IAsyncEnumerable<WatchLine<T>> WatchAsync<T>(
        ResourcePath resource, string resourceVersion, TimeSpan length, TimeSpan silence, TimeProvider time, [EnumeratorCancellation] CancellationToken cancellation)
        where T : IKubernetesObject<V1ObjectMeta>
    {
        var seconds = Math.Max(1, (int)Math.Ceiling(length.TotalSeconds));
        var query = resource.Query(
            ("watch", "true"),
            ("allowWatchBookmarks", "true"),
            ("resourceVersion", resourceVersion),
            ("timeoutSeconds", seconds.ToString(CultureInfo.InvariantCulture)));
        using var watchdog = new CancellationTokenSource(silence, time);
        using var late = new CancellationTokenSource(TimeSpan.FromSeconds(seconds) + LateEnd, time);
        using var any = CancellationTokenSource.CreateLinkedTokenSource(cancellation, watchdog.Token, late.Token);
        HttpResponseMessage response;
        try
        {
            response = await SendAsync(query, any.Token).ConfigureAwait(false);
        }
        catch (OperationCanceledException) when (!cancellation.IsCancellationRequested)
        {
            throw new WatchSilentException(silence);
        }

        using (response)
        {
            using var reader = new StreamReader(await response.Content.ReadAsStreamAsync(any.Token).ConfigureAwait(false));
            while (true)
            {
                string? line;
                try
                {
                    line = await reader.ReadLineAsync(any.Token).ConfigureAwait(false);
                }
                catch (OperationCanceledException) when (!cancellation.IsCancellationRequested)
                {
                    if (watchdog.IsCancellationRequested) throw new WatchSilentException(silence);
                    yield break;
                }

                if (line is null) yield break;
                watchdog.CancelAfter(silence);
                if (line.Length > 0) yield return Parse<T>(line);
            }
        }
    }

    internal static WatchLine<T> Parse<T>(string line) where T : IKubernetesObject<V1ObjectMeta>
    {
        using var document = JsonDocument.Parse(line);
        var type = document.RootElement.GetProperty("type").GetString();
        var body = document.RootElement.GetProperty("object");
        switch (type)
        {
            case "ERROR":
                var status = KubernetesJson.Deserialize<V1Status>(body);
                if (status.Code == (int)HttpStatusCode.Gone) throw new VersionExpiredException(status.Message ?? "410 Gone");
                return new WatchLine<T>(WatchKind.Error, default, status, null);
            case "BOOKMARK":
                return new WatchLine<T>(WatchKind.Bookmark, default, null, body.GetProperty("metadata").GetProperty("resourceVersion").GetString());
            default:
                var value = KubernetesJson.Deserialize<T>(body);
                var kind = type switch
                {
                    "ADDED" => WatchKind.Added,
                    "MODIFIED" => WatchKind.Modified,
                    "DELETED" => WatchKind.Deleted,
                    _ => throw new JsonException($"unknown watch event type '{type}'"),
                };
                return new WatchLine<T>(kind, value, null, value.Metadata.ResourceVersion);
        }
    }

    private async Task<HttpResponseMessage> SendAsync(string pathAndQuery, CancellationToken cancellation)
    {
        using var request = new HttpRequestMessage(HttpMethod.Get, new Uri(client.BaseUri, pathAndQuery)) { Version = HttpVersion.Version20 };
        request.Headers.Accept.ParseAdd("application/json");
        if (client.Credentials is not null) await client.Credentials.ProcessHttpRequestAsync(request, cancellation).ConfigureAwait(false);
        var response = await client.HttpClient.SendAsync(request, HttpCompletionOption.ResponseHeadersRead, cancellation).ConfigureAwait(false);
        if (response.IsSuccessStatusCode) return response;
        var body = await response.Content.ReadAsStringAsync(cancellation).ConfigureAwait(false);
        response.Dispose();
        if (response.StatusCode == HttpStatusCode.Gone) throw new VersionExpiredException(body);
        throw new HttpRequestException($"GET {pathAndQuery}: {(int)response.StatusCode} {body}", null, response.StatusCode);
    }

    /// <summary>A list of any kind, in the server's JSON.</summary>
    private sealed class KubernetesList<T>
    {
        [System.Text.Json.Serialization.JsonPropertyName("metadata")] public V1ListMeta Metadata { get; set; } = new();
        [System.Text.Json.Serialization.JsonPropertyName("items")] public IList<T> Items { get; set; } = [];
    }
}
