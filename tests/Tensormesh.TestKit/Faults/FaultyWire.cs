using System.Collections.Concurrent;
using System.Net;
using System.Net.Sockets;

namespace Tensormesh.TestKit;

/// <summary>
/// A TCP hop in front of a server that passes bytes on unseen, until it is told to misbehave as a middlebox does: to forget the connections
/// that it has without a word to either end, to swallow whatever is sent over old ones and new ones, or to cut them.
/// </summary>
public sealed class FaultyWire : IAsyncDisposable
{
    private readonly TcpListener _listener = new(IPAddress.Loopback, 0);
    private readonly CancellationTokenSource _ending = new();
    private readonly ConcurrentDictionary<Connection, byte> _connections = new();
    private readonly Uri _target;
    private readonly Task _accepting;
    private volatile bool _swallows;

    private FaultyWire(Uri target)
    {
        _target = target;
        _listener.Start();
        Address = new UriBuilder(target) { Host = "127.0.0.1", Port = ((IPEndPoint)_listener.LocalEndpoint).Port }.Uri;
        _accepting = AcceptAsync();
    }

    /// <summary>Where to connect instead of the target; the same scheme. A TLS server's certificate must name 127.0.0.1.</summary>
    public Uri Address { get; }

    /// <summary>Connections that pass bytes on.</summary>
    public int Connections => _connections.Keys.Count(connection => !connection.IsForgotten);

    public static FaultyWire Start(Uri target) => new(target);

    /// <summary>From now on not a byte goes through the connections that there are, and nobody is told. New ones work.</summary>
    public void BlackHole()
    {
        foreach (var connection in _connections.Keys) connection.IsForgotten = true;
    }

    /// <summary>From now on not a byte goes through: connections stay open, new ones are accepted, and none of them is ever answered.</summary>
    public void Swallow()
    {
        _swallows = true;
        BlackHole();
    }

    /// <summary>New connections work again. What was sent before is lost, and the connections that it was sent over stay silent.</summary>
    public void Heal() => _swallows = false;

    /// <summary>Writes a copy of a kubeconfig file that leads through here, beside it, and returns the copy's path.</summary>
    public string Lead(string kubeconfig)
    {
        var copy = $"{kubeconfig}.{Address.Port}";
        Kubeconfig.Write(copy, File.ReadAllText(kubeconfig).Replace(
            $"server: {_target.ToString().TrimEnd('/')}", $"server: {Address.ToString().TrimEnd('/')}", StringComparison.Ordinal));
        return copy;
    }

    /// <summary>Ends the connections that there are with a reset. New ones work.</summary>
    public void Cut()
    {
        foreach (var connection in _connections.Keys) connection.Reset();
    }

    public async ValueTask DisposeAsync()
    {
        await _ending.CancelAsync();
        _listener.Dispose();
        Cut();
        await _accepting;
        _ending.Dispose();
    }

    private async Task AcceptAsync()
    {
        var passing = new ConcurrentDictionary<Task, byte>();
        try
        {
            while (true)
            {
                var client = await _listener.AcceptSocketAsync(_ending.Token);
                var task = PassAsync(client);
                passing[task] = 0;
                _ = task.ContinueWith(done => passing.TryRemove(done, out byte _), TaskScheduler.Default);
            }
        }
        catch (Exception ended) when (ended is OperationCanceledException or SocketException or ObjectDisposedException)
        {
        }

        await Task.WhenAll(passing.Keys);
    }

    private async Task PassAsync(Socket client)
    {
        using var server = new Socket(SocketType.Stream, ProtocolType.Tcp);
        var connection = new Connection(client, server);
        using (client)
        {
            try
            {
                _connections[connection] = 0;
                if (_swallows)
                {
                    connection.IsForgotten = true;
                    await CopyAsync(client, server, connection);
                    return;
                }

                await server.ConnectAsync(_target.Host, _target.Port, _ending.Token);
                await Task.WhenAny(CopyAsync(client, server, connection), CopyAsync(server, client, connection));
            }
            catch (Exception ended) when (ended is OperationCanceledException or SocketException or ObjectDisposedException)
            {
            }
            finally
            {
                _connections.TryRemove(connection, out _);
            }
        }
    }

    /// <summary>Ends when either side does; a forgotten connection goes on reading and drops what it reads, so that neither side notices.</summary>
    private async Task CopyAsync(Socket from, Socket to, Connection connection)
    {
        var buffer = new byte[32 * 1024];
        try
        {
            while (true)
            {
                var count = await from.ReceiveAsync(buffer, _ending.Token);
                if (count == 0 && !connection.IsForgotten) return;
                // The end of one side must not reach the other either.
                if (count == 0) await Task.Delay(Timeout.InfiniteTimeSpan, TimeProvider.System, _ending.Token);
                for (var sent = 0; sent < count && !connection.IsForgotten;) sent += await to.SendAsync(buffer.AsMemory(sent, count - sent), _ending.Token);
            }
        }
        catch (Exception ended) when (ended is OperationCanceledException or SocketException or ObjectDisposedException)
        {
        }
    }

    private sealed class Connection(Socket client, Socket server)
    {
        public volatile bool IsForgotten;

        public void Reset()
        {
            foreach (var socket in (Socket[])[client, server])
            {
                try
                {
                    socket.Close(timeout: 0);
                }
                catch (ObjectDisposedException)
                {
                }
            }
        }
    }
}
