using System.Collections.Concurrent;
using System.Net;
using System.Security.Cryptography.X509Certificates;
using System.Threading.Channels;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Server.Kestrel.Core;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;

namespace Tensormesh.TestKit;

/// <summary>A request as the proxy saw it.</summary>
/// <param name="At">Since the proxy's start.</param>
public sealed record ProxiedRequest(string Path, string Query, bool IsWatch, TimeSpan At);

/// <summary>
/// An HTTP hop between an operator and the real API server of a dev cluster. It passes everything on, with the client's own credentials, until it is told
/// to fail: it then answers watches with 410, puts ERROR events into them, leaves events out or tells them twice, holds everything back, or cuts. It ends TLS with
/// the API server's own certificate, so that what is between it and its client is what is between a client and the API server.
/// </summary>
public sealed class FaultyProxy : IAsyncDisposable
{
    private const int RememberedRequests = 1000;
    private static readonly string[] HopHeaders = ["connection", "keep-alive", "transfer-encoding", "host", "upgrade", "content-length"];

    private readonly WebApplication _app;
    private readonly HttpMessageInvoker _server;
    private readonly Uri _target;
    private readonly ConcurrentDictionary<OpenWatch, byte> _watches = new();
    private readonly ConcurrentQueue<ProxiedRequest> _requests = new();
    private readonly long _began = TimeProvider.System.GetTimestamp();
    private volatile TaskCompletionSource? _frozen;
    private volatile Predicate<string> _affects = _ => true;
    private int _gone;
    private int _lists;
    private int _watchCount;
    private int _dropped;

    private FaultyProxy(Uri target, string authorityFile, string certificateFile, string keyFile)
    {
        _target = target;
        _server = new HttpMessageInvoker(CreateHandler(authorityFile));
        var builder = WebApplication.CreateEmptyBuilder(new WebApplicationOptions());
        builder.Logging.ClearProviders();
        var certificate = X509Certificate2.CreateFromPemFile(certificateFile, keyFile);
        builder.WebHost.UseKestrelCore().UseKestrelHttpsConfiguration().ConfigureKestrel(kestrel =>
        {
            kestrel.Limits.Http2.MaxStreamsPerConnection = 1000;
            kestrel.Limits.MaxRequestBodySize = null;
            kestrel.Limits.MinResponseDataRate = null;
            kestrel.Listen(IPAddress.Loopback, 0, listen =>
            {
                listen.Protocols = HttpProtocols.Http1AndHttp2;
                listen.UseHttps(certificate);
            });
        });
        _app = builder.Build();
        _app.Run(HandleAsync);
    }

    public Uri Address { get; private set; } = null!;

    /// <summary>A kubeconfig file of the administrator that leads through here.</summary>
    public string KubeconfigPath { get; private set; } = "";

    /// <summary>Watch requests seen so far.</summary>
    public int Watches => Volatile.Read(ref _watchCount);

    /// <summary>Lists of a collection seen so far, each page for itself.</summary>
    public int Lists => Volatile.Read(ref _lists);

    /// <summary>Watches that are open now.</summary>
    public int OpenWatches => _watches.Count;

    /// <summary>Events swallowed so far.</summary>
    public int Dropped => Volatile.Read(ref _dropped);

    /// <summary>The newest, of which there are at most 1,000.</summary>
    public IReadOnlyList<ProxiedRequest> Requests => [.. _requests];

    /// <summary>Which paths the faults below concern; all unless set.</summary>
    public Predicate<string> Affects { set => _affects = value; }

    /// <summary>Swallows every event of the API server but bookmarks: connections look alive, and nothing is told.</summary>
    public bool DropsEvents { get; set; }

    /// <summary>Tells every event of the API server twice.</summary>
    public bool RepeatsEvents { get; set; }

    /// <summary>Ends each new watch in good order as soon as the API server has accepted it.</summary>
    public bool EndsWatchesAtOnce { get; set; }

    /// <summary>Cuts each new watch off as soon as the API server has accepted it.</summary>
    public bool CutsWatchesAtOnce { get; set; }

    /// <summary>Answers lists and watches with this status instead of asking the API server.</summary>
    public HttpStatusCode? Refuses { get; set; }

    /// <summary>How late each event of a watch is passed on.</summary>
    public TimeSpan Delay { get; set; }

    /// <summary>The version that new watches ask the API server for, whatever their client asked for.</summary>
    public string? AsksFrom { get; set; }

    /// <exception cref="NotSupportedException">On a user's own cluster, whose certificate is not ours.</exception>
    public static async Task<FaultyProxy> StartAsync(DevCluster cluster, CancellationToken cancellation)
    {
        ArgumentNullException.ThrowIfNull(cluster);
        var plane = cluster.OwnPlane("nothing can be put before its API server");
        var keys = plane.Credentials;
        var proxy = new FaultyProxy(cluster.ApiServer, keys.AuthorityFile, keys.ServingCertificateFile, keys.ServingKeyFile);
        await proxy._app.StartAsync(cancellation);
        proxy.Address = new Uri(proxy._app.Urls.Single());
        proxy.KubeconfigPath = Path.Combine(cluster.StateDirectory, $"proxy-{proxy.Address.Port}.kubeconfig");
        Kubeconfig.Write(proxy.KubeconfigPath, Kubeconfig.WithToken(proxy.Address, keys.AuthorityPem, "admin", keys.AdminToken));
        return proxy;
    }

    /// <summary>The next so many watches are answered with 410 Gone.</summary>
    public void AnswerGone(int times) => Interlocked.Exchange(ref _gone, times);

    /// <summary>Puts a line into every open watch, as if the API server had sent it. Returns into how many.</summary>
    public int Inject(string line)
    {
        var open = _watches.Keys.Where(watch => _affects(watch.Path)).ToList();
        open.ForEach(watch => watch.Lines.Writer.TryWrite(new(line + "\n", IsInjected: true)));
        return open.Count;
    }

    /// <summary>An ERROR event as the API server writes it.</summary>
    public int InjectError(int code, string message) => Inject(
        $$$"""{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"{{{message}}}","reason":"Expired","code":{{{code}}}}}""");

    /// <summary>Cuts every open watch; after half a line if told to.</summary>
    public int Cut(string? after = null)
    {
        var open = _watches.Keys.Where(watch => _affects(watch.Path)).ToList();
        foreach (var watch in open)
        {
            if (after is not null) watch.Lines.Writer.TryWrite(new(after, IsInjected: true));
            watch.Lines.Writer.TryComplete(new IOException("cut"));
        }

        return open.Count;
    }

    /// <summary>Holds lists and watches back, those that are open too: connections stay, and not a byte of an answer comes.</summary>
    public void Freeze() => _frozen = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);

    /// <summary>Takes all faults off. What was held back goes on.</summary>
    public void Heal()
    {
        (DropsEvents, RepeatsEvents, EndsWatchesAtOnce, CutsWatchesAtOnce, Refuses, AsksFrom, Delay) = (false, false, false, false, null, null, TimeSpan.Zero);
        AnswerGone(0);
        var frozen = _frozen;
        _frozen = null;
        frozen?.TrySetResult();
        _affects = _ => true;
    }

    public async ValueTask DisposeAsync()
    {
        Heal();
        Cut();
        using var limit = new CancellationTokenSource(TimeSpan.FromSeconds(1));
        await _app.StopAsync(limit.Token);
        await _app.DisposeAsync();
        _server.Dispose();
        File.Delete(KubeconfigPath);
    }

    private async Task HandleAsync(HttpContext context)
    {
        var (request, path) = (context.Request, context.Request.Path.Value!);
        var isWatch = request.Query["watch"] == "true";
        var isList = !isWatch && HttpMethods.IsGet(request.Method) && request.Query.ContainsKey("limit");
        Remember(path, request.QueryString.Value ?? "", isWatch, isList);
        try
        {
            if ((isWatch || isList) && _affects(path))
            {
                await ThawAsync(context.RequestAborted);
                if (Refuses is { } status)
                {
                    await AnswerAsync(context, status);
                    return;
                }

                if (isWatch && Interlocked.Decrement(ref _gone) >= 0)
                {
                    await AnswerAsync(context, HttpStatusCode.Gone);
                    return;
                }
            }

            using var answer = await ForwardAsync(context, isWatch);
            context.Response.StatusCode = (int)answer.StatusCode;
            foreach (var (name, values) in answer.Headers.Concat(answer.Content.Headers))
            {
                if (!HopHeaders.Contains(name, StringComparer.OrdinalIgnoreCase)) context.Response.Headers[name] = values.ToArray();
            }

            if (isWatch && answer.IsSuccessStatusCode) await RelayAsync(context, path, answer);
            else await answer.Content.CopyToAsync(context.Response.Body, context.RequestAborted);
        }
        catch (Exception broken) when (broken is HttpRequestException or IOException or OperationCanceledException)
        {
            // Whatever broke on the other side breaks on this one.
            context.Abort();
        }
    }

    private Task<HttpResponseMessage> ForwardAsync(HttpContext context, bool isWatch)
    {
        var request = context.Request;
        var query = request.QueryString.Value ?? "";
        if (isWatch && AsksFrom is { } version && _affects(request.Path.Value!))
        {
            var parts = query.TrimStart('?').Split('&').Where(part => !part.StartsWith("resourceVersion=", StringComparison.Ordinal));
            query = "?" + string.Join('&', parts.Append("resourceVersion=" + version));
        }

        var forwarded = new HttpRequestMessage(new HttpMethod(request.Method), new Uri(_target, request.Path.ToUriComponent() + query)) { Version = HttpVersion.Version20 };
        if (request.ContentLength > 0 || request.Headers.TransferEncoding.Count > 0 || request.Method is "POST" or "PUT" or "PATCH" or "DELETE")
        {
            forwarded.Content = new StreamContent(request.Body);
        }

        foreach (var (name, values) in request.Headers)
        {
            if (name.StartsWith(':') || HopHeaders.Contains(name, StringComparer.OrdinalIgnoreCase)) continue;
            if (!forwarded.Headers.TryAddWithoutValidation(name, values.ToArray())) forwarded.Content?.Headers.TryAddWithoutValidation(name, values.ToArray());
        }

        return _server.SendAsync(forwarded, context.RequestAborted);
    }

    /// <summary>Lines of the API server and injected ones, in one order.</summary>
    private async Task RelayAsync(HttpContext context, string path, HttpResponseMessage answer)
    {
        await context.Response.StartAsync(context.RequestAborted);
        if (EndsWatchesAtOnce && _affects(path)) return;
        if (CutsWatchesAtOnce && _affects(path)) throw new IOException("cut");

        var watch = new OpenWatch(path, Channel.CreateUnbounded<Line>());
        _watches[watch] = 0;
        using var ending = CancellationTokenSource.CreateLinkedTokenSource(context.RequestAborted);
        var reading = ReadAsync(answer, watch, ending.Token);
        try
        {
            await context.Response.Body.FlushAsync(ending.Token);
            await foreach (var line in watch.Lines.Reader.ReadAllAsync(ending.Token))
            {
                var affected = _affects(path);
                if (affected) await ThawAsync(ending.Token);
                if (affected && Delay > TimeSpan.Zero) await Task.Delay(Delay, TimeProvider.System, ending.Token);
                if (affected && DropsEvents && !line.IsInjected && !line.Text.Contains("\"type\":\"BOOKMARK\"", StringComparison.Ordinal))
                {
                    Interlocked.Increment(ref _dropped);
                    continue;
                }

                await context.Response.WriteAsync(line.Text, ending.Token);
                if (affected && RepeatsEvents && !line.IsInjected) await context.Response.WriteAsync(line.Text, ending.Token);
                await context.Response.Body.FlushAsync(ending.Token);
            }
        }
        finally
        {
            _watches.TryRemove(watch, out _);
            await ending.CancelAsync();
            await reading;
        }
    }

    private static async Task ReadAsync(HttpResponseMessage answer, OpenWatch watch, CancellationToken cancellation)
    {
        try
        {
            using var reader = new StreamReader(await answer.Content.ReadAsStreamAsync(cancellation));
            while (await reader.ReadLineAsync(cancellation) is { } line) watch.Lines.Writer.TryWrite(new(line + "\n", IsInjected: false));
            watch.Lines.Writer.TryComplete();
        }
        catch (Exception broken) when (broken is HttpRequestException or IOException or OperationCanceledException)
        {
            watch.Lines.Writer.TryComplete(new IOException(broken.Message));
        }
    }

    private Task ThawAsync(CancellationToken cancellation) => _frozen?.Task.WaitAsync(cancellation) ?? Task.CompletedTask;

    private static async Task AnswerAsync(HttpContext context, HttpStatusCode status)
    {
        context.Response.StatusCode = (int)status;
        context.Response.ContentType = "application/json";
        await context.Response.WriteAsync(
            $$$"""{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"answered by a test","reason":"Expired","code":{{{(int)status}}}}""",
            context.RequestAborted);
    }

    private void Remember(string path, string query, bool isWatch, bool isList)
    {
        if (isWatch) Interlocked.Increment(ref _watchCount);
        if (isList) Interlocked.Increment(ref _lists);
        _requests.Enqueue(new(path, query, isWatch, TimeProvider.System.GetElapsedTime(_began)));
        while (_requests.Count > RememberedRequests) _requests.TryDequeue(out _);
    }

    private static SocketsHttpHandler CreateHandler(string authorityFile)
    {
        var handler = new SocketsHttpHandler { UseProxy = false, AllowAutoRedirect = false, UseCookies = false, EnableMultipleHttp2Connections = true };
        handler.SslOptions.CertificateChainPolicy = new X509ChainPolicy
        {
            TrustMode = X509ChainTrustMode.CustomRootTrust,
            RevocationMode = X509RevocationMode.NoCheck,
            CustomTrustStore = { X509CertificateLoader.LoadCertificateFromFile(authorityFile) },
        };
        return handler;
    }

    private readonly record struct Line(string Text, bool IsInjected);

    private sealed record OpenWatch(string Path, Channel<Line> Lines)
    {
        public bool Equals(OpenWatch? other) => ReferenceEquals(this, other);
        public override int GetHashCode() => System.Runtime.CompilerServices.RuntimeHelpers.GetHashCode(this);
    }
}
