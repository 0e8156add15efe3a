using System.Net;
using System.Net.Http.Headers;
using System.Text;
using k8s;
using Tensormesh.Resources;

namespace Tensormesh.Operator.Uninstalling;

/// <summary>
/// Keeps what the operator needs to let everything go: <c>kubectl delete -k</c> deletes its service account and its rights in the same second as the kinds, whose objects
/// only it can let go of. A finalizer on each holds them, still in force, until an uninstall is done. It is put there by an operator that works, so that an
/// installation that never did can be deleted without one.
/// </summary>
internal sealed partial class OwnRights(Kubernetes client, OperatorOptions options, ILogger<OwnRights> logger)
{
    /// <summary>Strategic merges: others' finalizers stay as they are.</summary>
    private static readonly byte[] Keep = Patch(new { metadata = new { finalizers = new[] { WellKnown.RightsFinalizer } } });
    private static readonly byte[] LetGo = Patch(new { metadata = new Dictionary<string, object> { ["$deleteFromPrimitiveList/finalizers"] = new[] { WellKnown.RightsFinalizer } } });

    private string[] Paths =>
    [
        $"api/v1/namespaces/{options.Namespace}/serviceaccounts/{options.Rights}",
        $"apis/rbac.authorization.k8s.io/v1/clusterroles/{options.Rights}",
        $"apis/rbac.authorization.k8s.io/v1/clusterrolebindings/{options.Rights}",
    ];

    /// <summary>When the work begins.</summary>
    public async Task KeepAsync(CancellationToken cancellation)
    {
        if (options.Rights.Length == 0) return;
        foreach (var path in Paths) await SendAsync(path, new HeldBody(Keep, Task.CompletedTask), cancellation).ConfigureAwait(false);
    }

    /// <summary>
    /// As the last thing of an uninstall. Each of the three takes away the right to let go of the others, and whether it did so in time is chance where one follows the other. So
    /// all three requests are begun and none is completed: the server has seen who asks, and allowed it, by the time it asks for a body. Then all bodies are sent.
    /// </summary>
    public async Task LetGoAsync(CancellationToken cancellation)
    {
        if (options.Rights.Length == 0) return;
        var go = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        var bodies = Paths.Select(path => (Path: path, Body: new HeldBody(LetGo, go.Task))).ToList();
        var sent = bodies.Select(each => SendAsync(each.Path, each.Body, cancellation)).ToList();
        // One that is refused, or is not there, is never asked for its body.
        await Task.WhenAll(bodies.Zip(sent, (each, answer) => Task.WhenAny(each.Body.Awaited, answer))).ConfigureAwait(false);
        go.SetResult();
        await Task.WhenAll(sent).ConfigureAwait(false);
    }

    private async Task SendAsync(string path, HeldBody body, CancellationToken cancellation)
    {
        try
        {
            using var request = new HttpRequestMessage(HttpMethod.Patch, new Uri(client.BaseUri, path)) { Version = HttpVersion.Version20, Content = body };
            request.Headers.ExpectContinue = true;
            if (client.Credentials is not null) await client.Credentials.ProcessHttpRequestAsync(request, cancellation).ConfigureAwait(false);
            using var response = await client.HttpClient.SendAsync(request, cancellation).ConfigureAwait(false);
            if (response.IsSuccessStatusCode || response.StatusCode == HttpStatusCode.NotFound) return;
            LogRefused(logger, path, await response.Content.ReadAsStringAsync(cancellation).ConfigureAwait(false));
        }
        catch (HttpRequestException fault)
        {
            LogRefused(logger, path, fault.Message);
        }
    }

    private static byte[] Patch(object content) => Encoding.UTF8.GetBytes(KubernetesJson.Serialize(content));

    [LoggerMessage(Level = LogLevel.Warning, Message = "The finalizer on {Path} could not be changed: {Reason}")]
    private static partial void LogRefused(ILogger logger, string path, string reason);

    /// <summary>A body that is sent when it may be.</summary>
    private sealed class HeldBody : HttpContent
    {
        private readonly byte[] bytes;
        private readonly Task may;
        private readonly TaskCompletionSource awaited = new(TaskCreationOptions.RunContinuationsAsynchronously);

        public HeldBody(byte[] bytes, Task may)
        {
            (this.bytes, this.may) = (bytes, may);
            Headers.ContentType = new MediaTypeHeaderValue("application/strategic-merge-patch+json");
        }

        /// <summary>Ends when the server has asked for the body.</summary>
        public Task Awaited => awaited.Task;

        protected override async Task SerializeToStreamAsync(Stream stream, TransportContext? context)
        {
            awaited.TrySetResult();
            await may.ConfigureAwait(false);
            await stream.WriteAsync(bytes).ConfigureAwait(false);
        }

        protected override bool TryComputeLength(out long length)
        {
            length = bytes.Length;
            return true;
        }
    }
}
