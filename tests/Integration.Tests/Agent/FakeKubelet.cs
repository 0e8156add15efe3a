using System.Buffers.Binary;
using Google.Protobuf;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Server.Kestrel.Core;
using Microsoft.Extensions.Logging;
using Tensormesh.Agent.Allocating.V1;
using Tensormesh.Resources;

namespace Tensormesh.Integration.Tests.Agents;

/// <summary>A kubelet's PodResources socket on a hollow node: it says who holds which GPU, and a test says it to it.</summary>
internal sealed class FakeKubelet : IAsyncDisposable
{
    private const string List = "/v1.PodResourcesLister/List";

    private readonly WebApplication app;
    private volatile ListPodResourcesResponse answer = new();

    private FakeKubelet(string socket)
    {
        var builder = WebApplication.CreateSlimBuilder();
        builder.Logging.ClearProviders();
        builder.WebHost.ConfigureKestrel(kestrel => kestrel.ListenUnixSocket(socket, listen => listen.Protocols = HttpProtocols.Http2));
        app = builder.Build();
        app.MapPost(List, AnswerAsync);
    }

    public static async Task<FakeKubelet> StartAsync(string socket)
    {
        var kubelet = new FakeKubelet(socket);
        await kubelet.app.StartAsync();
        return kubelet;
    }

    /// <summary>From now on these pods hold these GPUs, in their container main, and nobody else holds any.</summary>
    public void Say(params (string Namespace, string Pod, string[] Gpus)[] holders) => answer = new ListPodResourcesResponse
    {
        PodResources =
        {
            holders.Select(holder => new PodResources
            {
                Namespace = holder.Namespace,
                Name = holder.Pod,
                Containers =
                {
                    new ContainerResources { Name = "main", Devices = { new ContainerDevices { ResourceName = WellKnown.GpuResource, DeviceIds = { holder.Gpus } } } },
                },
            }),
        },
    };

    /// <summary>One message as gRPC frames it: no compression, its length, itself.</summary>
    private async Task AnswerAsync(HttpContext context)
    {
        var message = answer.ToByteArray();
        var frame = new byte[5 + message.Length];
        BinaryPrimitives.WriteInt32BigEndian(frame.AsSpan(1), message.Length);
        message.CopyTo(frame, 5);
        context.Response.ContentType = "application/grpc";
        await context.Response.Body.WriteAsync(frame, context.RequestAborted);
        context.Response.AppendTrailer("grpc-status", "0");
    }

    public ValueTask DisposeAsync() => app.DisposeAsync();
}
