using System.Net;
using System.Net.Sockets;
using System.Text;
using Prometheus;

namespace Tensormesh.Agent.Telemetry;

/// <summary>
/// Serves /metrics, /healthz and /readyz: one short answer to each connection. A web server would be a third of this process, for three pages that a
/// scraper and the kubelet ask for.
/// </summary>
internal sealed class TelemetryEndpoint(AgentOptions options, CollectorRegistry registry, Readiness readiness, TimeProvider time) : BackgroundService
{
    private const int MaxConnections = 16;
    private const int MaxRequestBytes = 8 * 1024;

    /// <summary>For a whole connection. Whoever needs longer is let go of.</summary>
    private static readonly TimeSpan Limit = TimeSpan.FromSeconds(5);

    /// <summary>After the system could not take a connection, as when it has no more files.</summary>
    private static readonly TimeSpan Pause = TimeSpan.FromSeconds(1);

    private readonly SemaphoreSlim free = new(MaxConnections, MaxConnections);
    private Socket? listener;

    /// <exception cref="SocketException">The address is taken, or none of this machine's.</exception>
    public override Task StartAsync(CancellationToken cancellationToken)
    {
        var url = new Uri(options.MetricsUrl);
        var address = IPAddress.Parse(url.Host);
        listener = new Socket(address.AddressFamily, SocketType.Stream, ProtocolType.Tcp);
        listener.Bind(new IPEndPoint(address, url.Port));
        listener.Listen(MaxConnections);
        return base.StartAsync(cancellationToken);
    }

    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        try
        {
            while (true)
            {
                await free.WaitAsync(stoppingToken).ConfigureAwait(false);
                try
                {
                    _ = ServeAsync(await listener!.AcceptAsync(stoppingToken).ConfigureAwait(false), stoppingToken);
                }
                catch (SocketException)
                {
                    free.Release();
                    await Task.Delay(Pause, time, stoppingToken).ConfigureAwait(false);
                }
            }
        }
        catch (OperationCanceledException)
        {
        }
    }

    private async Task ServeAsync(Socket connection, CancellationToken stopping)
    {
        using var limit = new CancellationTokenSource(Limit, time);
        using var late = CancellationTokenSource.CreateLinkedTokenSource(stopping, limit.Token);
        try
        {
            using var stream = new NetworkStream(connection, ownsSocket: true);
            var (status, type, body) = await AnswerAsync(await ReadTargetAsync(stream, late.Token).ConfigureAwait(false), late.Token).ConfigureAwait(false);
            var head = $"HTTP/1.1 {(int)status} {status}\r\nContent-Type: {type}\r\nContent-Length: {body.Length}\r\nConnection: close\r\n\r\n";
            await stream.WriteAsync(Encoding.ASCII.GetBytes(head), late.Token).ConfigureAwait(false);
            await stream.WriteAsync(body, late.Token).ConfigureAwait(false);
        }
        catch (Exception left) when (left is IOException or SocketException or OperationCanceledException)
        {
            // Whoever asked is gone, or asked nothing in time.
        }
        finally
        {
            free.Release();
        }
    }

    private async Task<(HttpStatusCode Status, string Type, byte[] Body)> AnswerAsync(string? target, CancellationToken cancellation)
    {
        switch (target)
        {
            case "/metrics":
                using (var text = new MemoryStream())
                {
                    await registry.CollectAndExportAsTextAsync(text, cancellation).ConfigureAwait(false);
                    return (HttpStatusCode.OK, "text/plain; version=0.0.4; charset=utf-8", text.ToArray());
                }

            case "/healthz":
                return Text(HttpStatusCode.OK, "ok");
            case "/readyz":
                return readiness.Problem() is { } problem ? Text(HttpStatusCode.ServiceUnavailable, problem) : Text(HttpStatusCode.OK, "ok");
            default:
                return Text(target is null ? HttpStatusCode.BadRequest : HttpStatusCode.NotFound, "GET /metrics, /healthz or /readyz");
        }
    }

    private static (HttpStatusCode Status, string Type, byte[] Body) Text(HttpStatusCode status, string line) =>
        (status, "text/plain; charset=utf-8", Encoding.UTF8.GetBytes(line + "\n"));

    /// <summary>The path of a GET, without its query; null for anything else. The whole head is read, or its sender would see the connection broken off.</summary>
    private static async Task<string?> ReadTargetAsync(NetworkStream stream, CancellationToken cancellation)
    {
        var head = new byte[MaxRequestBytes];
        var length = 0;
        while (head.AsSpan(0, length).IndexOf("\r\n\r\n"u8) < 0)
        {
            var read = length < head.Length ? await stream.ReadAsync(head.AsMemory(length), cancellation).ConfigureAwait(false) : 0;
            if (read == 0) return null;
            length += read;
        }

        var line = Encoding.ASCII.GetString(head, 0, head.AsSpan().IndexOf("\r\n"u8));
        return line.Split(' ') is ["GET", var target, "HTTP/1.0" or "HTTP/1.1"] ? target.Split('?')[0] : null;
    }

    public override void Dispose()
    {
        listener?.Dispose();
        free.Dispose();
        base.Dispose();
    }
}
