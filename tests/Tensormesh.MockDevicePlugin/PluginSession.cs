using System.Net.Sockets;
using Grpc.Core;
using Grpc.Net.Client;
using Microsoft.AspNetCore.Server.Kestrel.Core;
using Tensormesh.MockDevicePlugin.V1Beta1;

namespace Tensormesh.MockDevicePlugin;

/// <summary>
/// One registration with one run of the kubelet. A kubelet that starts empties the folder of every socket but its own, so
/// a new <c>kubelet.sock</c> ends the session: the plugin then binds again and registers again.
/// </summary>
internal sealed class PluginSession(PluginOptions options, GpuInventory inventory, Journal journal, TimeProvider time)
{
    private const string ApiVersion = "v1beta1";
    private static readonly TimeSpan LookEvery = TimeSpan.FromMilliseconds(250);
    private static readonly TimeSpan RegisterTimeout = TimeSpan.FromSeconds(5);
    private static readonly TimeSpan RetryAfter = TimeSpan.FromSeconds(1);

    /// <summary>Sessions, one after the other, until cancelled.</summary>
    public async Task RunAsync(CancellationToken cancellationToken)
    {
        while (!cancellationToken.IsCancellationRequested)
        {
            try
            {
                await WaitForKubeletAsync(cancellationToken);
                await ServeOneKubeletAsync(cancellationToken);
            }
            catch (OperationCanceledException) when (cancellationToken.IsCancellationRequested)
            {
                return;
            }
            catch (Exception e) when (e is RpcException or IOException or SocketException)
            {
                journal.Write($"registration failed, trying again: {e.Message}");
                await Task.Delay(RetryAfter, time, CancellationToken.None);
            }
        }
    }

    private async Task WaitForKubeletAsync(CancellationToken cancellationToken)
    {
        if (!File.Exists(options.KubeletSocket))
        {
            journal.Write($"waiting for {options.KubeletSocket}");
        }

        while (!File.Exists(options.KubeletSocket))
        {
            await Task.Delay(LookEvery, time, cancellationToken);
        }
    }

    private async Task ServeOneKubeletAsync(CancellationToken cancellationToken)
    {
        var kubelet = Identity(options.KubeletSocket);
        File.Delete(options.PluginSocket);
        await using var server = BuildServer();
        await server.StartAsync(cancellationToken);
        try
        {
            journal.Write($"serving {options.Endpoint}");
            await RegisterAsync(cancellationToken);
            journal.Write($"registered {options.Resource}: {inventory.Uuids.Count} x {options.Product} on {options.Node}");
            while (Identity(options.KubeletSocket) == kubelet && File.Exists(options.PluginSocket))
            {
                await Task.Delay(LookEvery, time, cancellationToken);
            }

            journal.Write("the kubelet restarted");
        }
        finally
        {
            await server.StopAsync(CancellationToken.None);
            File.Delete(options.PluginSocket);
        }
    }

    /// <summary>A socket that was re-created has another time of last write; a missing one has none.</summary>
    private static DateTime? Identity(string socket) => File.Exists(socket) ? File.GetLastWriteTimeUtc(socket) : null;

    private WebApplication BuildServer()
    {
        var builder = WebApplication.CreateEmptyBuilder(new WebApplicationOptions());
        builder.WebHost.UseKestrelCore().ConfigureKestrel(kestrel => kestrel.ListenUnixSocket(options.PluginSocket, socket =>
        {
            socket.Protocols = HttpProtocols.Http2;
            socket.Use(AuthorityRewrite.Wrap);
        }));
        builder.Services.AddRoutingCore();
        builder.Services.AddGrpc();
        builder.Services.AddSingleton(inventory).AddSingleton(options).AddSingleton(journal);
        // Signals are Program's business: a host of its own lifetime would end one session, not the process.
        builder.Services.AddSingleton<IHostLifetime, NoLifetime>();
        builder.Services.Configure<HostOptions>(host => host.ShutdownTimeout = TimeSpan.FromSeconds(2));
        var app = builder.Build();
        app.MapGrpcService<DevicePluginService>();
        return app;
    }

    private async Task RegisterAsync(CancellationToken cancellationToken)
    {
        using var handler = new SocketsHttpHandler
        {
            ConnectCallback = async (_, cancellation) =>
            {
                var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
                await socket.ConnectAsync(new UnixDomainSocketEndPoint(options.KubeletSocket), cancellation);
                return new NetworkStream(socket, ownsSocket: true);
            },
        };
        using var channel = GrpcChannel.ForAddress("http://localhost", new GrpcChannelOptions { HttpHandler = handler });
        var request = new RegisterRequest
        {
            Version = ApiVersion,
            Endpoint = options.Endpoint,
            ResourceName = options.Resource,
            Options = DevicePluginService.Options,
        };
        using var limit = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        limit.CancelAfter(RegisterTimeout);
        await new Registration.RegistrationClient(channel).RegisterAsync(request, cancellationToken: limit.Token);
    }

    private sealed class NoLifetime : IHostLifetime
    {
        public Task WaitForStartAsync(CancellationToken cancellationToken) => Task.CompletedTask;

        public Task StopAsync(CancellationToken cancellationToken) => Task.CompletedTask;
    }
}
