using System.Diagnostics;
using System.Net.Sockets;
using System.Text;
using System.Threading.Channels;
using Grpc.Core;
using Grpc.Net.Client;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Server.Kestrel.Core;
using Microsoft.Extensions.DependencyInjection;
using Tensormesh.MockDevicePlugin;
using Tensormesh.MockDevicePlugin.V1Beta1;
using Tensormesh.TestKit;

namespace Tensormesh.Integration.Tests;

/// <summary>
/// The plugin as a process against a stand-in for the kubelet's registration socket. That a real kubelet takes it is shown by the dev
/// cluster's real node.
/// </summary>
public sealed class MockDevicePluginTests : IAsyncLifetime
{
    private const string Endpoint = "mock-nvidia.com-gpu.sock";
    private static readonly TimeSpan Deadline = TimeSpan.FromSeconds(30);
    private readonly string _folder = Directory.CreateTempSubdirectory("plugins").FullName;
    private readonly Channel<RegisterRequest> _registrations = Channel.CreateUnbounded<RegisterRequest>();
    private readonly CancellationTokenSource _deadline = new(Deadline);
    private WebApplication? _kubelet;
    private Process? _plugin;

    public async ValueTask InitializeAsync()
    {
        Gpus.Save(Path.Combine(Driver, "gpus.json"));
        await StartKubeletAsync();
        _plugin = StartPlugin();
    }

    public async ValueTask DisposeAsync()
    {
        if (_plugin is { HasExited: false })
        {
            _plugin.Kill();
            await _plugin.WaitForExitAsync();
        }

        _plugin?.Dispose();
        await _kubelet!.DisposeAsync();
        _deadline.Dispose();
        Directory.Delete(_folder, recursive: true);
    }

    [Fact]
    public async Task Registers_lists_its_gpus_and_allocates_by_uuid_in_index_order()
    {
        var request = await _registrations.Reader.ReadAsync(_deadline.Token);
        Assert.Equal(("v1beta1", "nvidia.com/gpu", Endpoint), (request.Version, request.ResourceName, request.Endpoint));

        using var channel = Connect();
        var plugin = new DevicePlugin.DevicePluginClient(channel);
        using var stream = plugin.ListAndWatch(new Empty(), cancellationToken: _deadline.Token);
        var devices = await NextAsync(stream);
        Assert.Equal(Gpus.Devices.Select(gpu => gpu.Uuid), devices.Select(device => device.ID));
        Assert.All(devices, device => Assert.Equal("Healthy", device.Health));
        Assert.All(devices, device => Assert.Matches("^GPU-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", device.ID));

        var allocation = await plugin.AllocateAsync(
            new AllocateRequest { ContainerRequests = { new ContainerAllocateRequest { DevicesIDs = { devices[5].ID, devices[2].ID } } } },
            cancellationToken: _deadline.Token);
        var answer = Assert.Single(allocation.ContainerResponses);
        Assert.Equal($"{devices[2].ID},{devices[5].ID}", answer.Envs["NVIDIA_VISIBLE_DEVICES"]);
        Assert.Equal(answer.Envs["NVIDIA_VISIBLE_DEVICES"], answer.Envs["CUDA_VISIBLE_DEVICES"]);
        Assert.Equal(NodeDriver.GpusFileInContainer, answer.Envs[MockDriver.EnvironmentVariable]);
        Assert.Equal(new Mount { HostPath = Driver, ContainerPath = NodeDriver.InContainer, ReadOnly = true }, Assert.Single(answer.Mounts));

        var unknown = new AllocateRequest { ContainerRequests = { new ContainerAllocateRequest { DevicesIDs = { "GPU-none" } } } };
        var refusal = await Assert.ThrowsAsync<RpcException>(async () => await plugin.AllocateAsync(unknown, cancellationToken: _deadline.Token));
        Assert.Equal(StatusCode.InvalidArgument, refusal.StatusCode);
    }

    [Fact]
    public async Task Sends_the_list_again_when_health_changes_and_when_it_recovers()
    {
        await _registrations.Reader.ReadAsync(_deadline.Token);
        using var channel = Connect();
        using var stream = new DevicePlugin.DevicePluginClient(channel).ListAndWatch(new Empty(), cancellationToken: _deadline.Token);
        var sick = (await NextAsync(stream))[3].ID;

        await File.WriteAllTextAsync(HealthFile, $"""["{sick}"]""", _deadline.Token);
        Assert.Equal(sick, Assert.Single(await NextAsync(stream), device => device.Health == "Unhealthy").ID);

        File.Delete(HealthFile);
        Assert.All(await NextAsync(stream), device => Assert.Equal("Healthy", device.Health));
    }

    [Fact]
    public async Task Registers_again_with_a_kubelet_that_restarted()
    {
        await _registrations.Reader.ReadAsync(_deadline.Token);

        // A kubelet that starts empties the folder before it makes its own socket.
        await _kubelet!.DisposeAsync();
        foreach (var file in Directory.GetFiles(_folder, "*.sock"))
        {
            File.Delete(file);
        }

        await StartKubeletAsync();
        await _registrations.Reader.ReadAsync(_deadline.Token);
        using var channel = Connect();
        using var stream = new DevicePlugin.DevicePluginClient(channel).ListAndWatch(new Empty(), cancellationToken: _deadline.Token);
        Assert.Equal(8, (await NextAsync(stream)).Count);
    }

    [Fact]
    public async Task Removes_its_socket_and_exits_0_on_sigterm()
    {
        await _registrations.Reader.ReadAsync(_deadline.Token);
        using var channel = Connect();
        using var stream = new DevicePlugin.DevicePluginClient(channel).ListAndWatch(new Empty(), cancellationToken: _deadline.Token);
        await NextAsync(stream);

        using var kill = Process.Start("kill", ["-TERM", $"{_plugin!.Id}"]);
        await _plugin.WaitForExitAsync(_deadline.Token);
        Assert.Equal(0, _plugin.ExitCode);
        Assert.False(File.Exists(Path.Combine(_folder, Endpoint)));
    }

    /// <summary>As kubelets before 1.26 do; .NET's own client refuses to send such a request, so it is written out in frames.</summary>
    [Fact]
    public async Task Answers_a_client_that_names_the_sockets_path_as_authority()
    {
        await _registrations.Reader.ReadAsync(_deadline.Token);
        var path = Path.Combine(_folder, Endpoint);
        using var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        await socket.ConnectAsync(new UnixDomainSocketEndPoint(path), _deadline.Token);
        await using var stream = new NetworkStream(socket);

        byte[] headers =
        [
            0x83, 0x86, .. Literal(4, "/v1beta1.DevicePlugin/GetDevicePluginOptions"), .. Literal(1, path),
            .. Literal(31, "application/grpc"), 0x40, 2, .. "te"u8, 8, .. "trailers"u8,
        ];
        byte[] settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        byte[] emptyMessage = [0, 0, 5, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0];
        byte[] request = [.. "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"u8, .. settings, .. Frame(1, headers), .. emptyMessage];
        await stream.WriteAsync(request, _deadline.Token);

        const byte headersFrame = 1;
        Assert.Equal(headersFrame, await FirstFrameOfStreamOneAsync(stream));
    }

    /// <summary>A header field with a name of the static table and a value of its own, to be indexed: what grpc-go writes.</summary>
    private static byte[] Literal(byte nameIndex, string value) => [(byte)(0x40 | nameIndex), (byte)value.Length, .. Encoding.ASCII.GetBytes(value)];

    private async Task<byte> FirstFrameOfStreamOneAsync(NetworkStream stream)
    {
        var header = new byte[9];
        while (true)
        {
            await stream.ReadExactlyAsync(header, _deadline.Token);
            await stream.ReadExactlyAsync(new byte[(header[0] << 16) | (header[1] << 8) | header[2]], _deadline.Token);
            if (header[8] == 1)
            {
                return header[3];
            }
        }
    }

    [Fact]
    public void Without_a_driver_the_gpus_are_those_that_a_mock_driver_of_the_node_would_show() => Assert.Equal(
        MockGpus.OfNode("gpu-a", 8).Devices.Select(gpu => gpu.Uuid), GpuInventory.OfNode("gpu-a", 8).Uuids);

    [Fact]
    public void Only_the_authority_of_a_headers_frame_is_rewritten()
    {
        // :method POST, :scheme http, :path /a as a literal with indexing, :authority as one, and a name of its own with a value.
        byte[] before = [0x83, 0x86, 0x44, 2, .. "/a"u8];
        byte[] after = [0x40, 2, .. "te"u8, 8, .. "trailers"u8];
        byte[] frame = Frame(1, [.. before, 0x41, 12, .. "/some/a.sock"u8, .. after]);

        byte[] expected = Frame(1, [.. before, 0x41, 9, .. "localhost"u8, .. after]);
        Assert.Equal(expected, AuthorityRewrite.Rewrite(frame));
        Assert.Equal(expected, AuthorityRewrite.Rewrite(expected));
        var data = Frame(0, Encoding.ASCII.GetBytes("anything at all"));
        Assert.Same(data, AuthorityRewrite.Rewrite(data));
    }

    /// <summary>Not what a count and a name would give.</summary>
    private static readonly MockGpus Gpus = MockGpus.OfNode("another", 8);

    private string Driver => Directory.CreateDirectory(Path.Combine(_folder, "driver")).FullName;

    private string HealthFile => Path.Combine(_folder, "unhealthy.json");

    private static byte[] Frame(byte type, byte[] payload) => [0, 0, (byte)payload.Length, type, 4, 0, 0, 0, 1, .. payload];

    private async Task StartKubeletAsync()
    {
        var builder = WebApplication.CreateEmptyBuilder(new WebApplicationOptions());
        builder.WebHost.UseKestrelCore().ConfigureKestrel(kestrel => kestrel.ListenUnixSocket(
            Path.Combine(_folder, "kubelet.sock"), socket => socket.Protocols = HttpProtocols.Http2));
        builder.Services.AddRoutingCore();
        builder.Services.AddGrpc();
        builder.Services.AddSingleton(_registrations.Writer);
        _kubelet = builder.Build();
        _kubelet.MapGrpcService<KubeletRegistration>();
        await _kubelet.StartAsync(_deadline.Token);
    }

    private Process StartPlugin()
    {
        var start = new ProcessStartInfo(Environment.ProcessPath is { } host && Path.GetFileName(host) == "dotnet" ? host : "dotnet");
        string[] arguments =
        [
            Path.Combine(AppContext.BaseDirectory, "mock-device-plugin.dll"),
            "--plugin-dir", _folder, "--resource", "nvidia.com/gpu", "--driver", Driver, "--health-file", HealthFile,
        ];
        Array.ForEach(arguments, start.ArgumentList.Add);
        start.RedirectStandardOutput = true;
        var process = Process.Start(start)!;
        process.BeginOutputReadLine();
        return process;
    }

    private GrpcChannel Connect()
    {
        var path = Path.Combine(_folder, Endpoint);
        var sockets = new SocketsHttpHandler
        {
            ConnectCallback = async (_, cancellation) =>
            {
                var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
                await socket.ConnectAsync(new UnixDomainSocketEndPoint(path), cancellation);
                return new NetworkStream(socket, ownsSocket: true);
            },
        };
        return GrpcChannel.ForAddress("http://localhost", new GrpcChannelOptions { HttpHandler = sockets, DisposeHttpClient = true });
    }

    private async Task<IList<Device>> NextAsync(AsyncServerStreamingCall<ListAndWatchResponse> stream)
    {
        Assert.True(await stream.ResponseStream.MoveNext(_deadline.Token));
        return stream.ResponseStream.Current.Devices;
    }

    private sealed class KubeletRegistration(ChannelWriter<RegisterRequest> registrations) : Registration.RegistrationBase
    {
        public override async Task<Empty> Register(RegisterRequest request, ServerCallContext context)
        {
            await registrations.WriteAsync(request, context.CancellationToken);
            return new Empty();
        }
    }
}
