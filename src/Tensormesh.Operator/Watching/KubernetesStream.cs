using System.Diagnostics.CodeAnalysis;
using System.Globalization;
using System.Net;
using System.Runtime.CompilerServices;
using System.Text.Json;
using System.Text.Json.Nodes;
using k8s;
using k8s.Models;
using Tensormesh.Resources;

namespace Tensormesh.Operator.Watching;

/// <summary>A stored object that is not what its kind says.</summary>
/// <param name="Key">As <see cref="ObjectKey"/> says.</param>
internal sealed record UnreadableObject(string Key, string Uid, string Reason);

/// <summary>A page of a list, and the version from which to watch on.</summary>
internal sealed record ListPage<T>(IReadOnlyList<T> Items, IReadOnlyList<UnreadableObject> Unreadable, string ResourceVersion, string? Continue);

internal enum WatchKind { Added, Modified, Deleted, Bookmark, Error, Unreadable }

/// <param name="Key">Of what was deleted, which need not be readable.</param>
internal readonly record struct WatchLine<T>(
    WatchKind Kind, T? Object, V1Status? Status, string? ResourceVersion, string? Key = null, UnreadableObject? Unreadable = null);

/// <summary>The server no longer has the version asked for: list again.</summary>
internal sealed class VersionExpiredException(string message) : Exception(message);

/// <summary>Nothing came for longer than the watchdog allows: the connection is taken for dead.</summary>
internal sealed class WatchSilentException(TimeSpan silence) : Exception($"nothing came for {silence.TotalSeconds:0} s");

/// <summary>
/// Lists and watches over the client's own connection. The client's watch reads lines without a token or a time limit, so a
/// connection that dies silently is never noticed; here every read has a deadline.
/// </summary>
internal sealed class KubernetesStream(Kubernetes client, InformerOptions? bounds = null, TimeProvider? time = null)
{
    private readonly InformerOptions limits = bounds ?? new InformerOptions();
    private readonly TimeProvider clock = time ?? TimeProvider.System;

    /// <summary>A server that does not end a watch in time is left this long after.</summary>
    private static readonly TimeSpan LateEnd = TimeSpan.FromSeconds(5);

    /// <param name="from">The page before's <see cref="ListPage{T}.Continue"/>; null for the first.</param>
    /// <exception cref="VersionExpiredException">The list took so long that the server no longer has its version.</exception>
    /// <exception cref="WatchSilentException">The page did not come within <see cref="InformerOptions.ListTimeout"/>.</exception>
    public async Task<ListPage<T>> ListAsync<T>(ResourcePath resource, string? from, CancellationToken cancellation)
        where T : IKubernetesObject<V1ObjectMeta>
    {
        var limit = ("limit", limits.PageSize.ToString(CultureInfo.InvariantCulture));
        (string, string)[] parameters = from is null ? [limit] : [limit, ("continue", from)];
        using var deadline = new CancellationTokenSource(limits.ListTimeout, clock);
        using var either = CancellationTokenSource.CreateLinkedTokenSource(cancellation, deadline.Token);
        try
        {
            using var response = await SendAsync(resource.Query(parameters), either.Token).ConfigureAwait(false);
            // Whole before it is read: the reader of JSON waits without a limit.
            await response.Content.LoadIntoBufferAsync(either.Token).ConfigureAwait(false);
            await using var body = await response.Content.ReadAsStreamAsync(either.Token).ConfigureAwait(false);
            return Read<T>(body);
        }
        catch (OperationCanceledException) when (deadline.IsCancellationRequested && !cancellation.IsCancellationRequested)
        {
            throw new WatchSilentException(limits.ListTimeout);
        }
    }

    /// <summary>Every object of a kind, for those who look once and keep no copy; null when the server has no such kind, or not any more.</summary>
    /// <exception cref="VersionExpiredException">The list took so long that the server no longer has its version.</exception>
    /// <exception cref="WatchSilentException">A page did not come in time.</exception>
    public async Task<ListPage<T>?> ListAllAsync<T>(ResourcePath resource, CancellationToken cancellation)
        where T : IKubernetesObject<V1ObjectMeta>
    {
        try
        {
            var all = await ListAsync<T>(resource, null, cancellation).ConfigureAwait(false);
            while (all.Continue is { } next)
            {
                var page = await ListAsync<T>(resource, next, cancellation).ConfigureAwait(false);
                all = page with { Items = [.. all.Items, .. page.Items], Unreadable = [.. all.Unreadable, .. page.Unreadable] };
            }

            return all;
        }
        catch (HttpRequestException gone) when (gone.StatusCode == HttpStatusCode.NotFound)
        {
            return null;
        }
    }

    /// <summary>Yields until the server ends the watch, which it does after <paramref name="length"/>, or should have ended it.</summary>
    /// <exception cref="VersionExpiredException">410, as a status or inside the stream.</exception>
    /// <exception cref="WatchSilentException">No line, not even a bookmark, for <see cref="InformerOptions.Silence"/>.</exception>
    public async IAsyncEnumerable<WatchLine<T>> WatchAsync<T>(
        ResourcePath resource, string resourceVersion, TimeSpan length, [EnumeratorCancellation] CancellationToken cancellation)
        where T : IKubernetesObject<V1ObjectMeta>
    {
        var seconds = Math.Max(1, (int)Math.Ceiling(length.TotalSeconds));
        var query = resource.Query(
            ("watch", "true"),
            ("allowWatchBookmarks", "true"),
            ("resourceVersion", resourceVersion),
            ("timeoutSeconds", seconds.ToString(CultureInfo.InvariantCulture)));
        using var watchdog = new CancellationTokenSource(limits.Silence, clock);
        using var late = new CancellationTokenSource(TimeSpan.FromSeconds(seconds) + LateEnd, clock);
        using var any = CancellationTokenSource.CreateLinkedTokenSource(cancellation, watchdog.Token, late.Token);
        HttpResponseMessage response;
        try
        {
            response = await SendAsync(query, any.Token).ConfigureAwait(false);
        }
        catch (OperationCanceledException) when (!cancellation.IsCancellationRequested)
        {
            throw new WatchSilentException(limits.Silence);
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
                    if (watchdog.IsCancellationRequested) throw new WatchSilentException(limits.Silence);
                    yield break;
                }

                if (line is null) yield break;
                watchdog.CancelAfter(limits.Silence);
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
                var kind = type switch
                {
                    "ADDED" => WatchKind.Added,
                    "MODIFIED" => WatchKind.Modified,
                    "DELETED" => WatchKind.Deleted,
                    _ => throw new JsonException($"unknown watch event type '{type}'"),
                };
                var (key, version) = (KeyOf(body), body.GetProperty("metadata").GetProperty("resourceVersion").GetString());
                if (kind == WatchKind.Deleted) return new WatchLine<T>(kind, default, null, version, key);
                return TryRead<T>(body, out var value, out var unreadable)
                    ? new WatchLine<T>(kind, value, null, version, key)
                    : new WatchLine<T>(WatchKind.Unreadable, default, null, version, key, unreadable);
        }
    }

    /// <summary>One object that cannot be read must not hide the others: then each is read by itself.</summary>
    internal static ListPage<T> Read<T>(Stream body) where T : IKubernetesObject<V1ObjectMeta>
    {
        try
        {
            var list = KubernetesJson.Deserialize<KubernetesList<T>>(body);
            return Page<T>([.. list.Items], [], list.Metadata);
        }
        catch (Exception fault) when (IsUnreadable(fault))
        {
            body.Position = 0;
        }

        var raw = KubernetesJson.Deserialize<KubernetesList<JsonElement>>(body);
        var (items, unreadable) = (new List<T>(raw.Items.Count), new List<UnreadableObject>());
        foreach (var item in raw.Items)
        {
            if (TryRead<T>(item, out var value, out var fault)) items.Add(value);
            else unreadable.Add(fault);
        }

        return Page(items, unreadable, raw.Metadata);
    }

    /// <summary>
    /// The status of our own kinds is ours to write: where somebody else has filled it with nonsense, the object is read without it, and its status is written
    /// anew. Without this, one object would blind the operator for all of its kind.
    /// </summary>
    private static bool TryRead<T>(JsonElement item, [NotNullWhen(true)] out T? value, [NotNullWhen(false)] out UnreadableObject? unreadable)
        where T : IKubernetesObject<V1ObjectMeta>
    {
        (value, unreadable) = (default, null);
        try
        {
            value = KubernetesJson.Deserialize<T>(item);
            return true;
        }
        catch (Exception fault) when (IsUnreadable(fault))
        {
            var uid = item.GetProperty("metadata").TryGetProperty("uid", out var text) ? text.GetString() : null;
            unreadable = new UnreadableObject(KeyOf(item), uid ?? "", fault.Message);
        }

        if (typeof(T).Assembly != typeof(WellKnown).Assembly) return false;
        try
        {
            var bare = JsonObject.Create(item)!;
            bare.Remove("status");
            value = KubernetesJson.Deserialize<T>(bare.ToJsonString());
        }
        catch (Exception fault) when (IsUnreadable(fault))
        {
            return false;
        }

        unreadable = null;
        return true;
    }

    private static ListPage<T> Page<T>(IReadOnlyList<T> items, IReadOnlyList<UnreadableObject> unreadable, V1ListMeta list)
        => new(items, unreadable, list.ResourceVersion, string.IsNullOrEmpty(list.ContinueProperty) ? null : list.ContinueProperty);

    private static string KeyOf(JsonElement item)
    {
        var metadata = item.GetProperty("metadata");
        return ObjectKey.Of(metadata.TryGetProperty("namespace", out var team) ? team.GetString() : null, metadata.GetProperty("name").GetString()!);
    }

    private static bool IsUnreadable(Exception fault) => fault is JsonException or FormatException or NotSupportedException or InvalidOperationException or OverflowException;

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
